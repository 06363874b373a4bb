// Wraps with keys in a PKCS#11 token: AES-GCM, or RSA-OAEP, by what the token holds.

import { randomBytes } from 'node:crypto';
import { concatBytes, wipe } from '../../base/bytes.ts';
import { OcicryptError } from '../../base/errors.ts';
import { formatKeyUri, type KeyUri } from '../../base/key-uri.ts';
import { setting } from '../../base/setting.ts';
import { showPath } from '../../base/shown.ts';
import { cannotBeUnwrapped, checkPlaintext, contextBytes, type EncryptionContext, type Kek } from '../kek.ts';
import { readRsaPublicKey, wrapRsaOaep } from '../rsa-oaep.ts';
import { explainPkcs11Error, isUnknownParameter, isUnusable, sessionIsLost, wantsLogin } from './errors.ts';
import { isLoginRequired, logIn, type Pkcs11PinSettings } from './login.ts';
import {
  type Handle,
  type Mechanism,
  type OpenModule,
  openModule,
  type ParameterTypes,
  type Pkcs11ModuleSettings,
} from './module.ts';
import { findKey, findSlot, openSession, type Purpose, type TokenKey } from './token.ts';

/** What the operator says about tokens; nothing of it ever comes from a packet. */
export type Pkcs11Settings = Pkcs11ModuleSettings &
  Pkcs11PinSettings & {
    /** Permits OAEP with SHA-1, for tokens that know no other. */
    readonly oaepSha1?: boolean | undefined;
  };

/** Whether to log in if the token does not say that it wants it. */
type Login = 'always' | 'if-required';

type Found = { readonly slot: Handle; readonly handle: Handle; readonly found: TokenKey };

const NONCE_BYTES = 12;
const TAG_BYTES = 16;
/** RSA of 16384 bits, or 4 KiB and what AES-GCM adds. */
const MAXIMUM_WRAPPED_BYTES = 8 * 1024;
/** Tokens may take less for the absence of input, and wait for more. */
const MINIMUM_RSA_BYTES = 128;
const GCM = 'AES-GCM';
const OAEP = { sha256: 'RSA-OAEP-SHA256', sha1: 'RSA-OAEP-SHA1' } as const;
type Hash = keyof typeof OAEP;

/**
 * Opens a key in a token. Nothing is loaded before the first call, and no PIN is asked for to wrap with a public
 * key. AES-GCM binds the context; an RSA key does not.
 */
