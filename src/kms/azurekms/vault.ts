// The requests of a vault or managed HSM about one key: bearer tokens, base64url, and which key it was that answered.
// https://learn.microsoft.com/rest/api/keyvault/keys

import { decodeBase64Url, wipe } from '../../base/bytes.ts';
import type { OcicryptError } from '../../base/errors.ts';
import { createHttpClient } from '../../base/http/client.ts';
import type { HttpResponse } from '../../base/http/contract.ts';
import { asObject, asText, type JsonObject, JsonString } from '../../base/json.ts';
import { writeJson } from '../../base/json-writer.ts';
import { asKeyUri, formatKeyUri } from '../../base/key-uri.ts';
import { SharedBySettings } from '../../base/share.ts';
import { damagedAnswer, readAnswer } from '../answers.ts';
import type { TokenCache } from '../token-cache.ts';
import { type AzureCloudSettings, type AzureKeyUri, type AzurePlace, findAzurePlace } from './cloud.ts';
import { openAzureCredentials } from './credentials.ts';
import { explainAzureError, isOther } from './errors.ts';

/** What the operator says about Azure; nothing of it ever comes from a packet. */
export type AzureKmsSettings = AzureCloudSettings & {
  /** PEM files of roots to trust beside the system's. */
  readonly caFiles?: readonly string[] | undefined;
  /** Where the variables of Azure's tools, SSL_CERT_FILE and the proxy's are read. */
  readonly environment: NodeJS.ProcessEnv;
  /** Told what works but may be a mistake. */
  readonly warn?: ((line: string) => void) | undefined;
};

export type AzureOperation = 'decrypt' | 'encrypt' | 'unwrapkey' | 'wrapkey';

/** Members of a request: text as it is, bytes as base64url. */
export type AzureMessage = Readonly<Record<string, string | Uint8Array>>;

/** An answer about the key: the id of the version that answered, and the members. */
export type AzureAnswer = { readonly kid: AzureKeyUri; readonly message: JsonObject; readonly body: Uint8Array };

export interface AzureVault {
  readonly place: AzurePlace;
  /** The public part of a key and its attributes; undefined if this identity may use the key but not read it. */
  read(version: string | undefined, signal: AbortSignal): Promise<AzureAnswer | undefined>;
  /** A key operation. The answer's body may hold a key: its reader wipes it. */
  operate(
    operation: AzureOperation,
    version: string | undefined,
    message: AzureMessage,
    signal: AbortSignal,
  ): Promise<AzureAnswer>;
  close(): void;
}

/** One token for all keys of one cloud. */
const CREDENTIALS = new SharedBySettings<TokenCache<string>>();
/** None of the later ones changes what is asked here; docs/keys-azure.md. */
const API_VERSION = '7.4';
const MAXIMUM_ANSWER_BYTES = 64 * 1024;

/** @throws OcicryptError `configuration` for a host that is not in a known cloud */
export function openAzureVault(uri: AzureKeyUri, settings: AzureKmsSettings): AzureVault {
  const key = formatKeyUri(uri);
  const name = uri.key.toLowerCase();
  const place = findAzurePlace(uri, settings);
  const http = createHttpClient(settings);

  /** One call, made again once with a new token if the service does not take the first one. */
  async function call(path: string, body: Uint8Array | undefined, signal: AbortSignal): Promise<HttpResponse> {
    const credentials = CREDENTIALS.get(settings, `${place.audience} ${place.authority}`, () =>
      openAzureCredentials(place, settings.environment, http),
    );
    const answer = await send(credentials, path, body, signal);
    if (answer.status !== 401) return answer;
    credentials.forget();
    return send(credentials, path, body, signal);
  }

  function send(credentials: TokenCache<string>, path: string, body: Uint8Array | undefined, signal: AbortSignal) {
    return http.request({
      method: body === undefined ? 'GET' : 'POST',
      url: `${place.endpoint}/keys/${path}?api-version=${API_VERSION}`,
      headers: async () => ({
        authorization: await credentials.read(signal),
        accept: 'application/json',
        'content-type': body === undefined ? undefined : 'application/json',
      }),
      body,
      signal,
      maximumBytes: MAXIMUM_ANSWER_BYTES,
    });
  }

  function readKid(text: string | undefined, version: string | undefined): AzureKeyUri {
    // An emulator calls itself by the address that it is reached by.
    const id = text?.replace(`${place.endpoint}/`, `https://${place.host}/`) ?? '';
    const kid = asKeyUri(id);
    if (
      kid?.scheme !== 'azurekms' ||
      kid.version === undefined ||
      kid.host.toLowerCase() !== place.host ||
      kid.key.toLowerCase() !== name ||
      (version !== undefined && kid.version.toLowerCase() !== version)
    ) {
      throw damaged(key, 'another key answered');
    }
    return kid;
  }

  return {
    place,
    async read(version, signal) {
      const answer = await call(version === undefined ? name : `${name}/${version}`, undefined, signal);
      if (answer.status === 403 && !isOther(answer)) return undefined;
      if (answer.status !== 200) throw explainAzureError(answer, { key, name, place, purpose: 'wrap' });
      const message = readAnswer('Azure', key, answer.body);
      const kid = readKid(asText(asObject(message.get('key'))?.get('kid')), version);
      return { kid, message, body: answer.body };
    },
    async operate(operation, version, request, signal) {
      const body = writeJson(request, 'base64url');
      try {
        // Without a version the segment is empty, which is how Microsoft's own clients ask for the newest.
        const answer = await call(`${name}/${version ?? ''}/${operation}`, body, signal);
        const purpose = operation === 'wrapkey' || operation === 'encrypt' ? 'wrap' : 'unwrap';
        if (answer.status !== 200) throw explainAzureError(answer, { key, name, place, purpose });
        const message = readAnswer('Azure', key, answer.body);
        return { kid: readKid(asText(message.get('kid')), version), message, body: answer.body };
      } finally {
        wipe(body);
      }
    },
    close: () => http.close(),
  };
}

/** The bytes of a member in base64url, or undefined. */
export function readBytes(message: JsonObject, name: string): Uint8Array<ArrayBuffer> | undefined {
  const value = message.get(name);
  return value instanceof JsonString ? decodeBase64Url(value.bytes()) : undefined;
}

export function damaged(key: string, how: string): OcicryptError {
  return damagedAnswer('Azure', key, how);
}
