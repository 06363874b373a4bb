// The one door of the provider, for the command and for gRPC: a request's bytes in, a reply's bytes out.
// decode → policy → open → unwrap → check → audit → answer.

import { createHash } from 'node:crypto';
import { wipe } from '../base/bytes.ts';
import { withDeadline } from '../base/deadline.ts';
import { reportError } from '../base/error-report.ts';
import { asOcicryptError, type OcicryptError } from '../base/errors.ts';
import type { ByteSpelling } from '../base/json-writer.ts';
import { formatKeyUri, type KeyUri } from '../base/key-uri.ts';
import type { Kek } from '../kms/kek.ts';
import { DEFAULT_LIMITS, type Limits } from './attempts.ts';
import type { AuditEvent, AuditSink, Decision, Logger } from './audit.ts';
import { checkLabels, type Labels } from './labels.ts';
import { showKey } from './name-key.ts';
import { decodePacket, type Packet, recipientsOf } from './packet.ts';
import { contentDigest } from './packet-v2.ts';
import { type NamedKeys, type NameOptions, namedKeys } from './parameters.ts';
import type { AllowRule, VersionMatching } from './policy.ts';
import { decodeRequest, encodeUnwrapReply, encodeWrapReply, type KeyRequest, type Operation } from './protocol.ts';
import { checkDefaultKey, keysForWrap, rulesForUnwrap } from './selection.ts';
import { unwrapLayerKey } from './unwrap.ts';
import { type PacketChoice, wrapLayerKey } from './wrap.ts';

/** What a provider may use, and whom it tells of it. */
export type ProviderOptions = {
  /** Opens the key that the operator named, or one below a prefix of the operator's. Called after policy only. */
  readonly openKek: (uri: KeyUri) => Promise<Kek>;
  /** The operator's list (`--allow`, `--kmsURI`, `--key`); empty denies every key that the caller may not name. */
  readonly rules: readonly AllowRule[];
  /** Whether keys named in a call are allowed by that: so for a command, which has its caller's rights; not for a server. */
  readonly callerKeysAllowed: boolean;
  /** The key meant if a call names none (`--kmsURI`); a call that names another one is refused. */
  readonly defaultKey?: KeyUri | undefined;
  readonly names: NameOptions;
  readonly packet?: PacketChoice;
  readonly labels?: Labels | undefined;
  readonly versions?: VersionMatching;
  /** How replies write bytes; if it is left out, as the client shows that it reads them. */
  readonly spelling?: ByteSpelling | undefined;
  readonly limits?: Limits;
  readonly audit?: AuditSink | undefined;
  readonly log?: Logger | undefined;
  readonly onDecision?: (decision: Decision) => void;
};

/** Who calls, and how. */
export type Call = {
  readonly caller?: string;
  /** Ends the call. */
  readonly signal?: AbortSignal;
  /** What the caller has called, if each operation has a method of its own: a request for the other one is refused. */
  readonly operation?: Operation;
  /** How this caller is known to read bytes, whatever its request looks like. */
  readonly spelling?: ByteSpelling | undefined;
  /** Why this caller gets no answer, whatever it asks: recorded and thrown. */
  readonly refusal?: OcicryptError;
};

/** What answers requests of the key-provider protocol. */
export interface Provider {
  /**
   * Answers one key-provider request.
   *
   * @param request one JSON document (protocol.ts); untrusted
   * @returns the reply's JSON document; after an unwrap it holds a layer key, so the caller wipes it once it is sent
   * @throws OcicryptError
   */
  handle(request: Uint8Array, call?: Call): Promise<Uint8Array>;
}

/**
 * Makes a provider; it opens nothing until it is asked.
 *
 * @throws OcicryptError `usage` for labels that no packet can have
 * @example
 * const provider = createProvider({
 *   openKek: (uri) => keks.open(uri),
 *   rules: [parseAllowRule(key)],
 *   callerKeysAllowed: false,
 *   names: { configured: 'kmscrypt', fallback: 'kmscrypt' },
 * });
 */
export function createProvider(options: ProviderOptions): Provider {
  if (options.labels !== undefined) checkLabels(options.labels);
  const byOperation = { wrap: optionsFor('wrap', options), unwrap: optionsFor('unwrap', options) };
  return { handle: (request, call = {}) => handle(request, call, options, byOperation) };
}

/** The options with the rules of one operation only: nothing else is of use to it. */
function optionsFor(wanted: Operation, options: ProviderOptions): ProviderOptions {
  return { ...options, rules: options.rules.filter(({ operation = wanted }) => operation === wanted) };
}

type OptionsByOperation = { readonly [operation in Operation]: ProviderOptions };

/** What has become known of a request, for its audit line. */
type Draft = { -readonly [member in keyof AuditEvent]?: AuditEvent[member] };

