// Answers API servers: a review in, a decision out, in time and on record.

import { markCall } from '../base/deadline.ts';
import { describeForCaller, OcicryptError } from '../base/errors.ts';
import {
  type Action,
  type Cluster,
  type Court,
  type Decided,
  decide,
  judgeNames,
  MORE_TIME,
  type Outcome,
} from './decision.ts';
import { formatProviderResponse, formatSystemError, parseProviderRequest } from './external-data.ts';
import type { ImageOutcome } from './finding.ts';
import { essentialsOf, podName } from './pod.ts';
import { formatAnswer, parseReview, type Review } from './review.ts';
import { ReviewPlaces } from './review-places.ts';

/** One decision, without any secret; docs/audit.md documents the JSON lines that are made of it. */
export type AdmissionEvent = {
  /** The API server's uid of the request. */
  readonly id: string;
  readonly operation: Action;
  readonly outcome: Outcome;
  /** Whether nothing was to come of the request. */
  readonly dryRun: boolean;
  readonly namespace: string;
  readonly pod: string;
  readonly user: string;
  readonly rule?: string | undefined;
  /** The first of them, those before the others that are not ok. */
  readonly images: readonly RecordedImage[];
  readonly problem?: string | undefined;
  readonly milliseconds: number;
};

type RecordedImage = {
  readonly image: string;
  readonly outcome: ImageOutcome;
  readonly digest?: string | undefined;
};

export type AdmissionOptions = {
  /** What holds at the moment: a review keeps to what it has begun with. */
  readonly court: () => Court;
  /** Undefined outside a cluster. */
  readonly cluster: Cluster | undefined;
  /** Rejects if the decision cannot be recorded: then the pod is refused. */
  readonly record: (event: AdmissionEvent) => Promise<void>;
  /** Reviews of one namespace that are worked on at the same time. */
  readonly perNamespace: number;
  readonly onReview: (action: Action, outcome: Outcome, milliseconds: number) => void;
  readonly onImage: (outcome: ImageOutcome) => void;
};

/** A document that was posted. */
export type Posted = {
  readonly path: string;
  readonly query: URLSearchParams;
  readonly body: Uint8Array;
  /** When its head came, by `performance.now()`. */
  readonly received: number;
  /** Ends the work when the caller has gone. */
  readonly signal: AbortSignal;
};

type Call = Omit<Posted, 'body'>;
type Setup = AdmissionOptions & { readonly places: ReviewPlaces };

type Reply = { readonly status: number; readonly type: string; readonly body: string };

/** Makes what answers API servers on `/validate` and `/mutate`, and Gatekeeper on `/gatekeeper/RULE`; other paths are undefined. */
export function createAdmission(options: AdmissionOptions): (posted: Posted) => Promise<Reply | undefined> {
  // A namespace whose registry hangs has all its reviews open, and must leave places for those of others.
  const setup: Setup = { ...options, places: new ReviewPlaces(options.perNamespace) };
  // Not async, and each document is read at once: while its answer is waited for, nothing here holds its bytes.
  return ({ body, ...call }) => {
    const action = ACTIONS.get(call.path);
    const rule = /^\/gatekeeper\/([A-Za-z0-9._-]{1,63})$/.exec(call.path)?.[1];
    try {
      if (rule !== undefined) return answerProvider(rule, parseProviderRequest(body), call, setup).then(json);
      if (action === undefined) return Promise.resolve(undefined);
      const whole = parseReview(body);
      const [object, oldObject] = [whole.object, whole.oldObject].map((pod) => pod && essentialsOf(pod));
      const review = { ...whole, object, oldObject };
      return answerReview(action, review, call, setup).then(({ answer }) => json(formatAnswer(review.uid, answer)));
    } catch (error) {
      // Without its uid there is no answer: the API server takes this for a failure of the webhook.
      return Promise.resolve({ status: 400, type: 'text/plain', body: `${describeForCaller(error)}\n` });
    }
  };
}

function json(body: string): Reply {
  return { status: 200, type: 'application/json', body };
}

const ACTIONS: ReadonlyMap<string, Action> = new Map([
  ['/validate', 'validate'],
  ['/mutate', 'mutate'],
]);

/** What a webhook has without `timeoutSeconds`, and the most that it may have. */
const USUAL_MILLISECONDS = 10_000;
const MAXIMUM_MILLISECONDS = 30_000;
/** For the answer's way back: a part of the time, within bounds. */
const RESERVE = 0.15;
const RESERVE_MILLISECONDS = { least: 150, most: 1000 } as const;

