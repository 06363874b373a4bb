// The contract between the provider and a key service: a key-encryption key that wraps and unwraps.

import { OcicryptError } from '../base/errors.ts';

/**
 * Names and values that a wrapped key is bound to: additional authenticated data, AWS encryption context.
 * Public: services log it. Empty means none, as in v1 packets. Backends without such a thing ignore it:
 * who may only unwrap with such a key can put anything beside what it wrapped (docs/packet.md section 6).
 */
export type EncryptionContext = Readonly<Record<string, string>>;

/** What packets hold of an algorithm or a version: no reader takes another one (docs/packet.md section 4). */
export const PACKET_TERM = /^[A-Za-z0-9_.+:-]{1,64}$/;
/** The most that packets hold of a wrapped key, and at least one byte. */
export const MAXIMUM_WRAPPED_KEY_BYTES = 8192;

/** A wrapped key and what the service said about how it was made. */
export type WrappedKey = {
  /** The canonical key URI as the service answered (AWS ARN, Azure versioned `kid`, thumbprint of a key file). */
  readonly key: string;
  /** The key version that wrapped, if the service names one that `key` does not hold. */
  readonly version?: string | undefined;
  /** The algorithm, in the service's own term. */
  readonly algorithm: string;
  readonly wrapped: Uint8Array;
};

/**
 * A key-encryption key, opened by what the operator named and never by what a packet says.
 *
 * An implementation makes one attempt and throws an `OcicryptError`, `retryable` if the same call may succeed
 * later; deadlines, retries, policy and audit are the caller's. It must not log, must not take an endpoint, region,
 * credential, module or file from a {@link WrappedKey}, must not keep a plaintext, and must compare the key that
 * answered with the key that was asked wherever the service names it.
 */
export interface Kek {
  /** Whether unwrapping needs no other machine: such keys are tried first. */
  readonly local: boolean;
  /** Whether a call of a local key keeps the processor busy for longer than callers of a server should wait for. */
  readonly costly?: boolean | undefined;
  /** The canonical URI by which packets know this key; its own URI but for keys known by what they hold. */
  readonly key: string;
  /** Further URIs by which packets know what this opens: a file of identities holds several keys. */
  readonly otherKeys?: readonly string[] | undefined;

  /**
   * @param plaintext what to wrap: 1 to 4096 bytes
   * @param context bound to the result
   * @param signal ends the attempt
   */
  wrap(plaintext: Uint8Array, context: EncryptionContext, signal: AbortSignal): Promise<WrappedKey>;

  /**
   * @param wrapped from an untrusted packet, selected by policy
   * @throws OcicryptError {@link cannotBeUnwrapped} alike for a wrong key, tag, shape and context
   */
  unwrap(wrapped: WrappedKey, context: EncryptionContext, signal: AbortSignal): Promise<Uint8Array>;

  /** Ends connections and sessions and wipes key material. */
  close?(): void;
}

/** The key with other calls. Whatever else a key has stays as it is: a member that is not named here does not compile. */
export function decorate(kek: Kek, calls: Partial<Pick<Kek, 'wrap' | 'unwrap' | 'close'>>): Kek {
  const same: Required<Kek> = {
    local: kek.local,
    costly: kek.costly,
    key: kek.key,
    otherKeys: kek.otherKeys,
    wrap: (...call) => kek.wrap(...call),
    unwrap: (...call) => kek.unwrap(...call),
    close: () => kek.close?.(),
  };
  return { ...same, ...calls };
}

/** Decorates each key once: the same key has always the same form. */
export function oncePerKek<More extends readonly unknown[]>(
  decorated: (kek: Kek, ...more: More) => Kek,
): (kek: Kek, ...more: More) => Kek {
  const known = new WeakMap<Kek, Kek>();
  return (kek, ...more) => {
    const form = known.get(kek) ?? decorated(kek, ...more);
    known.set(kek, form);
    return form;
  };
}

/** Room for a layer-key record, which v1 packets wrap as it is. */
const MAXIMUM_PLAINTEXT_BYTES = 4096;

/**
 * For the start of every `wrap`: some services take what is empty or long, and cannot give it back.
 *
 * @throws OcicryptError `bad-input`
 */
export function checkPlaintext(key: string, plaintext: Uint8Array, maximum = MAXIMUM_PLAINTEXT_BYTES): void {
  if (plaintext.length > 0 && plaintext.length <= maximum) return;
  throw new OcicryptError('bad-input', `${key} takes 1 to ${maximum} bytes, and not ${plaintext.length}`);
}

/**
 * The context as the bytes that AEADs authenticate: canonical JSON (RFC 8785), or nothing if it is empty.
 *
 * @param context may be empty
 * @throws nothing
 * @example
 * cipher.setAAD(contextBytes(context));
 */
export function contextBytes(context: EncryptionContext): Uint8Array<ArrayBuffer> {
  const names = Object.keys(context).sort();
  return new TextEncoder().encode(names.length === 0 ? '' : JSON.stringify(context, names));
}

/**
 * The error for whatever a key does not open: one text, so that it tells an attacker nothing (docs/promises.md, P15).
 *
 * @param hint what a person can do
 * @param what a key as the operator calls it, or the packet
 * @throws nothing: it is to be thrown
 * @example
 * throw cannotBeUnwrapped(key);
 */
export function cannotBeUnwrapped(what: string, hint?: string): OcicryptError {
  return new OcicryptError('integrity', `${what}: cannot be unwrapped`, { reason: 'cannot-be-unwrapped', hint });
}