async function handle(
  request: Uint8Array,
  call: Call,
  options: ProviderOptions,
  byOperation: OptionsByOperation,
): Promise<Uint8Array> {
  const started = performance.now();
  const draft: Draft = { caller: call.caller };
  if (call.refusal !== undefined && call.operation !== undefined) draft.operation = call.operation;
  const note = async (outcome: AuditEvent['outcome'], error?: OcicryptError) => {
    if (!isObserved(options)) return;
    const milliseconds = Number((performance.now() - started).toFixed(3));
    const event: AuditEvent = {
      id: crypto.randomUUID(),
      operation: 'unknown',
      keys: [],
      ...draft,
      outcome,
      milliseconds,
    };
    options.log?.debug({ ...event, ...(error && { error: reportError(error) }) }, 'request');
    await options.audit?.record(event);
  };
  const finish = async (outcome: AuditEvent['outcome'], error?: OcicryptError) => {
    let told: AuditEvent['outcome'] = 'not-written';
    try {
      await note(outcome, error);
      told = outcome;
    } finally {
      options.onDecision?.({ operation: draft.operation ?? 'unknown', key: draft.keys?.[0], outcome: told });
    }
  };
  let reply: Uint8Array | undefined;
  try {
    if (call.refusal !== undefined) throw call.refusal;
    const decoded = decodeRequest(request, call.operation);
    reply = await answer(decoded, draft, call, byOperation[decoded.operation]);
  } catch (error) {
    const known = asOcicryptError(error);
    await finish(known.code, known);
    throw known;
  }
  try {
    await finish('ok');
  } catch (error) {
    wipe(reply);
    throw error;
  }
  return reply;
}

function answer(request: KeyRequest, draft: Draft, call: Call, options: ProviderOptions): Promise<Uint8Array> {
  const limits = options.limits ?? DEFAULT_LIMITS;
  draft.operation = request.operation;
  return withDeadline(
    limits.total,
    call.signal,
    () => nameOf(draft),
    async (signal) => {
      const named = namedKeys(request.parameters, options.names);
      draft.provider = named.provider;
      checkDefaultKey(named, request.operation, options);
      const spelling = options.spelling ?? call.spelling ?? request.spelling;
      if (request.operation === 'wrap')
        return encodeWrapReply(await answerWrap(request.record, named, draft, options, signal), spelling);
      const record = await answerUnwrap(request.annotation, named, draft, options, signal);
      try {
        return encodeUnwrapReply(record, spelling);
      } finally {
        wipe(record);
      }
    },
  );
}

/** Whether anybody takes what is known of a request: else nothing is made for them. */
function isObserved({ audit, log }: ProviderOptions): boolean {
  return audit !== undefined || log !== undefined;
}

/** What a missed deadline is said of: the operation and its keys, as far as they have become known. */
function nameOf({ operation, keys, asked }: Draft): string {
  const known = (operation === 'wrap' ? keys : asked) ?? [];
  return [operation, ...known.slice(0, 3).map((key) => `key ${showKey(key.slice(0, 256))}`)].join(', ');
}

/** @returns the packet */
async function answerWrap(
  record: Uint8Array,
  named: NamedKeys,
  draft: Draft,
  options: ProviderOptions,
  signal: AbortSignal,
): Promise<Uint8Array> {
  try {
    const keys = await keysForWrap(named, options);
    draft.keys = keys.map(formatKeyUri);
    const { openKek, packet: choice = 'v2', labels = {}, limits = DEFAULT_LIMITS } = options;
    const wrapped = await wrapLayerKey(record, keys, { openKek, packet: choice, labels, limits }, signal);
    draft.packet = wrapped.format;
    if (isObserved(options)) {
      draft.packetDigest = digest(wrapped.packet);
      const packet = decodePacket(wrapped.packet);
      describeContent(packet, draft);
      // As the packet says them: a key file by its thumbprint, an alias by the key that answered.
      draft.keys = recipientsOf(packet).map(({ key }) => key);
    }
    return wrapped.packet;
  } finally {
    wipe(record);
  }
}

/** @returns the layer-key record, to be wiped */
async function answerUnwrap(
  annotation: Uint8Array,
  named: NamedKeys,
  draft: Draft,
  options: ProviderOptions,
  signal: AbortSignal,
): Promise<Uint8Array> {
  if (isObserved(options)) draft.packetDigest = digest(annotation);
  const packet = decodePacket(annotation);
  draft.packet = packet.format;
  if (isObserved(options)) describeContent(packet, draft);
  draft.asked = recipientsOf(packet).map(({ key }) => key);
  const rules = await rulesForUnwrap(named, options);
  const { openKek, labels, versions = 'exact', limits = DEFAULT_LIMITS } = options;
  const unwrapped = await unwrapLayerKey(packet, { rules, versions, labels, openKek, limits }, signal);
  draft.keys = [unwrapped.key];
  return unwrapped.record;
}

function describeContent(packet: Packet, draft: Draft): void {
  if (packet.format === 'v2') draft.content = contentDigest(packet);
}

function digest(packet: Uint8Array): string {
  return `sha256:${createHash('sha256').update(packet).digest('hex')}`;
}