export function openPkcs11(uri: Extract<KeyUri, { scheme: 'pkcs11' }>, settings: Pkcs11Settings): Kek {
  const key = formatKeyUri(uri);
  let module: OpenModule | undefined;
  let session: { readonly slot: Handle; readonly handle: Handle } | undefined;
  let last: Promise<unknown> = Promise.resolve();

  /**
   * A session does one thing at a time. Some tokens say only when a key is used, a public one too, that they want a
   * login first.
   *
   * @param work with whether to log in, whatever the token says of itself
   */
  function exclusively<Result>(work: (open: OpenModule, first: Login) => Promise<Result>): Promise<Result> {
    const next = last.then(async () => {
      try {
        module ??= openModule(uri.query, settings);
        const open = module;
        return await work(open, 'if-required').catch((error: unknown) => {
          if (wantsLogin(error)) return work(open, 'always');
          throw error;
        });
      } catch (error) {
        if (sessionIsLost(error)) endSession();
        throw explainPkcs11Error(error, key);
      }
    });
    last = next.catch(() => {});
    return next;
  }

  function endSession(): void {
    try {
      if (session !== undefined) module?.cryptoki.C_CloseSession(session.handle);
    } catch {
      // It is gone already.
    }
    session = undefined;
  }

  async function findIn(open: OpenModule, purpose: Purpose, first: Login): Promise<Found> {
    if (session === undefined) {
      const slot = findSlot(key, open.cryptoki, uri);
      session = { slot, handle: openSession(open.cryptoki, slot) };
    }
    const { slot, handle } = session;
    const find = (half: Purpose) => findKey(key, open.cryptoki, handle, uri.path, half);
    let found = purpose === 'wrap' && first === 'if-required' ? find('wrap') : undefined;
    if (found?.kind !== 'rsa-public') {
      if (first === 'always' || isLoginRequired(open.cryptoki, slot)) {
        await logIn({ key, module: open, slot, session: handle, query: uri.query }, settings);
      }
      // A private key knows its public half, which not every token keeps as an object.
      found = find(purpose) ?? find('unwrap');
    }
    if (found !== undefined) return { slot, handle, found };
    throw new OcicryptError('not-found', `there is no AES or RSA key ${key}`, {
      hint: `see: pkcs11-tool --module ${showPath(open.path)} --login --list-objects`,
    });
  }

  async function encrypt(
    open: OpenModule,
    handle: Handle,
    object: Handle,
    mechanisms: readonly Mechanism[],
    plaintext: Uint8Array,
    room: number,
  ): Promise<Uint8Array> {
    begin(mechanisms, (mechanism) => open.cryptoki.C_EncryptInit(handle, mechanism, object));
    const input = Buffer.from(plaintext);
    try {
      return Uint8Array.from(await open.cryptoki.C_EncryptAsync(handle, input, Buffer.alloc(room)));
    } finally {
      wipe(input);
    }
  }

  async function decrypt(
    open: OpenModule,
    handle: Handle,
    object: Handle,
    mechanisms: readonly Mechanism[],
    input: Uint8Array,
  ) {
    begin(mechanisms, (mechanism) => open.cryptoki.C_DecryptInit(handle, mechanism, object));
    const output = Buffer.alloc(MAXIMUM_WRAPPED_BYTES);
    try {
      return Uint8Array.from(await open.cryptoki.C_DecryptAsync(handle, Buffer.from(input), output));
    } catch (error) {
      throw sessionIsLost(error) ? error : cannotBeUnwrapped(key);
    } finally {
      wipe(output);
    }
  }

  /** The hash is found by asking the token: SHA-256, or SHA-1 where it knows no other and the operator permits it. */
  async function wrapRsa(open: OpenModule, place: Found, plaintext: Uint8Array) {
    for (const hash of ['sha256', 'sha1'] as const) {
      if (hash === 'sha1' && !settings.oaepSha1) throw onlySha1(key);
      const mechanisms = oaep(open.parameterTypes, OAEP[hash]);
      try {
        return { algorithm: OAEP[hash], wrapped: await wrapRsaWith(open, place, plaintext, hash, mechanisms) };
      } catch (error) {
        if (!isUnknownParameter(error)) throw error;
      }
    }
    throw new OcicryptError('configuration', `the token of ${key} has no OAEP that can be used`, {
      hint: 'see: pkcs11-tool --module MODULE --list-mechanisms',
    });
  }

  async function wrapRsaWith(
    open: OpenModule,
    { slot, handle, found: { kind, object } }: Found,
    plaintext: Uint8Array,
    hash: Hash,
    mechanisms: readonly Mechanism[],
  ): Promise<Uint8Array> {
    if (kind === 'rsa-private') {
      const wrapped = wrapHere(key, open, handle, object, plaintext, hash);
      // What cannot be unwrapped is never wrapped, and only the private key can tell.
      wipe(await decrypt(open, handle, object, mechanisms, wrapped));
      return wrapped;
    }
    try {
      // Exactly what OAEP makes: tpm2-pkcs11 calls all the room that it is given its result.
      const room = publicHalf(open, handle, object).modulus.length;
      return await encrypt(open, handle, object, mechanisms, plaintext, room);
    } catch (error) {
      // Some tokens decrypt and leave what is public to others.
      if (!isUnusable(error) || !open.cryptoki.C_GetMechanismList(slot).includes(CKM_RSA_PKCS_OAEP)) throw error;
      return wrapHere(key, open, handle, object, plaintext, hash);
    }
  }

  return {
    local: true,
    key,
    wrap(plaintext, context) {
      return exclusively(async (open, first) => {
        checkPlaintext(key, plaintext);
        const place = await findIn(open, 'wrap', first);
        if (place.found.kind !== 'aes') return { key, ...(await wrapRsa(open, place, plaintext)) };
        const nonce = randomBytes(NONCE_BYTES);
        const mechanisms = gcm(open.parameterTypes, nonce, context);
        const sealed = await encrypt(
          open,
          place.handle,
          place.found.object,
          mechanisms,
          plaintext,
          MAXIMUM_WRAPPED_BYTES,
        );
        return { key, algorithm: GCM, wrapped: concatBytes(nonce, sealed) };
      });
    },
    unwrap({ wrapped, algorithm }, context) {
      return exclusively(async (open, first) => {
        const { handle, found } = await findIn(open, 'unwrap', first);
        const isAes = found.kind === 'aes';
        const minimum = isAes ? NONCE_BYTES + TAG_BYTES + 1 : MINIMUM_RSA_BYTES;
        const isKnown = isAes ? algorithm === GCM : algorithm === OAEP.sha256 || algorithm === OAEP.sha1;
        if (!isKnown || wrapped.length < minimum || wrapped.length > MAXIMUM_WRAPPED_BYTES) {
          throw cannotBeUnwrapped(key);
        }
        if (!isAes && algorithm === OAEP.sha1 && !settings.oaepSha1) throw onlySha1(key);
        const types = open.parameterTypes;
        const mechanisms = isAes ? gcm(types, wrapped.subarray(0, NONCE_BYTES), context) : oaep(types, algorithm);
        return decrypt(open, handle, found.object, mechanisms, isAes ? wrapped.subarray(NONCE_BYTES) : wrapped);
      });
    },
    close() {
      void last.then(() => {
        endSession();
        module?.release();
        module = undefined;
      });
    },
  };
}

