// Speaks to Google Cloud KMS: REST v1, with CRC-32C on every field both ways.
// https://cloud.google.com/kms/docs/reference/rest/v1/projects.locations.keyRings.cryptoKeys

import { readEndpoint } from '../../base/address.ts';
import { wipe } from '../../base/bytes.ts';
import { OcicryptError } from '../../base/errors.ts';
import { createHttpClient } from '../../base/http/client.ts';
import type { HttpClient, HttpResponse } from '../../base/http/contract.ts';
import { asText } from '../../base/json.ts';
import { type JsonInput, writeJson } from '../../base/json-writer.ts';
import { formatKeyUri, type KeyUri } from '../../base/key-uri.ts';
import { setting } from '../../base/setting.ts';
import { SharedBySettings } from '../../base/share.ts';
import { readAnswer } from '../answers.ts';
import {
  cannotBeUnwrapped,
  checkPlaintext,
  contextBytes,
  type EncryptionContext,
  type Kek,
  type WrappedKey,
} from '../kek.ts';
import { wrapRsaOaep } from '../rsa-oaep.ts';
import {
  checkedField,
  damaged,
  type GooglePublicKey,
  isVersion,
  parseRsaAlgorithm,
  type RsaAlgorithm,
  readChecked,
  readNewestVersion,
  readPublicKey,
  readVersion,
  SYMMETRIC,
} from './answers.ts';
import { type GoogleCredentials, openGoogleCredentials } from './credentials.ts';
import { explainGoogleError, mayBeAsymmetric } from './errors.ts';
import type { GoogleKmsMethod } from './gcloud.ts';

/** What the operator says about Google; nothing of it ever comes from a packet. */
export type GcpKmsSettings = {
  /** A file of application default credentials (`--adc`), in place of those that the environment names. */
  readonly credentialsFile?: string | undefined;
  /** Where the service is, `https://HOST`; `https://cloudkms.` and the universe domain if it is left out. */
  readonly endpoint?: string | undefined;
  /** The project whose quota the calls use and that pays for them. */
  readonly quotaProject?: string | undefined;
  /** `googleapis.com` if neither this nor the credentials say otherwise. */
  readonly universeDomain?: string | undefined;
  /** PEM files of roots to trust beside the system's. */
  readonly caFiles?: readonly string[] | undefined;
  /** Where the variables of Google's tools, SSL_CERT_FILE and the proxy's are read. */
  readonly environment: NodeJS.ProcessEnv;
};

/** Connections and roots are those of all keys of the same settings, and of their credentials. */
const SHARED = new SharedBySettings<Shared>();
type Shared = { readonly http: HttpClient; opening: Promise<GoogleCredentials> | undefined };

type GcpKeyUri = Extract<KeyUri, { scheme: 'gcpkms' }>;

/** Limits of a software key; an HSM takes 8 KiB for plaintext and additional data together, and says so itself. */
const MAXIMUM_BYTES = 64 * 1024;
/** A ciphertext is its plaintext and a little about the key version. */
const MAXIMUM_WRAPPED_BYTES = MAXIMUM_BYTES + 4096;
const MAXIMUM_ANSWER_BYTES = 256 * 1024;
/** So that an answer stays small; a key with more versions in use must be named with its version. */
const MAXIMUM_VERSIONS = 100;
/** How long the newest version of an asymmetric key stays the newest without asking. */
const FRESH_MILLISECONDS = 5 * 60 * 1000;

/**
 * Opens an ENCRYPT_DECRYPT key, or an ASYMMETRIC_DECRYPT key with RSA-OAEP. No file is read and no request is made before
 * the first call.
 *
 * Symmetric: wrapping uses the version that `uri` names, or the primary one; unwrapping names none, because the
 * service finds it in the ciphertext and refuses a request that names one. The context is the additional
 * authenticated data.
 *
 * Asymmetric keys are known by the refusal of the first `encrypt`, so that symmetric keys cost no other call. Wrapping
 * is done here, with the public key of the version that `uri` names, else of the newest one that is enabled: these
 * keys have no primary version. Unwrapping asks for the version and algorithm that the packet names. There is no
 * context.
 *
 * @param now a clock in milliseconds
 */
export function openGcpKms(uri: GcpKeyUri, settings: GcpKmsSettings, now = () => performance.now()): Kek {
  return new GoogleKek(uri, settings, now);
}

class GoogleKek implements Kek {
  readonly local = false;
  readonly key: string;
  readonly #name: string;
  readonly #uri: GcpKeyUri;
  readonly #settings: GcpKmsSettings;
  readonly #now: () => number;
  readonly #endpoint: string | undefined;
  readonly #shared: Shared;
  #isAsymmetric = false;
  /** By version, whose material never changes. */
  readonly #publicKeys = new Map<string, GooglePublicKey>();
  #newest: { readonly version: string; readonly until: number } | undefined;

