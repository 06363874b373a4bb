// One decision about one pod: which rule is for it, what its images are, and what follows.

import { clientOf, withDeadline } from '../base/deadline.ts';
import { asOcicryptError, describeForCaller, OcicryptError } from '../base/errors.ts';
import type { UnknownRecord } from '../base/yaml-file.ts';
import { forEachLimited } from '../image/concurrency.ts';
import { nameByDigestTag } from '../image/model/digest-tag.ts';
import type { RegistryReference } from '../image/model/reference.ts';
import { type Finding, isAtFault, joinSentences, looseName, sentenceOf } from './finding.ts';
import { formatImageName, isFixed, isOnThisMachine, isWhole, parseImageName } from './image-name.ts';
import { type Judge, type Logins, NO_LOGINS } from './judge.ts';
import { boundLabels, isMirror, labelsOf, newImages, type PodImage, podName, pullSecretsOf } from './pod.ts';
import {
  type AdmissionPolicy,
  findRule,
  isListed,
  type Labels,
  type NodeRuntime,
  type Rule,
  runtimeOf,
} from './policy.ts';
import type { Answer, PatchStep, Review } from './review.ts';
import type { ReviewPlaces } from './review-places.ts';

/** What was said of a pod: a closed set, for metrics and audit. */
export type Outcome = 'allowed' | 'denied' | 'exempt' | 'not-judged' | 'pinned' | 'warned' | 'would-deny';
export type Action = 'mutate' | 'validate';

/** A policy in force, and who judges by it. */
export type Court = { readonly policy: AdmissionPolicy; readonly judge: Judge };

/** What only the cluster itself knows. */
export interface Cluster {
  /** @throws OcicryptError */
  namespaceLabels(namespace: string, signal: AbortSignal): Promise<Labels>;
  /** The credentials in those of the secrets that are there. @throws OcicryptError */
  logins(namespace: string, secrets: readonly string[], signal: AbortSignal): Promise<Logins>;
}

/** What helps where time was too short. */
export const MORE_TIME = 'try again, or raise timeoutSeconds of the webhook';

export type Decided = {
  readonly outcome: Outcome;
  readonly answer: Answer;
  readonly rule?: Rule | undefined;
  readonly findings?: readonly Finding[];
};

/** Images of one pod that are looked at side by side. */
const SIDE_BY_SIDE = 8;
const SHOWN_FINDINGS = 2;
/** An image that is not judged in time says what it waits for, before all ends. */
const MARGIN_MILLISECONDS = 50;

const NO_PLACE = 'cannot be judged: throttled: too many pods of its namespace are looked at already; try again later';

/** What a decision is made of. */
export type DecisionSetup = {
  readonly action: Action;
  readonly review: Review;
  readonly court: Court;
  /** Undefined outside a cluster. */
  readonly cluster: Cluster | undefined;
  readonly places: ReviewPlaces;
  /** Ends all that takes time; marked with the client that it is for. */
  readonly signal: AbortSignal;
  /** When that will be, by `performance.now()`. */
  readonly deadline: number;
};

/**
 * Decides about what a review is about.
 *
 * @throws OcicryptError what keeps it from being judged at all, so that it is refused
 */
export async function decide(setup: DecisionSetup): Promise<Decided> {
  const { operation, resource, object } = setup.review;
  const [plural = '', part] = resource.split('/');
  const isPod = plural === 'pods';
  // What else there is of a pod (status, binding, resize) brings no image.
  const isIdle =
    operation === 'DELETE' ||
    operation === 'CONNECT' ||
    (isPod && part !== undefined && part !== 'ephemeralcontainers');
  if (isIdle) return { outcome: 'not-judged', answer: { allowed: true } };
  if (!isPod) {
    throw new OcicryptError('not-allowed', `this webhook judges pods, and was asked about ${resource || 'nothing'}`, {
      hint: 'its configuration should name the resources pods and pods/ephemeralcontainers alone',
    });
  }
  if (object === undefined) throw new OcicryptError('bad-input', 'the request has no pod');
  return new PodDecision(setup, object).make();
}

/**
 * What is found about names of images by a rule that the caller names, wherever they are to run.
 *
 * @throws OcicryptError `not-found` for a rule that there is not
 */
export async function judgeNames(
  setup: Omit<DecisionSetup, 'action' | 'review'>,
  ruleName: string,
  names: readonly string[],
): Promise<readonly Finding[]> {
  const rule = setup.court.policy.rules.find(({ name }) => name === ruleName);
  if (rule === undefined) throw new OcicryptError('not-found', 'the policy has no rule of this name');
  const pod = { spec: { containers: names.map((image) => ({ name: 'image', image })) } };
  return new PodDecision({ ...setup, action: 'validate', review: NO_REVIEW }, pod).findByRule(rule);
}

