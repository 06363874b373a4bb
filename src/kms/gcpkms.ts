// The only code that speaks to Google Cloud KMS: symmetric keys over REST v1, with CRC-32C on every field both ways.
// https://cloud.google.com/kms/docs/reference/rest/v1/projects.locations.keyRings.cryptoKeys

import { wipe } from '../base/bytes.ts';
import { OcicryptError } from '../base/errors.ts';
import { createHttpClient, type HttpResponse } from '../base/http.ts';
import { asObject, asText, type JsonInput, type JsonObject, JsonString, parseJson, writeJson } from '../base/json.ts';
import { formatKeyUri, type KeyUri } from '../base/key-uri.ts';
import { crc32c } from './crc32c.ts';
import { explainGoogleError, type GoogleKmsCall } from './gcpkms-errors.ts';
import { type GoogleCredentials, openGoogleCredentials } from './google-credentials.ts';
import { CANNOT_BE_UNWRAPPED, contextBytes, type Kek } from './kek.ts';

/** What the operator says about Google; nothing of it ever comes from a packet. */
export type GcpKmsSettings = {
  /** A file of application default credentials (`--adc`), in place of those that the environment names. */
  readonly credentialsFile?: string | undefined;
  /** Where the service is, `https://HOST`; `https://cloudkms.` and the universe domain where it is left out. */
  readonly endpoint?: string | undefined;
  /** The project whose quota the calls use and that pays for them. */
  readonly quotaProject?: string | undefined;
  /** `googleapis.com` where neither this nor the credentials say otherwise. */
  readonly universeDomain?: string | undefined;
  /** PEM files of roots to trust beside the system's. */
  readonly caFiles?: readonly string[] | undefined;
  /** Where the variables of Google's tools, SSL_CERT_FILE and the proxy's are read. */
  readonly environment: NodeJS.ProcessEnv;
};

type GcpKeyUri = Extract<KeyUri, { scheme: 'gcpkms' }>;

/** Limits of a software key; an HSM takes 8 KiB for plaintext and additional data together, and says so itself. */
const MAXIMUM_BYTES = 64 * 1024;
/** A ciphertext is its plaintext and a little about the key version. */
const MAXIMUM_WRAPPED_BYTES = MAXIMUM_BYTES + 4096;
const MAXIMUM_ANSWER_BYTES = 256 * 1024;
/** The name of the one algorithm of symmetric keys, which the answer does not repeat. */
const ALGORITHM = 'GOOGLE_SYMMETRIC_ENCRYPTION';

/**
 * Opens an ENCRYPT_DECRYPT key. No file is read and nobody is asked before the first call. Wrapping uses the version
 * that `uri` names, or the primary one; unwrapping names none, because the service finds it in the ciphertext and
 * refuses a request that names one. The context is the additional authenticated data.
 */
