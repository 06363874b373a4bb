// The one error class, its closed list of codes, and the table from code to exit status and gRPC status.

/** What went wrong, as a stable name that users may rely on; docs/errors.md says what to do about each. */
export type ErrorCode =
  | 'usage'
  | 'bad-input'
  | 'not-found'
  | 'unavailable'
  | 'deadline-exceeded'
  | 'key-disabled'
  | 'internal'
  | 'not-written'
  | 'throttled'
  | 'integrity'
  | 'not-allowed'
  | 'refused'
  | 'unauthenticated'
  | 'configuration';

/** How a code leaves the process: the exit status of a command (sysexits.h) and the gRPC status of a call. */
export type ErrorStatus = { readonly exit: number; readonly grpc: GrpcStatus };

/** The gRPC statuses in use: https://grpc.github.io/grpc/core/md_doc_statuscodes.html */
export type GrpcStatus = (typeof GRPC_STATUS)[keyof typeof GRPC_STATUS];

export const GRPC_STATUS = {
  INVALID_ARGUMENT: 3,
  DEADLINE_EXCEEDED: 4,
  NOT_FOUND: 5,
  PERMISSION_DENIED: 7,
  RESOURCE_EXHAUSTED: 8,
  FAILED_PRECONDITION: 9,
  INTERNAL: 13,
  UNAVAILABLE: 14,
  DATA_LOSS: 15,
  UNAUTHENTICATED: 16,
} as const;

/** Whether a text, as another process of ours has written it, is the name of a code. */
export function isErrorCode(text: string): text is ErrorCode {
  return Object.hasOwn(ERROR_STATUS, text);
}

/** Exhaustive by type: a new code does not compile until both of its statuses are decided. */
export const ERROR_STATUS: { readonly [code in ErrorCode]: ErrorStatus } = {
  usage: { exit: 64, grpc: GRPC_STATUS.INVALID_ARGUMENT },
  'bad-input': { exit: 65, grpc: GRPC_STATUS.INVALID_ARGUMENT },
  'not-found': { exit: 66, grpc: GRPC_STATUS.NOT_FOUND },
  unavailable: { exit: 69, grpc: GRPC_STATUS.UNAVAILABLE },
  'deadline-exceeded': { exit: 69, grpc: GRPC_STATUS.DEADLINE_EXCEEDED },
  'key-disabled': { exit: 69, grpc: GRPC_STATUS.FAILED_PRECONDITION },
  internal: { exit: 70, grpc: GRPC_STATUS.INTERNAL },
  'not-written': { exit: 74, grpc: GRPC_STATUS.UNAVAILABLE },
  throttled: { exit: 75, grpc: GRPC_STATUS.RESOURCE_EXHAUSTED },
  integrity: { exit: 76, grpc: GRPC_STATUS.DATA_LOSS },
  'not-allowed': { exit: 77, grpc: GRPC_STATUS.PERMISSION_DENIED },
  refused: { exit: 77, grpc: GRPC_STATUS.PERMISSION_DENIED },
  unauthenticated: { exit: 77, grpc: GRPC_STATUS.UNAUTHENTICATED },
  configuration: { exit: 78, grpc: GRPC_STATUS.FAILED_PRECONDITION },
};

/** What else an error carries beside its code and message. */
export type ErrorDetails = {
  /** What the reader should do next: the role to grant, the flag to add, the command to run. */
  readonly hint?: string;
  /** For the debug log only: it never reaches the wire or the terminal. */
  readonly cause?: unknown;
  /** Whether the same call may succeed when it is made again (docs/errors.md). */
  readonly retryable?: boolean;
  /** Milliseconds that the service asked to be left alone (Retry-After). */
  readonly retryAfter?: number;
};

/** An error that a person is meant to read: one line, naming the thing, without any secret. */
export class OcicryptError extends Error {
  readonly code: ErrorCode;
  readonly hint: string | undefined;
  readonly retryable: boolean;
  readonly retryAfter: number | undefined;

  /**
   * @param code the class of the failure
   * @param message lower case, without a full stop, naming the key, file or member at fault; never a secret
   * @param details hint, cause and retry advice
   */
  constructor(code: ErrorCode, message: string, details: ErrorDetails = {}) {
    super(message, 'cause' in details ? { cause: details.cause } : undefined);
    this.name = 'OcicryptError';
    this.code = code;
    this.hint = details.hint;
    this.retryable = details.retryable ?? false;
    this.retryAfter = details.retryAfter;
  }
}

/**
 * The error as people meet it: `CODE: message; hint`, on one line whatever its parts hold.
 * An error that is not an {@link OcicryptError} is a fault of ours and says nothing of its own text,
 * because nobody has checked that text for secrets.
 */
export function describeError(error: unknown): string {
  const known = asOcicryptError(error);
  const line = `${known.code}: ${known.message}${known.hint === undefined ? '' : `; ${known.hint}`}`;
  return line.replace(CONTROL_CHARACTERS, ' ');
}

/** The error itself, or code `internal` with the error as its cause. */
export function asOcicryptError(error: unknown): OcicryptError {
  if (error instanceof OcicryptError) return error;
  return new OcicryptError('internal', 'unexpected failure', {
    cause: error,
    hint: 'run again with --debugLog FILE and report what it says',
  });
}

/** The code of an error of the system or the runtime (`ENOENT`), or undefined; unlike its text, it is safe to show. */
export function systemCode(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error ? String(error.code) : undefined;
}

/** The same as it stands in a message: ` (ENOSPC)`, or nothing. */
export function showSystemCode(error: unknown): string {
  const code = systemCode(error);
  return code === undefined ? '' : ` (${code})`;
}

/** Terminals and logs obey these: C0, DEL, C1, line and paragraph separators, and what turns the direction of text. */
const CONTROL_CHARACTERS = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]+/gu;