const NO_REVIEW: Review = {
  ...{ uid: '', operation: '', resource: '', namespace: '', name: '', user: '', dryRun: false },
  ...{ object: undefined, oldObject: undefined },
};

class PodDecision {
  readonly #setup: DecisionSetup;
  readonly #pod: UnknownRecord;
  readonly #runtime: NodeRuntime | undefined;
  #found: Promise<Logins> | undefined;

  constructor(setup: DecisionSetup, pod: UnknownRecord) {
    this.#setup = setup;
    this.#pod = pod;
    this.#runtime = runtimeOf(setup.court.policy, boundLabels(pod));
  }

  async make(): Promise<Decided> {
    const { action, court, review, signal } = this.#setup;
    const { namespace, operation, oldObject } = review;
    const rule = await findRule(court.policy, { namespace, labels: labelsOf(this.#pod) }, () =>
      this.#cluster().namespaceLabels(namespace, signal),
    );
    if (rule === undefined) {
      const allowed = court.policy.fallback === 'allow' || action === 'mutate';
      if (allowed) return { outcome: 'not-judged', answer: { allowed } };
      const message = `no rule of the policy is for ${this.#name()}, and its default is deny`;
      return { outcome: 'denied', answer: { allowed, message } };
    }
    if (rule.mode === 'exempt') return { outcome: 'exempt', answer: { allowed: true }, rule };
    const images = newImages(this.#pod, operation === 'UPDATE' ? oldObject : undefined);
    if (images.length === 0) return { outcome: 'allowed', answer: { allowed: true }, rule };
    return this.#inPlace(images, rule, (findings) =>
      action === 'mutate' ? this.#pin(rule, findings) : this.#validate(rule, findings),
    );
  }

  /** @param rule that is for it, however it was chosen */
  findByRule(rule: Rule): Promise<readonly Finding[]> {
    return this.#inPlace(newImages(this.#pod, undefined), rule, (findings) => findings);
  }

  /** Without a place nothing can be known of any image, and the rule says what becomes of such. */
  async #inPlace<Result>(
    images: readonly PodImage[],
    rule: Rule,
    work: (findings: readonly Finding[]) => Result | Promise<Result>,
  ): Promise<Result> {
    const { places, signal } = this.#setup;
    const leave = places.take(clientOf(signal));
    if (leave === undefined) return work(images.map((image) => ({ image, outcome: 'throttled', problem: NO_PLACE })));
    try {
      return await work(await this.#findAll(images, rule));
    } finally {
      leave();
    }
  }

  /** Each name is looked at once, however often it stands in the pod. */
  async #findAll(images: readonly PodImage[], rule: Rule): Promise<readonly Finding[]> {
    const found = new Map<string, Omit<Finding, 'image'>>();
    await forEachLimited([...new Set(images.map(({ name }) => name))], SIDE_BY_SIDE, async (name) => {
      found.set(name, await this.#find(name, rule));
    });
    return images.map((image) => ({ image, ...(found.get(image.name) ?? { outcome: 'internal', problem: '' }) }));
  }

  async #find(name: string, rule: Rule): Promise<Omit<Finding, 'image'>> {
    let reference: RegistryReference | undefined;
    try {
      reference = parseImageName(name);
      this.#checkPlace(name, reference);
      const { signal, deadline, court } = this.#setup;
      const image = reference;
      const left = deadline - MARGIN_MILLISECONDS - performance.now();
      if (left <= 0) throw new OcicryptError('deadline-exceeded', 'there was no time left to look at it');
      const { ok, digest, problem } = await withDeadline(left, signal, 'looking at it', async (running) =>
        court.judge.judge(image, rule, await this.#logins(rule), running),
      );
      if (ok) return { outcome: 'ok', digest, reference, problem: '' };
      return { outcome: 'integrity', reference, problem: `is not encrypted as it must be: ${problem}` };
    } catch (error) {
      const { code } = asOcicryptError(error);
      const said = code === 'deadline-exceeded' ? asOcicryptError(error).with({ hint: MORE_TIME }) : error;
      const how = isAtFault(code) ? 'is refused' : 'cannot be judged';
      const problem = `${how}: ${describeForCaller(said)}`;
      return reference === undefined ? { outcome: code, problem } : { outcome: code, reference, problem };
    }
  }

  /** @throws OcicryptError `not-allowed` */
  #checkPlace(name: string, reference: RegistryReference): void {
    const { registries } = this.#setup.court.policy;
    const isNamed = registries !== undefined && isListed(registries, `${reference.host}/${reference.name}`);
    if (!isNamed && (registries !== undefined || isOnThisMachine(reference))) {
      throw new OcicryptError('not-allowed', `the policy does not list the registry ${reference.host}`);
    }
    if (this.#runtime === 'cri-o' && !isWhole(name)) {
      throw new OcicryptError('not-allowed', 'its name has no registry, and CRI-O may look for it in another one', {
        hint: `write ${formatImageName(reference)}`,
      });
    }
  }

  #validate(rule: Rule, findings: readonly Finding[]): Decided {
    const bad = findings.filter(({ outcome }) => outcome !== 'ok');
    const denying = bad.filter(({ outcome }) => isAtFault(outcome) || rule.unknown === 'deny');
    // A node may yet find what is not to be known now: where a fixed name is demanded, that image needs one as well.
    const named = findings.filter((one) => one.outcome === 'ok' || (rule.pin === 'required' && !denying.includes(one)));
    const loose = rule.pin === 'never' ? [] : named.flatMap((one) => looseName(one, this.#runtime) ?? []);
    const refusals = [...denying.map(sentenceOf), ...(rule.pin === 'required' ? loose : [])];
    const warnings = [
      ...bad.filter((one) => !denying.includes(one)).map(sentenceOf),
      ...(rule.pin === 'required' ? [] : loose),
    ];
    const said = { rule, findings };
    if (rule.mode === 'dry-run') {
      return { ...said, outcome: refusals.length === 0 ? 'allowed' : 'would-deny', answer: { allowed: true } };
    }
    if (refusals.length === 0) return { ...said, outcome: 'allowed', answer: { allowed: true, warnings } };
    if (rule.mode === 'warn') {
      return { ...said, outcome: 'warned', answer: { allowed: true, warnings: [...refusals, ...warnings] } };
    }
    const message = `${this.#name()}: ${joinSentences(refusals, SHOWN_FINDINGS)} (rule ${rule.name})`;
    return { ...said, outcome: 'denied', answer: { allowed: false, message, warnings } };
  }

  /** Good images alone: what the validating webhook refuses, or warns of, is left as it is. */
  async #pin(rule: Rule, findings: readonly Finding[]): Promise<Decided> {
    const patch: PatchStep[] = [];
    const runtime = this.#runtime;
    const mayPin = rule.pin !== 'never' && rule.mode !== 'dry-run' && !isMirror(this.#pod);
    if (mayPin && runtime !== undefined) {
      const names = new Map<string, Promise<string | undefined>>();
      for (const { image, reference, digest } of findings) {
        if (reference === undefined || digest === undefined || isFixed(reference, runtime)) continue;
        const known = names.get(image.name) ?? this.#fixedName(reference, digest, rule);
        names.set(image.name, known);
        const value = await known;
        if (value !== undefined) patch.push({ op: 'replace', path: image.pointer, value });
      }
    }
    return { outcome: patch.length === 0 ? 'allowed' : 'pinned', answer: { allowed: true, patch }, rule, findings };
  }

  /** The digest for containerd; for CRI-O the digest tag if the image has it, which it does not need. */
  async #fixedName(reference: RegistryReference, digest: string, rule: Rule): Promise<string | undefined> {
    if (this.#runtime === 'containerd') return formatImageName({ ...reference, tag: undefined, digest });
    const { court, signal } = this.#setup;
    const logins = await this.#logins(rule);
    const hasTag = await court.judge.hasDigestTag(reference, digest, logins, signal).catch(() => false);
    return hasTag ? formatImageName(nameByDigestTag(reference, digest)) : undefined;
  }

  /** Read once, when the first image needs them. */
  #logins(rule: Rule): Promise<Logins> {
    this.#found ??= this.#findLogins(rule);
    return this.#found;
  }

  async #findLogins(rule: Rule): Promise<Logins> {
    const secrets = rule.pullSecrets ? pullSecretsOf(this.#pod) : [];
    if (secrets.length === 0) return NO_LOGINS;
    return this.#cluster().logins(this.#setup.review.namespace, secrets, this.#setup.signal);
  }

  #cluster(): Cluster {
    const { cluster } = this.#setup;
    if (cluster !== undefined) return cluster;
    throw new OcicryptError('configuration', 'the policy needs the API server, and this is no pod of a cluster');
  }

  #name(): string {
    const { namespace, name } = this.#setup.review;
    return `pod ${namespace}/${podName(this.#pod, name)}`;
  }
}
