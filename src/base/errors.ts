// The one error class, its closed list of codes, and the table from code to exit status and gRPC status.

import { setting } from './setting.ts';

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
export type ErrorStatus = {
  /** Exit status. */
  readonly exit: number;
  readonly grpc: GrpcStatus;
};

/** The gRPC statuses in use: https://grpc.github.io/grpc/core/md_doc_statuscodes.html */
export type GrpcStatus = (typeof GRPC_STATUS)[keyof typeof GRPC_STATUS];

/** Their numbers, by the names of the protocol. */
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

/** That a key does not open what it was given: the same error for a wrong key, tag, shape and context. */
export type ErrorReason = 'cannot-be-unwrapped';

/** What else an error carries beside its code and message. */
export type ErrorDetails = {
  /** What the reader should do next: the role to grant, the flag to add, the command to run. */
  readonly hint?: string | undefined;
  /** For the debug log only: it never reaches the wire or the terminal. */
  readonly cause?: unknown;
  /** Whether the same call is worth another attempt (docs/errors.md): no more once it has been tried as often as is useful. */
  readonly retryable?: boolean | undefined;
  /** That no connection was made: perhaps the address is wrong, which no waiting puts right. */
  readonly unreached?: boolean | undefined;
  /** Milliseconds that the service asked to be left alone (Retry-After). */
  readonly retryAfter?: number | undefined;
  /** What other code may decide by, where the code alone does not say it. */
  readonly reason?: ErrorReason | undefined;
};

/** How an error is said anew: under another code, with words before and after its message, with other details. */
export type ErrorChange = Pick<ErrorDetails, 'hint' | 'retryable' | 'unreached'> & {
  readonly code?: ErrorCode;
  readonly before?: string;
  readonly after?: string;
};

/** An error that a person is meant to read: one line, naming the thing, without any secret. */
export class OcicryptError extends Error {
  readonly code: ErrorCode;
  readonly hint: string | undefined;
  readonly retryable: boolean;
  readonly unreached: boolean;
  readonly retryAfter: number | undefined;
  readonly reason: ErrorReason | undefined;
  /** Message and hint with the marks of {@link withheldFromCallers}. */
  readonly #marked: { readonly message: string; readonly hint: string | undefined };

  /**
   * @param code the class of the failure; if a cause is that this process may open no more files, it is `unavailable`
   * and the hint says so: then nothing is wrong with the file or host at hand
   * @param message lower case, without a full stop, naming the key, file or member at fault; never a secret
   * @param details hint, cause and retry advice
   */
  constructor(code: ErrorCode, message: string, details: ErrorDetails = {}) {
    super(unmark(message), 'cause' in details ? { cause: details.cause } : undefined);
    const isOutOfFiles = hasOpenedTooMany(details.cause);
    const hint = isOutOfFiles ? TOO_MANY_FILES : details.hint;
    this.name = 'OcicryptError';
    this.code = isOutOfFiles ? 'unavailable' : code;
    this.hint = hint === undefined ? undefined : unmark(hint);
    this.retryable = details.retryable ?? false;
    this.unreached = details.unreached ?? false;
    this.retryAfter = details.retryAfter;
    this.reason = details.reason;
    this.#marked = { message, hint };
  }

