// Answers API servers: a review in, a decision out, in time and on record.

import { markCall } from '../base/deadline.ts';
import { describeForCaller, OcicryptError } from '../base/errors.ts';
import { type Action, type Cluster, type Court, type Decided, decide, MORE_TIME, type Outcome } from './decision.ts';
import type { ImageOutcome } from './finding.ts';
import { podName } from './pod.ts';
import { formatAnswer, parseReview, type Review } from './review.ts';

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
  /** The first of them. */
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

type Reply = { readonly status: number; readonly type: string; readonly body: string };

/** Makes what answers API servers on `/validate` and `/mutate`; other paths are undefined. */
export function createAdmission(options: AdmissionOptions): (posted: Posted) => Promise<Reply | undefined> {
  return async (posted) => {
    const action = ACTIONS.get(posted.path);
    if (action === undefined) return undefined;
    let review: Review;
    try {
      review = parseReview(posted.body);
    } catch (error) {
      // Without its uid there is no answer: the API server takes this for a failure of the webhook.
      return { status: 400, type: 'text/plain', body: `${describeForCaller(error)}\n` };
    }
    const { answer } = await answerInTime(action, review, posted, options);
    return { status: 200, type: 'application/json', body: formatAnswer(review.uid, answer) };
  };
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

async function answerInTime(
  action: Action,
  review: Review,
  posted: Posted,
  options: AdmissionOptions,
): Promise<Decided> {
  const { query, received, signal: gone } = posted;
  const limit = timeFor(query);
  const expired = new AbortController();
  const deadline = received + limit;
  const late = new OcicryptError('deadline-exceeded', `not done within ${Math.round(limit)} ms`, { hint: MORE_TIME });
  const timer = setTimeout(() => expired.abort(late), deadline - performance.now());
  const signal = AbortSignal.any([expired.signal, gone]);
  // Namespaces take turns where they wait.
  markCall(signal, limit, review.namespace);
  let decided: Decided;
  try {
    const setup = { action, review, court: options.court(), cluster: options.cluster, signal, deadline };
    decided = await decide(setup);
  } catch (error) {
    decided = refusal(error);
  }
  try {
    const isOnRecord = decided.outcome === 'not-judged' || (action === 'mutate' && decided.outcome === 'allowed');
    if (!isOnRecord) await options.record(eventOf(action, review, decided, performance.now() - received));
  } catch (error) {
    decided = refusal(error);
  } finally {
    clearTimeout(timer);
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
  const images = new Map(
    findings.map(({ image, outcome: found, digest }) => [
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
