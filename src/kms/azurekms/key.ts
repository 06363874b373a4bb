// Keys of Azure Key Vault and Managed HSM: RSA keys wrap here with their public half and unwrap there; AES keys of a
// managed HSM do both there.

import { concatBytes, wipe } from '../../base/bytes.ts';
import { OcicryptError } from '../../base/errors.ts';
import { asArray, asNumber, asObject, asText } from '../../base/json.ts';
import { asKeyUri, formatKeyUri } from '../../base/key-uri.ts';
import { setting } from '../../base/setting.ts';
import {
  cannotBeUnwrapped,
  checkPlaintext,
  contextBytes,
  type EncryptionContext,
  type Kek,
  type WrappedKey,
} from '../kek.ts';
import { readRsaPublicKey, wrapRsaOaep } from '../rsa-oaep.ts';
import type { AzureKeyUri } from './cloud.ts';
import { disabled, notPermitted } from './errors.ts';
import {
  type AzureAnswer,
  type AzureKmsSettings,
  type AzureMessage,
  type AzureVault,
  damaged,
  openAzureVault,
  readBytes,
} from './vault.ts';

const MAXIMUM_WRAPPED_BYTES = 8192;
const NONCE_BYTES = 12;
const TAG_BYTES = 16;
const KEY_WRAP_BLOCK_BYTES = 8;

const RSA = 'RSA-OAEP-256';
const KEY_WRAP = 'A256KW';
const GCM = 'A256GCM';

/** How long a version with its attributes is taken for what it was. */
const FRESH_MILLISECONDS = 5 * 60 * 1000;

/** Wraps with one version of a key by one algorithm. */
type Wrapper = (plaintext: Uint8Array, context: EncryptionContext, signal: AbortSignal) => Promise<WrappedKey>;

/**
 * Opens a key. No request is made before the first call. Packets get the id of the version that wrapped, and unwrapping
 * asks for that version: an older one stays usable when the key is rotated. An entry without version asks for the
 * newest each time it wraps; one with a version is fetched again after five minutes. The context is bound by A256GCM only.
 *
 * Wrapping with an RSA key makes no request, so what the service would check is checked here before each wrap: whether
 * the key is enabled, its dates and its operations. Dates do not matter when unwrapping, as the service has it.
 *
 * @param now a clock in milliseconds since 1970
 * @throws OcicryptError `configuration` for a host that is not in a known cloud
 */
export function openAzureKms(uri: AzureKeyUri, settings: AzureKmsSettings, now: () => number = Date.now): Kek {
  const key = formatKeyUri(uri);
  const version = uri.version?.toLowerCase();
  const vault = openAzureVault(uri, settings);
  const call = { key, name: uri.key, place: vault.place };
  let kept: { readonly found: UsableKey; readonly since: number } | undefined;
  let hasWarned = false;

  async function readKey(signal: AbortSignal): Promise<UsableKey | undefined> {
    // A clock that was set back must not keep it.
    const age = now() - (kept?.since ?? 0);
    if (kept !== undefined && age >= 0 && age < FRESH_MILLISECONDS) return kept.found;
    const answer = await vault.read(version, signal);
    return answer === undefined ? undefined : describeKey(answer);
  }

  async function findWrapper(signal: AbortSignal): Promise<Wrapper> {
    const found = await readKey(signal);
    // Who may not read the key may be permitted to wrap with it all the same; then it must be RSA.
    if (found === undefined) return remoteWrapper(vault, key, RSA, version);
    const wrapper = chooseWrapper(key, found, vault);
    const { isEnabled, validFrom, validUntil, operations } = found;
    if (!isEnabled) throw disabled('KeyDisabled', call);
    if (validUntil !== undefined && now() >= validUntil) throw disabled('KeyExpired', call, new Date(validUntil));
    if (validFrom !== undefined && now() < validFrom) throw disabled('KeyNotYetValid', call, new Date(validFrom));
    const [wraps, unwraps] = operations.includes('encrypt') && !isRsa(found) ? GCM_OPERATIONS : WRAP_OPERATIONS;
    if (!operations.includes(wraps)) throw notPermitted({ ...call, purpose: 'wrap' });
    if (!operations.includes(unwraps) && !hasWarned) {
      hasWarned = true;
      settings.warn?.(`${key} permits ${wraps} and not ${unwraps}: what it wraps cannot be opened with it`);
    }
    if (version !== undefined && found !== kept?.found) kept = { found, since: now() };
    return wrapper;
  }

  return {
    local: false,
    key,
    async wrap(plaintext, context, signal) {
      checkPlaintext(key, plaintext);
      const wrapper = await findWrapper(signal);
      return wrapper(plaintext, context, signal);
    },
    async unwrap(wrapped, context, signal) {
      const asked = versionFor(uri, wrapped.key);
      const request = asked === undefined ? undefined : unwrapRequest(wrapped, context);
      if (asked === undefined || request === undefined) throw cannotBeUnwrapped(key);
      const operation = wrapped.algorithm === GCM ? 'decrypt' : 'unwrapkey';
      const { message, body } = await vault.operate(operation, asked.version, request, signal);
      try {
        const plaintext = readBytes(message, 'value');
        if (plaintext === undefined) throw damaged(key, 'no value');
        return plaintext;
      } finally {
        wipe(body);
      }
    },
    close: () => vault.close(),
  };
}

