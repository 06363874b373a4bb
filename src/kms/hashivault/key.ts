// Speaks to the transit engine of HashiCorp Vault and OpenBao, which have one API.
// https://openbao.org/api-docs/secret/transit/

import { decodeBase64, wipe } from '../../base/bytes.ts';
import type { OcicryptError } from '../../base/errors.ts';
import type { HttpResponse } from '../../base/http/contract.ts';
import { asBytes, asObject, asText, type JsonObject, JsonString, readObject } from '../../base/json.ts';
import { type JsonInput, writeJson } from '../../base/json-writer.ts';
import { formatKeyUri, type KeyUri } from '../../base/key-uri.ts';
import { SharedBySettings } from '../../base/share.ts';
import { damagedAnswer, isPage } from '../answers.ts';
import { cannotBeUnwrapped, checkPlaintext, contextBytes, type EncryptionContext, type Kek } from '../kek.ts';
import { openVaultConnection, type VaultConnection } from './connection.ts';
import { explainVaultError, isNotAead, notVault } from './errors.ts';
import { openVaultTokens, type VaultLogin, type VaultTokens } from './tokens.ts';

/** What the operator says about Vault; nothing of it ever comes from a packet. */
export type VaultSettings = {
  /** Where the service is; VAULT_ADDR and its kin if it is left out. */
  readonly address?: string | undefined;
  /** Where the token comes from; by default `token`: from the environment or a file. */
  readonly login?: VaultLogin | undefined;
  /** The role of a login, or the role id of an `approle` login. */
  readonly role?: string | undefined;
  /** Where the login is mounted; by its own name if it is left out. */
  readonly loginPath?: string | undefined;
  /** The file that holds the token, the JWT or the secret id of the login. */
  readonly credentialsFile?: string | undefined;
  /** PEM files of roots to trust beside the system's. */
  readonly caFiles?: readonly string[] | undefined;
  /** Where the variables of Vault's and OpenBao's own tools are read. */
  readonly environment: NodeJS.ProcessEnv;
};

type VaultKeyUri = Extract<KeyUri, { scheme: 'hashivault' }>;

/** A ciphertext as the service writes it: ASCII, versioned; a template of another shape cannot be told from damage. */
const CIPHERTEXT = /^vault:v([1-9]\d{0,9}):([A-Za-z0-9+/=]+)$/;
const MAXIMUM_WRAPPED_BYTES = 16 * 1024;
const MAXIMUM_ANSWER_BYTES = 64 * 1024;
/**
 * A key type that encryption cannot have. A token with the capability `create` would otherwise make a key that is
 * missing, silently; the service looks at the type only where it is about to do so, and refuses this one.
 */
const NEVER_CREATE = 'ecdsa-p256';

/** One login for all keys of a namespace. */
const TOKENS = new SharedBySettings<VaultTokens>();

/**
 * Opens a transit key. No request is made before the first call. The context is `associated_data` if the key's cipher
 * takes it, which its first answer tells; RSA keys, and servers before Vault 1.13, bind none.
 *
 * @param now a clock in milliseconds
 * @throws OcicryptError `configuration` for an address, a login or a variable that cannot be used
 */