export function openGcpKms(uri: GcpKeyUri, settings: GcpKmsSettings): Kek {
  const key = formatKeyUri(uri);
  const http = createHttpClient(settings);
  let opening: Promise<GoogleCredentials> | undefined;

  /** Credentials that could not be opened may be there the next time. */
  function openCredentials(): Promise<GoogleCredentials> {
    opening ??= openGoogleCredentials({ ...settings, http }).catch((error: unknown) => {
      opening = undefined;
      throw error;
    });
    return opening;
  }

  /** One call, made again once with a new token where the service does not take the first one. */
  async function call(method: GoogleKmsCall['method'], resource: string, message: JsonInput, signal: AbortSignal) {
    const credentials = await openCredentials();
    const body = writeJson(message);
    try {
      let answer = await send(credentials, method, resource, body, signal);
      if (answer.status === 401) {
        credentials.forget();
        answer = await send(credentials, method, resource, body, signal);
      }
      if (answer.status === 200) return answer.body;
      throw explainGoogleError(answer, { key, uri, method });
    } finally {
      wipe(body);
    }
  }

  async function send(
    credentials: GoogleCredentials,
    method: string,
    resource: string,
    body: Uint8Array,
    signal: AbortSignal,
  ): Promise<HttpResponse> {
    return http.request({
      method: 'POST',
      url: `${readEndpoint(settings.endpoint, credentials.universeDomain)}/v1/${resource}:${method}`,
      headers: {
        ...(await credentials.headers(signal)),
        'content-type': 'application/json',
        accept: 'application/json',
      },
      body,
      signal,
      maximumBytes: MAXIMUM_ANSWER_BYTES,
    });
  }

  return {
    local: false,
    key,
    async wrap(plaintext, context, signal) {
      const additional = contextBytes(context);
      if (plaintext.length > MAXIMUM_BYTES || additional.length > MAXIMUM_BYTES) {
        throw new OcicryptError('bad-input', `${key} takes at most ${MAXIMUM_BYTES} bytes`);
      }
      const resource = uri.version === undefined ? uri.key : `${uri.key}/cryptoKeyVersions/${uri.version}`;
      const message = { ...checked('plaintext', plaintext), ...checked('additionalAuthenticatedData', additional) };
      const answer = readAnswer(key, await call('encrypt', resource, message, signal));
      const version = readVersion(uri, answer);
      if (version === undefined) throw damaged(key, 'another key answered');
      for (const flag of ['verifiedPlaintextCrc32c', 'verifiedAdditionalAuthenticatedDataCrc32c']) {
        if (answer.get(flag) !== true) throw damaged(key, `no ${flag}`);
      }
      const wrapped = readChecked(answer, 'ciphertext');
      if (wrapped === undefined || wrapped.length === 0) throw damaged(key, 'ciphertextCrc32c');
      return { key: formatKeyUri({ scheme: 'gcpkms', key: uri.key }), version, algorithm: ALGORITHM, wrapped };
    },
    async unwrap({ wrapped }, context, signal) {
      if (wrapped.length === 0 || wrapped.length > MAXIMUM_WRAPPED_BYTES) {
        throw new OcicryptError('integrity', `${key}: ${CANNOT_BE_UNWRAPPED}`);
      }
      const additional = contextBytes(context);
      const message = { ...checked('ciphertext', wrapped), ...checked('additionalAuthenticatedData', additional) };
      const body = await call('decrypt', uri.key, message, signal);
      try {
        const plaintext = readChecked(readAnswer(key, body), 'plaintext');
        if (plaintext === undefined) throw damaged(key, 'plaintextCrc32c');
        return plaintext;
      } finally {
        wipe(body);
      }
    },
    close: () => http.close(),
  };
}

/** An operator's `HOST` or `https://HOST`, or the service's own address. */
function readEndpoint(endpoint: string | undefined, universeDomain: string): string {
  if (endpoint === undefined) return `https://cloudkms.${universeDomain}`;
  const url = endpoint.includes('://') ? endpoint : `https://${endpoint}`;
  return url.replace(/\/+$/, '');
}

/** A field and its checksum, which is sent even for no bytes: only then does the service confirm that it got none. */
function checked(name: string, bytes: Uint8Array): { readonly [member: string]: JsonInput | undefined } {
  return { [name]: bytes.length === 0 ? undefined : bytes, [`${name}Crc32c`]: String(crc32c(bytes)) };
}

/** The field where its checksum is there and right; protocol buffers leave out a field of no bytes. */
function readChecked(answer: JsonObject, name: string): Uint8Array<ArrayBuffer> | undefined {
  const value = answer.get(name);
  const bytes = value === undefined ? new Uint8Array(0) : value instanceof JsonString ? value.base64() : undefined;
  // A 64-bit number is a string in JSON.
  const checksum = answer.get(`${name}Crc32c`);
  if (bytes !== undefined && (asText(checksum) ?? checksum) === String(crc32c(bytes))) return bytes;
  wipe(bytes);
  return undefined;
}

/** The version that encrypted, or undefined where the name is not that of the key (and version) that was asked. */
function readVersion(uri: GcpKeyUri, answer: JsonObject): string | undefined {
  const name = asText(answer.get('name')) ?? '';
  const prefix = `${uri.key}/cryptoKeyVersions/`;
  const version = name.slice(prefix.length);
  if (!name.startsWith(prefix) || !/^[1-9]\d{0,9}$/.test(version)) return undefined;
  return uri.version === undefined || uri.version === version ? version : undefined;
}

function readAnswer(key: string, body: Uint8Array): JsonObject {
  try {
    const answer = asObject(parseJson(body, 'the answer'));
    if (answer !== undefined) return answer;
  } catch {}
  throw damaged(key, 'not a JSON object');
}

/** Google's advice: discard the answer and ask again a limited number of times. */
function damaged(key: string, how: string): OcicryptError {
  return new OcicryptError('integrity', `the answer of Google KMS about ${key} is damaged (${how})`, {
    hint: 'something between here and the service changes data: check proxies and middleboxes',
    retryable: true,
  });
}
