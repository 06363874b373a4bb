// Says on the server's log why calls failed: every one of them, but for those that would fill it.

import { CALL_STATUS, type CallStatus } from '../base/grpc.ts';

/** A call that did not end with OK. */
export type FailedCall = {
  /** The path of a method that exists, or "unknown". */
  readonly method: string;
  readonly status: CallStatus;
  readonly caller: string;
  /** The whole line, with what the caller is not told about files of this machine. */
  readonly problem: string;
};

/** A log of failures writes to this: fixed texts and public values. */
type Warn = (fields: Readonly<Record<string, unknown>>, message: string) => void;

/** Lines for calls of one status within one time; the others of it are counted. */
const LINES = 20;
const TIME_MILLISECONDS = 60_000;

/**
 * Makes a function that says each failure. Statuses are a closed set, and each has lines of its own, so that calls that
 * fail in one way cannot hide those that fail in another.
 */
export function createFailureLog(warn: Warn): (failure: FailedCall) => void {
  const counts = new Map<CallStatus, number>();
  const sum = (status: CallStatus) => {
    const unsaid = (counts.get(status) ?? 0) - LINES;
    counts.delete(status);
    if (unsaid > 0) warn({ status: statusName(status), calls: unsaid }, 'more calls failed in the last minute');
  };
  return ({ method, status, caller, problem }) => {
    const count = counts.get(status) ?? 0;
    counts.set(status, count + 1);
    if (count === 0) setTimeout(() => sum(status), TIME_MILLISECONDS).unref();
    if (count < LINES) warn({ method, status: statusName(status), caller, problem }, 'a call failed');
  };
}

/** As gRPC calls it. */
export function statusName(status: CallStatus): string {
  return NAMES.get(status) ?? 'UNKNOWN';
}

const NAMES: ReadonlyMap<number, string> = new Map(Object.entries(CALL_STATUS).map(([name, status]) => [status, name]));
