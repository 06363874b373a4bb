// What is recorded of every decision. Where it is recorded is the business of those who listen.

import type { ErrorCode } from '../base/errors.ts';

/** One decision, without any secret; docs/audit.md documents the JSON lines that are made of it. */
export type AuditEvent = {
  /** Identifies the request in the audit and the debug log (UUID). */
  readonly id: string;
  readonly operation: 'wrap' | 'unwrap' | 'unknown';
  readonly outcome: 'ok' | ErrorCode;
  /** Our name in the request, if it was told. */
  readonly provider?: string | undefined;
  /** Canonical URIs: of every recipient when wrapping, of the key that opened the packet when unwrapping. */
  readonly keys: readonly string[];
  /** Canonical URIs that the packet asked for, when unwrapping. */
  readonly asked?: readonly string[];
  readonly packet?: string;
  /** SHA-256 of the packet: what is encrypted is public, so a plain digest lets it be found in a manifest. */
  readonly packetDigest?: string;
  /** Base64 of SHA-256 of the sealed record of a v2 packet: the name `content` in the context that key services log. */
  readonly content?: string;
  readonly caller?: string | undefined;
  readonly milliseconds: number;
};

/** What counts decisions is told of each: the outcome as the caller has it, and the first key of the audit event. */
export type Decision = {
  readonly operation: AuditEvent['operation'];
  readonly key: string | undefined;
  readonly outcome: AuditEvent['outcome'];
};

/** Takes audit events. When it rejects, the answer is withheld and the call ends with `not-written`. */
export interface AuditSink {
  record(event: AuditEvent): Promise<void>;
}

/** For debugging: fixed texts, public values. Never a request, an answer, a key or a token. */
export interface Logger {
  debug(fields: Readonly<Record<string, unknown>>, message: string): void;
  warn(fields: Readonly<Record<string, unknown>>, message: string): void;
}