const CKM_RSA_PKCS_OAEP = 9;
const CKM_SHA_1 = 0x220;
const CKM_SHA256 = 0x250;
const CKM_AES_GCM = 0x1087;
const CKG_MGF1_SHA1 = 1;
const CKG_MGF1_SHA256 = 2;
const CKZ_DATA_SPECIFIED = 1;
/** The parameters in both of their shapes: a token takes the one that its header was made with. */
function gcm(types: ParameterTypes, nonce: Uint8Array, context: EncryptionContext): readonly Mechanism[] {
  const parameter = {
    iv: Buffer.from(nonce),
    aad: Buffer.from(contextBytes(context)),
    ivBits: NONCE_BYTES * 8,
    tagBits: TAG_BYTES * 8,
  };
  return [types.CK_PARAMS_AES_GCM, types.CK_PARAMS_AES_GCM_v240].map((type) => ({
    mechanism: CKM_AES_GCM,
    parameter: { type, ...parameter },
  }));
}

/** The packet names the hash. */
function oaep({ CK_PARAMS_RSA_OAEP: type }: ParameterTypes, algorithm: string): readonly Mechanism[] {
  const [hashAlg, mgf] = algorithm === OAEP.sha1 ? [CKM_SHA_1, CKG_MGF1_SHA1] : [CKM_SHA256, CKG_MGF1_SHA256];
  return [{ mechanism: CKM_RSA_PKCS_OAEP, parameter: { type, hashAlg, mgf, source: CKZ_DATA_SPECIFIED } }];
}

/** Begins an operation with the first of several mechanisms that the token takes. */
function begin(mechanisms: readonly Mechanism[], init: (mechanism: Mechanism) => void): void {
  for (const [index, mechanism] of mechanisms.entries()) {
    try {
      init(mechanism);
      return;
    } catch (error) {
      if (!isUnknownParameter(error) || index === mechanisms.length - 1) throw error;
    }
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
