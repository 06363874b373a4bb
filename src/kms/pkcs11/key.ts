// Wraps with keys in a PKCS#11 token: AES-GCM, or RSA-OAEP, by what the token holds.

import { randomBytes } from 'node:crypto';
import { concatBytes, wipe } from '../../base/bytes.ts';
import { OcicryptError } from '../../base/errors.ts';
import { formatKeyUri, type KeyUri } from '../../base/key-uri.ts';
import { setting } from '../../base/setting.ts';
import { showPath } from '../../base/shown.ts';
import { cannotBeUnwrapped, checkPlaintext, type EncryptionContext, type Kek, type WrappedKey } from '../kek.ts';
import { readRsaPublicKey, wrapRsaOaep } from '../rsa-oaep.ts';
import { explainPkcs11Error, isUnknownParameter, isUnusable, sessionIsLost, wantsLogin } from './errors.ts';
import { isLoginRequired, logIn, type Pkcs11PinSettings } from './login.ts';
import {
  CKM_RSA_PKCS_OAEP,
  decrypt,
  encrypt,
  GCM,
  gcm,
  type Hash,
  MAXIMUM_WRAPPED_BYTES,
  NONCE_BYTES,
  OAEP,
  oaep,
  TAG_BYTES,
} from './mechanism.ts';
import { type Handle, type OpenModule, openModule, type Pkcs11ModuleSettings } from './module.ts';
import { findKey, findSlot, openSession, type Purpose, type TokenKey } from './token.ts';

/** What the operator says about tokens; nothing of it ever comes from a packet. */
export type Pkcs11Settings = Pkcs11ModuleSettings &
  Pkcs11PinSettings & {
    /** Permits OAEP with SHA-1, for tokens that know no other. */
    readonly oaepSha1?: boolean | undefined;
  };

/** Whether to log in if the token does not say that it wants it. */
type Login = 'always' | 'if-required';

type Pkcs11KeyUri = Extract<KeyUri, { scheme: 'pkcs11' }>;

type Found = { readonly slot: Handle; readonly handle: Handle; readonly found: TokenKey };

/** Tokens may take less for the absence of input, and wait for more. */
const MINIMUM_RSA_BYTES = 128;
/**
 * Opens a key in a token. Nothing is loaded before the first call, and no PIN is asked for to wrap with a public
 * key. AES-GCM binds the context; an RSA key does not.
 */
export function openPkcs11(uri: Pkcs11KeyUri, settings: Pkcs11Settings): Kek {
  return new Pkcs11Kek(uri, settings);
}

class Pkcs11Kek implements Kek {
  readonly local = true;
  readonly key: string;
  readonly #uri: Pkcs11KeyUri;
  readonly #settings: Pkcs11Settings;
  #module: OpenModule | undefined;
  #session: { readonly slot: Handle; readonly handle: Handle } | undefined;
  #last: Promise<unknown> = Promise.resolve();

  constructor(uri: Pkcs11KeyUri, settings: Pkcs11Settings) {
    this.key = formatKeyUri(uri);
    this.#uri = uri;
    this.#settings = settings;
  }

  wrap(plaintext: Uint8Array, context: EncryptionContext): Promise<WrappedKey> {
    const { key } = this;
    return this.#exclusively(async (open, first) => {
      checkPlaintext(key, plaintext);
      const place = await this.#findIn(open, 'wrap', first);
      if (place.found.kind !== 'aes') return { key, ...(await this.#wrapRsa(open, place, plaintext)) };
      const nonce = randomBytes(NONCE_BYTES);
      const use = {
        handle: place.handle,
        object: place.found.object,
        mechanisms: gcm(open.parameterTypes, nonce, context),
      };
      return {
        key,
        algorithm: GCM,
        wrapped: concatBytes(nonce, await encrypt(open, use, plaintext, MAXIMUM_WRAPPED_BYTES)),
      };
    });
  }

