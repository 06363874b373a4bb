// What a connection is to those who hold it, whatever protocol it speaks, and what it tells them.

import type { Socket } from 'node:net';
import type { CallContext } from './call.ts';

/** Why a connection was closed by us: a closed set, for metrics. */
export const CLOSE_REASONS = ['too-many', 'slow', 'idle', 'nuisance', 'unread', 'drain'] as const;
export type CloseReason = (typeof CLOSE_REASONS)[number];

export type ConnectionsOptions = CallContext & {
  readonly closedBecause: (reason: CloseReason) => void;
};

/** One connection that speaks its protocol. */
export interface Connection {
  readonly socket: Socket;
  /** Its beginning, by `performance.now()`. */
  readonly since: number;
  /** Whether a call is open. */
  isBusy(): boolean;
  /** Looks at its clocks, and closes it if it has to be closed. */
  sweep(now: number): void;
  /** Says goodbye and closes, if no call is open. */
  leave(reason: CloseReason): void;
  /** Closes at once. */
  close(reason: CloseReason): void;
}

/** What a connection tells those who hold it. */
export interface ConnectionHolder {
  readonly options: ConnectionsOptions;
  /** It has sent a whole request. */
  prove(connection: Connection): void;
  /** It has no open call any more. */
  rest(connection: Connection): void;
  /** It is closed. */
  forget(connection: Connection): void;
}