  constructor(uri: GcpKeyUri, settings: GcpKmsSettings, now: () => number) {
    const { endpoint } = settings;
    this.key = formatKeyUri(uri);
    this.#name = formatKeyUri({ scheme: 'gcpkms', key: uri.key });
    this.#uri = uri;
    this.#settings = settings;
    this.#now = now;
    this.#endpoint = endpoint === undefined ? undefined : readEndpoint(endpoint, setting('gcpkms.endpoint'));
    this.#shared = SHARED.get(settings, '', () => ({ http: createHttpClient(settings), opening: undefined }));
  }

  async wrap(plaintext: Uint8Array, context: EncryptionContext, signal: AbortSignal): Promise<WrappedKey> {
    const additional = contextBytes(context);
    checkPlaintext(this.key, plaintext, MAXIMUM_BYTES);
    if (additional.length > MAXIMUM_BYTES) {
      throw new OcicryptError('bad-input', `${this.key} takes at most ${MAXIMUM_BYTES} bytes of context`);
    }
    const answer = this.#isAsymmetric ? undefined : await this.#encrypt(plaintext, additional, signal);
    if (answer?.status === 200) return this.#readEncrypted(answer.body);
    const found = answer === undefined || mayBeAsymmetric(answer) ? await this.#findPublicKey(signal) : undefined;
    if (found === undefined || found instanceof OcicryptError) {
      const said = answer === undefined ? found : this.#explain(answer, 'encrypt');
      // What `encrypt` said matters, unless it said no more than that the purpose is another one.
      const isOfVersion = found?.code === 'key-disabled' || found?.code === 'not-found';
      throw said?.code === 'configuration' && isOfVersion ? found : said;
    }
    this.#isAsymmetric = true;
    return this.#wrapHere(found, plaintext);
  }

  async unwrap(packet: WrappedKey, context: EncryptionContext, signal: AbortSignal): Promise<Uint8Array> {
    const { algorithm, wrapped } = packet;
    const rsa = parseRsaAlgorithm(algorithm);
    if (rsa !== undefined) return this.#unwrapRsa(rsa, packet, signal);
    // v1 packets name no algorithm; theirs is this one.
    const isSymmetric = algorithm === SYMMETRIC || algorithm === '';
    if (!isSymmetric || wrapped.length === 0 || wrapped.length > MAXIMUM_WRAPPED_BYTES) {
      throw cannotBeUnwrapped(this.key);
    }
    const message = {
      ...checkedField('ciphertext', wrapped),
      ...checkedField('additionalAuthenticatedData', contextBytes(context)),
    };
    const answer = await this.#call(`${this.#uri.key}:decrypt`, message, signal);
    if (answer.status !== 200) throw this.#explain(answer, 'decrypt');
    return this.#readPlaintext(answer.body);
  }

  close(): void {
    this.#shared.http.close();
  }