/** What the service says of a version of a key; dates are milliseconds since 1970. */
type UsableKey = {
  readonly kid: AzureKeyUri;
  readonly type: string;
  readonly rsa: ReturnType<typeof readRsaPublicKey>;
  readonly isEnabled: boolean;
  readonly validFrom: number | undefined;
  readonly validUntil: number | undefined;
  readonly operations: readonly string[];
};

const WRAP_OPERATIONS = ['wrapKey', 'unwrapKey'] as const;
const GCM_OPERATIONS = ['encrypt', 'decrypt'] as const;

/** https://learn.microsoft.com/rest/api/keyvault/keys/get-key/get-key#keybundle */
function describeKey({ kid, message }: AzureAnswer): UsableKey {
  const found = asObject(message.get('key'));
  const attributes = asObject(message.get('attributes'));
  const date = (name: string) => {
    const seconds = asNumber(attributes?.get(name));
    return seconds === undefined ? undefined : seconds * 1000;
  };
  return {
    kid,
    type: (asText(found?.get('kty')) ?? '').toUpperCase(),
    rsa: readRsaPublicKey({ n: asText(found?.get('n')) ?? '', e: asText(found?.get('e')) ?? '' }),
    isEnabled: attributes?.get('enabled') !== false,
    validFrom: date('nbf'),
    validUntil: date('exp'),
    operations: asArray(found?.get('key_ops'))?.map((operation) => asText(operation) ?? '') ?? WRAP_OPERATIONS,
  };
}

function isRsa({ type }: UsableKey): boolean {
  return type === 'RSA' || type === 'RSA-HSM';
}

/** By the kind of key that the service says it is. */
function chooseWrapper(key: string, found: UsableKey, vault: AzureVault): Wrapper {
  const { kid, rsa, type, operations } = found;
  if (isRsa(found)) {
    if (rsa === undefined) throw damaged(key, 'no RSA key');
    const name = formatKeyUri(kid);
    return async (plaintext) => ({ key: name, algorithm: RSA, wrapped: wrapRsaOaep(key, rsa, plaintext) });
  }
  if (type === 'OCT' || type === 'OCT-HSM') {
    return remoteWrapper(vault, key, operations.includes('encrypt') ? GCM : KEY_WRAP, kid.version?.toLowerCase());
  }
  throw new OcicryptError('configuration', `${key} is not a key that can wrap`, {
    hint: 'it must be of type RSA, RSA-HSM or oct-HSM',
  });
}

function remoteWrapper(vault: AzureVault, key: string, algorithm: string, version: string | undefined): Wrapper {
  return async (plaintext, context, signal) => {
    if (algorithm === KEY_WRAP && plaintext.length % KEY_WRAP_BLOCK_BYTES !== 0) {
      // RFC 3394 pads nothing.
      throw new OcicryptError('bad-input', `${key} takes multiples of ${KEY_WRAP_BLOCK_BYTES} bytes`, {
        hint: `use ${setting('packet')} v2`,
      });
    }
    if (algorithm !== GCM) {
      const { kid, message } = await vault.operate('wrapkey', version, { alg: algorithm, value: plaintext }, signal);
      const wrapped = readBytes(message, 'value') ?? new Uint8Array(0);
      if (wrapped.length === 0) throw damaged(key, 'no value');
      return { key: formatKeyUri(kid), algorithm, wrapped };
    }
    const request = { alg: algorithm, value: plaintext, ...additionalData(context) };
    const { kid, message } = await vault.operate('encrypt', version, request, signal);
    const [nonce, value, tag] = ['iv', 'value', 'tag'].map((name) => readBytes(message, name) ?? new Uint8Array(0));
    if (nonce?.length !== NONCE_BYTES || tag?.length !== TAG_BYTES || value?.length !== plaintext.length) {
      throw damaged(key, 'no nonce, value or tag');
    }
    return { key: formatKeyUri(kid), algorithm, wrapped: concatBytes(nonce, value, tag) };
  };
}

/** Undefined for bytes that no such key has wrapped. */
function unwrapRequest({ algorithm, wrapped }: WrappedKey, context: EncryptionContext): AzureMessage | undefined {
  if (wrapped.length === 0 || wrapped.length > MAXIMUM_WRAPPED_BYTES) return undefined;
  if (algorithm === RSA || algorithm === KEY_WRAP) return { alg: algorithm, value: wrapped };
  if (algorithm !== GCM || wrapped.length <= NONCE_BYTES + TAG_BYTES) return undefined;
  return {
    alg: algorithm,
    iv: wrapped.subarray(0, NONCE_BYTES),
    value: wrapped.subarray(NONCE_BYTES, -TAG_BYTES),
    tag: wrapped.subarray(-TAG_BYTES),
    ...additionalData(context),
  };
}

function additionalData(context: EncryptionContext): { readonly aad?: Uint8Array } {
  const bytes = contextBytes(context);
  return bytes.length === 0 ? {} : { aad: bytes };
}

/** The version to ask for: the packet's, if it is of this key and the operator's entry names no other one. */
function versionFor(uri: AzureKeyUri, packetKey: string): { readonly version: string | undefined } | undefined {
  const asked = asKeyUri(packetKey);
  if (asked?.scheme !== 'azurekms') return undefined;
  const [ours, theirs] = [uri, asked].map(({ host, key }) => formatKeyUri({ scheme: 'azurekms', host, key }));
  const version = (asked.version ?? uri.version)?.toLowerCase();
  const differs = uri.version !== undefined && uri.version.toLowerCase() !== version;
  return ours === theirs && !differs ? { version } : undefined;
}