/** The time in which to answer, of that which the API server says that it waits (`?timeout=10s`, a duration of Go). */
export function timeFor(query: URLSearchParams): number {
  const [, minutes = '0', seconds = '0', milliseconds = '0'] = DURATION.exec(query.get('timeout') ?? '') ?? [];
  const said = Number(minutes) * 60_000 + Number(seconds) * 1000 + Number(milliseconds);
  const whole = said > 0 ? Math.min(said, MAXIMUM_MILLISECONDS) : USUAL_MILLISECONDS;
  const reserve = Math.min(Math.max(whole * RESERVE, RESERVE_MILLISECONDS.least), RESERVE_MILLISECONDS.most);
  return Math.max(whole - reserve, whole / 2);
}

const DURATION = /^(?:(\d{1,3})m(?!s))?(?:(\d{1,5}(?:\.\d{1,9})?)s)?(?:(\d{1,7}(?:\.\d{1,9})?)ms)?$/;

/** Runs `work` for as long as the caller waits. @param client whose turn it is where others wait too */
async function inTime<Result>(
  { query, received, signal: gone }: Call,
  client: string,
  work: (time: { readonly signal: AbortSignal; readonly deadline: number }) => Promise<Result>,
): Promise<Result> {
  const limit = timeFor(query);
  const deadline = received + limit;
  const expired = new AbortController();
  const late = new OcicryptError('deadline-exceeded', `not done within ${Math.round(limit)} ms`, { hint: MORE_TIME });
  const timer = setTimeout(() => expired.abort(late), deadline - performance.now());
  const signal = AbortSignal.any([expired.signal, gone]);
  markCall(signal, limit, client);
  try {
    return await work({ signal, deadline });
  } finally {
    clearTimeout(timer);
  }
}

/** What Gatekeeper asks has neither pod nor namespace: its own constraints decide, and its own audit records. */
async function answerProvider(
  rule: string,
  names: readonly string[],
  call: Call,
  { court, places, onImage }: Setup,
): Promise<string> {
  try {
    const setup = { court: court(), cluster: undefined, places };
    const findings = await inTime(call, 'gatekeeper', (time) => judgeNames({ ...setup, ...time }, rule, names));
    for (const { outcome } of findings) onImage(outcome);
    return formatProviderResponse(findings);
  } catch (error) {
    return formatSystemError(describeForCaller(error));
  }
}

async function answerReview(action: Action, review: Review, call: Call, options: Setup): Promise<Decided> {
  const { received } = call;
  const setup = { action, review, court: options.court(), cluster: options.cluster, places: options.places };
  const { namespace } = review;
  // Namespaces take turns where they wait; none is called as Gatekeeper is, which has its own.
  const work = inTime(call, `namespace ${namespace}`, (time) => decide({ ...setup, ...time }));
  let decided = await work.catch(refusal);
  try {
    const isIdle = decided.outcome === 'not-judged' || (action === 'mutate' && decided.outcome === 'allowed');
    if (!isIdle) await options.record(eventOf(action, review, decided, performance.now() - received));
  } catch (error) {
    decided = refusal(error);
  }
  for (const { outcome } of decided.findings ?? []) options.onImage(outcome);
  options.onReview(action, decided.outcome, performance.now() - received);
  return decided;
}

/** Whatever goes wrong, the pod is not let in. */
function refusal(error: unknown): Decided {
  return { outcome: 'denied', answer: { allowed: false, message: describeForCaller(error) } };
}

/** A pod of a thousand containers is one line. */
const MAXIMUM_RECORDED = 64;
const MAXIMUM_NAME = 512;

function eventOf(action: Action, review: Review, decided: Decided, milliseconds: number): AdmissionEvent {
  const { uid: id, dryRun, namespace, user, object = {}, name } = review;
  const { outcome, rule, findings = [], answer } = decided;
  // What is wrong comes first: of a pod of a thousand containers it may be the last.
  const sorted = findings.toSorted((one, other) => Number(one.outcome === 'ok') - Number(other.outcome === 'ok'));
  const images = new Map(
    sorted.map(({ image, outcome: found, digest }) => [
      image.name,
      { image: image.name.slice(0, MAXIMUM_NAME), outcome: found, digest },
    ]),
  );
  return {
    ...{ id, operation: action, outcome, dryRun, namespace, pod: podName(object, name), user, rule: rule?.name },
    images: [...images.values()].slice(0, MAXIMUM_RECORDED),
    problem: answer.message,
    milliseconds: Math.round(milliseconds),
  };
}