  /** For all keys of these settings. Credentials that could not be opened may be there the next time. */
  #openCredentials(): Promise<GoogleCredentials> {
    const shared = this.#shared;
    shared.opening ??= openGoogleCredentials({ ...this.#settings, http: shared.http }).catch((error: unknown) => {
      shared.opening = undefined;
      throw error;
    });
    return shared.opening;
  }

  /** One call, made again once with a new token if the service does not take the first one. */
  async #call(resource: string, message: JsonInput | undefined, signal: AbortSignal): Promise<HttpResponse> {
    const credentials = await this.#openCredentials();
    const body = message === undefined ? undefined : writeJson(message);
    try {
      const answer = await this.#send(credentials, resource, body, signal);
      if (answer.status !== 401) return answer;
      credentials.forget();
      return await this.#send(credentials, resource, body, signal);
    } finally {
      wipe(body);
    }
  }

  async #send(
    credentials: GoogleCredentials,
    resource: string,
    body: Uint8Array | undefined,
    signal: AbortSignal,
  ): Promise<HttpResponse> {
    return this.#shared.http.request({
      method: body === undefined ? 'GET' : 'POST',
      url: `${this.#endpoint ?? `https://cloudkms.${await credentials.universe(signal)}`}/v1/${resource}`,
      headers: async () => ({
        ...(await credentials.headers(signal)),
        'content-type': body === undefined ? undefined : 'application/json',
        accept: 'application/json',
      }),
      body,
      signal,
      maximumBytes: MAXIMUM_ANSWER_BYTES,
    });
  }

  #explain(answer: HttpResponse, method: GoogleKmsMethod): OcicryptError {
    return explainGoogleError(answer, { key: this.key, uri: this.#uri, method });
  }

  #encrypt(plaintext: Uint8Array, additional: Uint8Array, signal: AbortSignal): Promise<HttpResponse> {
    const { key, version } = this.#uri;
    const resource = version === undefined ? key : `${key}/cryptoKeyVersions/${version}`;
    const message = {
      ...checkedField('plaintext', plaintext),
      ...checkedField('additionalAuthenticatedData', additional),
    };
    return this.#call(`${resource}:encrypt`, message, signal);
  }

  #readEncrypted(body: Uint8Array): WrappedKey {
    const answer = readAnswer('Google KMS', this.key, body);
    const version = readVersion(this.#uri, asText(answer.get('name')) ?? '');
    if (version === undefined) throw damaged(this.key, 'another key answered');
    for (const flag of ['verifiedPlaintextCrc32c', 'verifiedAdditionalAuthenticatedDataCrc32c']) {
      if (answer.get(flag) !== true) throw damaged(this.key, `no ${flag}`);
    }
    const wrapped = readChecked(answer, 'ciphertext');
    if (wrapped === undefined || wrapped.length === 0) throw damaged(this.key, 'ciphertextCrc32c');
    return { key: this.#name, version, algorithm: SYMMETRIC, wrapped };
  }

  #wrapHere(found: GooglePublicKey, plaintext: Uint8Array): WrappedKey {
    const { version, algorithm } = found;
    const wrapped = wrapRsaOaep(this.key, found.key, plaintext, algorithm.hash);
    return { key: this.#name, version, algorithm: algorithm.name, wrapped };
  }

  /** The key to wrap with, or what the service said against it; what may pass or is damaged is thrown. */
  async #findPublicKey(signal: AbortSignal): Promise<GooglePublicKey | OcicryptError> {
    const uri = this.#uri;
    const version = uri.version ?? (await this.#findNewestVersion(signal));
    if (version instanceof OcicryptError) return version;
    const known = this.#publicKeys.get(version);
    if (known !== undefined) return known;
    const answer = await this.#call(`${uri.key}/cryptoKeyVersions/${version}/publicKey`, undefined, signal);
    if (answer.status !== 200) return throwIfRetryable(this.#explain(answer, 'getPublicKey'));
    const found = readPublicKey({ ...uri, version }, this.key, answer.body);
    this.#publicKeys.set(version, found);
    return found;
  }

  async #findNewestVersion(signal: AbortSignal): Promise<string | OcicryptError> {
    if (this.#newest !== undefined && this.#now() < this.#newest.until) return this.#newest.version;
    const query = `filter=state%3DENABLED&pageSize=${MAXIMUM_VERSIONS}`;
    const answer = await this.#call(`${this.#uri.key}/cryptoKeyVersions?${query}`, undefined, signal);
    if (answer.status !== 200) return throwIfRetryable(this.#explain(answer, 'list'));
    const { version, isSymmetric } = readNewestVersion(this.#uri, this.key, answer.body);
    if (version === undefined) {
      if (isSymmetric) return new OcicryptError('configuration', `${this.key} is symmetric`);
      return new OcicryptError('key-disabled', `${this.key} has no enabled version to wrap with`, {
        hint: 'enable or make one: gcloud kms keys versions enable|create',
      });
    }
    this.#newest = { version, until: this.#now() + FRESH_MILLISECONDS };
    return version;
  }

  async #unwrapRsa(
    algorithm: RsaAlgorithm,
    { version = this.#uri.version, wrapped }: WrappedKey,
    signal: AbortSignal,
  ): Promise<Uint8Array> {
    if (version === undefined || !isVersion(version) || wrapped.length !== algorithm.bits / 8) {
      throw cannotBeUnwrapped(this.key);
    }
    const resource = `${this.#uri.key}/cryptoKeyVersions/${version}:asymmetricDecrypt`;
    const answer = await this.#call(resource, checkedField('ciphertext', wrapped), signal);
    if (answer.status !== 200) throw this.#explain(answer, 'asymmetricDecrypt');
    return this.#readPlaintext(answer.body, ['verifiedCiphertextCrc32c']);
  }

  #readPlaintext(body: Uint8Array, flags: readonly string[] = []): Uint8Array {
    try {
      const answer = readAnswer('Google KMS', this.key, body);
      for (const flag of flags) if (answer.get(flag) !== true) throw damaged(this.key, `no ${flag}`);
      const plaintext = readChecked(answer, 'plaintext');
      if (plaintext === undefined) throw damaged(this.key, 'plaintextCrc32c');
      return plaintext;
    } finally {
      wipe(body);
    }
  }
}

function throwIfRetryable(error: OcicryptError): OcicryptError {
  if (error.retryable) throw error;
  return error;
}