export function openHashiVault(uri: VaultKeyUri, settings: VaultSettings, now = () => performance.now()): Kek {
  const key = formatKeyUri(uri);
  const connection = openVaultConnection(settings);
  const namespace = uri.namespace ?? connection.namespace;
  const login = connection.namespace ?? uri.namespace;
  const tokens = TOKENS.get(settings, login ?? '', () =>
    openVaultTokens(openVaultConnection(settings), { ...settings, namespace: login }, now),
  );
  const path = (method: string) => [...(uri.engine ?? 'transit').split('/'), method, uri.key];
  let takesContext: boolean | undefined;

  /** One call, made again once if the service may have refused no more than a token that has ended. */
  async function call(method: Method, message: Message, signal: AbortSignal): Promise<HttpResponse> {
    const body = writeJson(message);
    try {
      const token = await tokens.current(signal);
      const answer = await connection.send({ path: path(method), token, namespace, body, signal, ...BOUNDS });
      if (answer.status !== 403) return answer;
      const renewed = await tokens.renewed(token, signal);
      if (renewed === undefined) return answer;
      return await connection.send({ path: path(method), token: renewed, namespace, body, signal, ...BOUNDS });
    } finally {
      wipe(body);
    }
  }

  async function transit(
    method: Method,
    message: Message,
    context: EncryptionContext,
    signal: AbortSignal,
  ): Promise<Uint8Array> {
    const additional = contextBytes(context);
    const bound = additional.length > 0 && takesContext !== false;
    let answer = await call(method, bound ? { ...message, associated_data: additional } : message, signal);
    if (bound && isNotAead(answer)) {
      takesContext = false;
      answer = await call(method, message, signal);
    } else if (bound && answer.status === 200) takesContext = true;
    if (answer.status === 200) return answer.body;
    throw explainVaultError(answer, { key, uri, method });
  }

  return {
    local: false,
    key,
    async wrap(plaintext, context, signal) {
      checkPlaintext(key, plaintext);
      const answer = readData(key, await transit('encrypt', { plaintext, type: NEVER_CREATE }, context, signal));
      const wrapped = answer.get('ciphertext');
      const bytes = wrapped instanceof JsonString ? Uint8Array.from(wrapped.bytes()) : undefined;
      const version = bytes === undefined ? undefined : readVersion(bytes);
      if (bytes === undefined || version === undefined) throw damaged(key, 'ciphertext');
      if (String(answer.get('key_version') ?? version) !== version) throw damaged(key, 'key_version');
      return { key, version, algorithm: algorithmName(takesContext), wrapped: bytes };
    },
    async unwrap({ algorithm, wrapped, version }, context, signal) {
      const own = readVersion(wrapped);
      if (!ALGORITHMS.has(algorithm) || own === undefined || (version !== undefined && version !== own)) {
        throw cannotBeUnwrapped(key);
      }
      const ciphertext = new TextDecoder().decode(wrapped);
      const body = await transit('decrypt', { ciphertext }, context, signal);
      try {
        const plaintext = asBytes(readData(key, body).get('plaintext'));
        if (plaintext === undefined || plaintext.length === 0) throw damaged(key, 'plaintext');
        return plaintext;
      } finally {
        wipe(body);
      }
    },
    close: () => connection.close(),
  };
}

type Method = 'decrypt' | 'encrypt';
type Message = { readonly [member: string]: JsonInput };

const BOUNDS: Pick<Parameters<VaultConnection['send']>[0], 'maximumBytes'> = { maximumBytes: MAXIMUM_ANSWER_BYTES };

const ALGORITHMS: ReadonlySet<string> = new Set(['transit', 'transit-aead', 'transit-rsa-oaep']);

/** The service never names a key's cipher to those who may only use the key; without a context nothing tells it. */
function algorithmName(takesContext: boolean | undefined): string {
  if (takesContext === undefined) return 'transit';
  return takesContext ? 'transit-aead' : 'transit-rsa-oaep';
}

/** The version in a ciphertext, or undefined if it is not strictly one. */
function readVersion(wrapped: Uint8Array): string | undefined {
  if (wrapped.length > MAXIMUM_WRAPPED_BYTES) return undefined;
  const match = CIPHERTEXT.exec(new TextDecoder('latin1').decode(wrapped));
  if (match === null || decodeBase64(new TextEncoder().encode(match[2])) === undefined) return undefined;
  return match[1];
}

function readData(key: string, body: Uint8Array): JsonObject {
  const data = asObject(readObject(body)?.get('data'));
  if (data !== undefined && asText(data.get('error')) === undefined) return data;
  throw isPage(body) ? notVault(key, 200) : damaged(key, 'no data');
}

function damaged(key: string, how: string): OcicryptError {
  return damagedAnswer('Vault', key, how);
}