  /** The same failure said anew, with this one as its cause; what callers must not read stays withheld from them. */
  with({ code = this.code, before = '', after = '', hint = this.#marked.hint, ...change }: ErrorChange): OcicryptError {
    return new OcicryptError(code, `${before}${this.#marked.message}${after}`, {
      ...{ cause: this, retryable: this.retryable, unreached: this.unreached },
      ...{ retryAfter: this.retryAfter, reason: this.reason, ...change, hint },
    });
  }

  /**
   * The same failure with what it is about named first, or itself if its message names that already. Whether a text says
   * a name is asked here alone: what failed is told by code and reason.
   *
   * @param shown how the name is said, where that is not the name itself
   */
  about(what: string, name: string, shown = name): OcicryptError {
    return this.message.includes(name) ? this : this.with({ before: `${what} ${shown}: ` });
  }

  /** {@link describeError} with its marks, to be a part of another error's message. */
  markedLine(): string {
    return joinLine(this.code, this.#marked.message, this.#marked.hint);
  }

  /** {@link describeForCaller} of this error. */
  lineForCaller(): string {
    const { message, hint } = this.#marked;
    const open = hint?.includes(WITHHELD_START) ? 'the log of the server says more' : hint;
    return joinLine(this.code, message.replaceAll(WITHHELD, nameWithheld), open);
  }
}

/**
 * Marks a part of a message or hint that is this machine's own business, as the path of a file: people and logs here
 * read it, callers of a server do not.
 */
export function withheldFromCallers(text: string): string {
  return `${WITHHELD_START}${unmark(text)}${WITHHELD_END}`;
}

/** Two characters for private use, which no file's name needs. */
const WITHHELD_START = '\u{F8F0}';
const WITHHELD_END = '\u{F8F1}';
/** With what stands before it, where that is no noun that it belongs to. */
const WITHHELD =
  /(: |\/|\b(?:for|holds|in|into|make|of|on|open|owns|read|remove|so|to|with|write) )?\u{F8F0}[^\u{F8F1}]*\u{F8F1}/gu;

/** What callers read in its place: "the key file of the server", "cannot write to a file of the server", "keyfile://…". */
function nameWithheld(_withheld: string, before: string | undefined, start: number): string {
  if (before === '/') return '/…';
  return before === undefined && start > 0 ? 'of the server' : `${before ?? ''}a file of the server`;
}

function unmark(text: string): string {
  return text.replace(/[\u{F8F0}\u{F8F1}]/gu, '');
}

function joinLine(code: ErrorCode, message: string, hint: string | undefined): string {
  return `${code}: ${message}${hint === undefined ? '' : `; ${hint}`}`;
}

/**
 * The error as people meet it: `CODE: message; hint`, on one line whatever its parts hold.
 * An error that is not an {@link OcicryptError} is a fault of ours and says nothing of its own text,
 * because that text was not checked for secrets.
 *
 * @param error whatever was thrown
 * @throws nothing
 * @example
 * await keys.close().catch((error) => console.error(describeError(error)));
 */
export function describeError(error: unknown): string {
  const { code, message, hint } = asOcicryptError(error);
  return joinLine(code, message, hint).replace(CONTROL_CHARACTERS, ' ');
}

/**
 * The same line for a caller of a server, who has no business with the files of the machine that it runs on.
 *
 * @param error whatever was thrown
 * @throws nothing
 * @example
 * reply(describeForCaller(error));
 */
export function describeForCaller(error: unknown): string {
  return asOcicryptError(error).lineForCaller().replace(CONTROL_CHARACTERS, ' ');
}

/** The error itself, or code `internal` with the error as its cause; on a Node that is too old, that it is. */
export function asOcicryptError(error: unknown): OcicryptError {
  if (error instanceof OcicryptError) return error;
  const outdated = outdatedNode(process.versions, error);
  if (outdated !== undefined) return outdated;
  if (hasOpenedTooMany(error)) {
    return new OcicryptError('unavailable', `cannot open another file${showSystemCode(error)}`, { cause: error });
  }
  return new OcicryptError('internal', 'unexpected failure', {
    cause: error,
    hint: `run again with ${setting('log')} FILE and report what it says`,
  });
}

/** The oldest Node that this runs on, as package.json says. */
export const OLDEST_NODE = '22.18.0';

/**
 * What is wrong with the runtime, if that is a Node older than {@link OLDEST_NODE}.
 *
 * @param versions `process.versions`: Bun is there with the version of the Node that it stands in for
 * @param cause the failure that led here
 */
export function outdatedNode({ node = '', bun }: NodeJS.Dict<string>, cause?: unknown): OcicryptError | undefined {
  const [major = 0, minor = 0] = node.split('.').map(Number);
  const [oldestMajor = 0, oldestMinor = 0] = OLDEST_NODE.split('.').map(Number);
  if (bun !== undefined || major > oldestMajor || (major === oldestMajor && minor >= oldestMinor)) return undefined;
  return new OcicryptError('configuration', `Node ${node} is too old for ocicrypt-kms`, {
    cause,
    hint: `use Node ${OLDEST_NODE} or later, or the executable, which needs none`,
  });
}

const TOO_MANY_FILES = 'too many files are open: raise the limit (ulimit -n, LimitNOFILE= of a systemd unit)';

/** Whether the error, or what caused it, is the limit of open files: that of the process or of the machine. */
function hasOpenedTooMany(error: unknown): boolean {
  for (let cause = error, depth = 0; cause instanceof Error && depth < 8; cause = cause.cause, depth++) {
    if (['EMFILE', 'ENFILE'].includes(systemCode(cause) ?? '')) return true;
  }
  return false;
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