  unwrap({ wrapped, algorithm }: WrappedKey, context: EncryptionContext): Promise<Uint8Array> {
    return this.#exclusively(async (open, first) => {
      const { handle, found } = await this.#findIn(open, 'unwrap', first);
      const isAes = found.kind === 'aes';
      const minimum = isAes ? NONCE_BYTES + TAG_BYTES + 1 : MINIMUM_RSA_BYTES;
      const isKnown = isAes ? algorithm === GCM : algorithm === OAEP.sha256 || algorithm === OAEP.sha1;
      if (!isKnown || wrapped.length < minimum || wrapped.length > MAXIMUM_WRAPPED_BYTES) {
        throw cannotBeUnwrapped(this.key);
      }
      if (!isAes && algorithm === OAEP.sha1 && !this.#settings.oaepSha1) throw onlySha1(this.key);
      const types = open.parameterTypes;
      const mechanisms = isAes ? gcm(types, wrapped.subarray(0, NONCE_BYTES), context) : oaep(types, algorithm);
      const use = { handle, object: found.object, mechanisms };
      return decrypt(this.key, open, use, isAes ? wrapped.subarray(NONCE_BYTES) : wrapped);
    });
  }

  close(): void {
    void this.#last.then(() => {
      this.#endSession();
      this.#module?.release();
      this.#module = undefined;
    });
  }

  /**
   * A session does one thing at a time. Some tokens say only when a key is used, a public one too, that they want a
   * login first.
   *
   * @param work with whether to log in, whatever the token says of itself
   */
  #exclusively<Result>(work: (open: OpenModule, first: Login) => Promise<Result>): Promise<Result> {
    const next = this.#last.then(async () => {
      try {
        this.#module ??= openModule(this.#uri.query, this.#settings);
        const open = this.#module;
        return await work(open, 'if-required').catch((error: unknown) => {
          if (wantsLogin(error)) return work(open, 'always');
          throw error;
        });
      } catch (error) {
        if (sessionIsLost(error)) this.#endSession();
        throw explainPkcs11Error(error, this.key);
      }
    });
    this.#last = next.catch(() => {});
    return next;
  }

  #endSession(): void {
    try {
      if (this.#session !== undefined) this.#module?.cryptoki.C_CloseSession(this.#session.handle);
    } catch {
      // It is gone already.
    }
    this.#session = undefined;
  }

  async #findIn(open: OpenModule, purpose: Purpose, first: Login): Promise<Found> {
    const { key } = this;
    const uri = this.#uri;
    if (this.#session === undefined) {
      const slot = findSlot(key, open.cryptoki, uri);
      this.#session = { slot, handle: openSession(open.cryptoki, slot) };
    }
    const { slot, handle } = this.#session;
    const find = (half: Purpose) => findKey(key, open.cryptoki, handle, uri.path, half);
    let found = purpose === 'wrap' && first === 'if-required' ? find('wrap') : undefined;
    if (found?.kind !== 'rsa-public') {
      if (first === 'always' || isLoginRequired(open.cryptoki, slot)) {
        await logIn({ key, module: open, slot, session: handle, query: uri.query }, this.#settings);
      }
      // A private key knows its public half, which not every token keeps as an object.
      found = find(purpose) ?? find('unwrap');
    }
    if (found !== undefined) return { slot, handle, found };
    throw new OcicryptError('not-found', `there is no AES or RSA key ${key}`, {
      hint: `see: pkcs11-tool --module ${showPath(open.path)} --login --list-objects`,
    });
  }

  /** The hash is found by asking the token: SHA-256, or SHA-1 where it knows no other and the operator permits it. */
  async #wrapRsa(open: OpenModule, place: Found, plaintext: Uint8Array): Promise<Omit<WrappedKey, 'key'>> {
    for (const hash of ['sha256', 'sha1'] as const) {
      if (hash === 'sha1' && !this.#settings.oaepSha1) throw onlySha1(this.key);
      try {
        return { algorithm: OAEP[hash], wrapped: await wrapRsaWith(this.key, open, place, plaintext, hash) };
      } catch (error) {
        if (!isUnknownParameter(error)) throw error;
      }
    }
    throw new OcicryptError('configuration', `the token of ${this.key} has no OAEP that can be used`, {
      hint: 'see: pkcs11-tool --module MODULE --list-mechanisms',
    });
  }
}

async function wrapRsaWith(
  key: string,
  open: OpenModule,
  { slot, handle, found: { kind, object } }: Found,
  plaintext: Uint8Array,
  hash: Hash,
): Promise<Uint8Array> {
  const use = { handle, object, mechanisms: oaep(open.parameterTypes, OAEP[hash]) };
  if (kind === 'rsa-private') {
    const wrapped = wrapHere(key, open, handle, object, plaintext, hash);
    // What cannot be unwrapped is never wrapped, and only the private key can tell.
    wipe(await decrypt(key, open, use, wrapped));
    return wrapped;
  }
  try {
    // Exactly what OAEP makes: tpm2-pkcs11 calls all the room that it is given its result.
    return await encrypt(open, use, plaintext, publicHalf(open, handle, object).modulus.length);
  } catch (error) {
    // Some tokens decrypt and leave what is public to others.
    if (!isUnusable(error) || !open.cryptoki.C_GetMechanismList(slot).includes(CKM_RSA_PKCS_OAEP)) throw error;
    return wrapHere(key, open, handle, object, plaintext, hash);
  }
}

const CKA_MODULUS = 0x120;
const CKA_PUBLIC_EXPONENT = 0x122;

/** What the token says of a key's public half; without leading zeros, which some tokens add. */
function publicHalf({ cryptoki }: OpenModule, session: Handle, object: Handle) {
  const [modulus = '', exponent = ''] = cryptoki
    .C_GetAttributeValue(session, object, [{ type: CKA_MODULUS }, { type: CKA_PUBLIC_EXPONENT }])
    .map(({ value }) => (Buffer.isBuffer(value) ? value.toString('hex').replace(/^(?:00)+/, '') : ''));
  return { modulus: Buffer.from(modulus, 'hex'), exponent: Buffer.from(exponent, 'hex') };
}

/** Wraps on this machine, with what the token says of the key's public half. */
function wrapHere(key: string, open: OpenModule, session: Handle, object: Handle, plaintext: Uint8Array, hash: Hash) {
  const { modulus, exponent } = publicHalf(open, session, object);
  const publicKey = readRsaPublicKey({ n: modulus.toString('base64url'), e: exponent.toString('base64url') });
  if (publicKey !== undefined) return wrapRsaOaep(key, publicKey, plaintext, hash);
  throw new OcicryptError('configuration', `the token has no usable public key for ${key}`, {
    hint: 'RSA keys must have 2048 bits or more',
  });
}

function onlySha1(key: string): OcicryptError {
  return new OcicryptError('configuration', `the token of ${key} knows OAEP with SHA-1 only, which was not asked for`, {
    hint: `permit it with ${setting('pkcs11.oaepSha1')}, or use an AES key`,
  });
}
