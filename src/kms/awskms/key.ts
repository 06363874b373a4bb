// Speaks to AWS KMS: JSON 1.1 requests, signed by AWS's own code. Symmetric keys wrap with an
// encryption context; RSA keys wrap here with their public half and unwrap there.
// https://docs.aws.amazon.com/kms/latest/APIReference/API_Operations.html

import type { KeyObject } from 'node:crypto';
import { isSameAwsKey, parseAwsArn } from '../../base/aws-arn.ts';
import { wipe } from '../../base/bytes.ts';
import type { OcicryptError } from '../../base/errors.ts';
import { createHttpClient } from '../../base/http/client.ts';
import type { HttpClient, HttpResponse } from '../../base/http/contract.ts';
import { asArray, asBytes, asText, type JsonObject } from '../../base/json.ts';
import { type JsonInput, writeJson } from '../../base/json-writer.ts';
import { asKeyUri, formatKeyUri, type KeyUri } from '../../base/key-uri.ts';
import { SharedBySettings } from '../../base/share.ts';
import { damagedAnswer, readAnswer } from '../answers.ts';
import { cannotBeUnwrapped, checkPlaintext, type EncryptionContext, type Kek, type WrappedKey } from '../kek.ts';
import { readRsaPublicKey, wrapRsaOaep } from '../rsa-oaep.ts';
import type { TokenCache } from '../token-cache.ts';
import { openAwsCredentials } from './credentials.ts';
import { type AwsPlace, findAwsPlace } from './endpoint.ts';
import { type AwsOperation, explainAwsError, isExpired, mayBeAsymmetric } from './errors.ts';
import type { AwsIdentity } from './identity.ts';
import { type AwsProfiles, expandHome, readAwsProfiles } from './profiles.ts';
import { signAwsRequest } from './signature.ts';

/** What the operator says about AWS; nothing of it ever comes from a packet. */
export type AwsKmsSettings = {
  /** Where the service is, `https://HOST`, in place of the region's own endpoint. */
  readonly endpoint?: string | undefined;
  /** The region of keys that are named without one; AWS_REGION if it is left out. */
  readonly region?: string | undefined;
  /** PEM files of roots to trust beside the system's. */
  readonly caFiles?: readonly string[] | undefined;
  /** Where the variables of AWS's tools, SSL_CERT_FILE and the proxy's are read. */
  readonly environment: NodeJS.ProcessEnv;
};

type AwsKeyUri = Extract<KeyUri, { scheme: 'awskms' }>;

/** The limit of `Decrypt`; that of `Encrypt` is 4096. */
const MAXIMUM_WRAPPED_BYTES = 6144;
const MAXIMUM_ANSWER_BYTES = 64 * 1024;
const SYMMETRIC = 'SYMMETRIC_DEFAULT';
const RSA = 'RSAES_OAEP_SHA_256';
const CREDENTIALS = new SharedBySettings<TokenCache<AwsIdentity>>();

/**
 * Opens a key for encryption and decryption. No file is read and no request is made before the first call. The operator's
 * name of the key is sent with every call, an alias as an alias; packets get the ARN that answered, and the ARN that
 * answers an unwrap must be the packet's, or a replica of it if the key is a multi-Region key.
 */
export function openAwsKms(uri: AwsKeyUri, settings: AwsKmsSettings): Kek {
  return new AwsKek(uri, settings);
}

type Opened = { readonly http: HttpClient; readonly place: AwsPlace; readonly credentials: TokenCache<AwsIdentity> };

class AwsKek implements Kek {
  readonly local = false;
  readonly key: string;
  readonly #uri: AwsKeyUri;
  readonly #settings: AwsKmsSettings;
  #opened: Opened | undefined;
  /** Of an RSA key: it does not change, and fetching it needs a permission and a round trip. */
  #publicKey: { readonly name: string; readonly key: KeyObject } | undefined;

  constructor(uri: AwsKeyUri, settings: AwsKmsSettings) {
    this.key = formatKeyUri(uri);
    this.#uri = uri;
    this.#settings = settings;
  }

  async wrap(plaintext: Uint8Array, context: EncryptionContext, signal: AbortSignal): Promise<WrappedKey> {
    checkPlaintext(this.key, plaintext);
    if (this.#publicKey === undefined) {
      const message = { KeyId: this.#uri.key, Plaintext: plaintext, EncryptionContext: contextMember(context) };
      const answer = await this.#call('Encrypt', message, signal);
      if (answer.status === 200) return this.#readEncrypted(answer.body);
      this.#publicKey = mayBeAsymmetric(answer) ? await this.#readPublicKey(signal) : undefined;
      if (this.#publicKey === undefined) throw this.#explain(answer, 'Encrypt');
    }
    const { name, key } = this.#publicKey;
    return { key: name, algorithm: RSA, wrapped: wrapRsaOaep(this.key, key, plaintext) };
  }

  async unwrap(
    { key: name, algorithm, wrapped }: WrappedKey,
    context: EncryptionContext,
    signal: AbortSignal,
  ): Promise<Uint8Array> {
    const { key } = this;
    // Packets of other programs name no algorithm; theirs is the service's default.
    const asked = algorithm === '' ? SYMMETRIC : algorithm;
    const isKnown = asked === SYMMETRIC || asked === RSA;
    if (!isKnown || wrapped.length === 0 || wrapped.length > MAXIMUM_WRAPPED_BYTES) throw cannotBeUnwrapped(key);
    const request = {
      KeyId: this.#uri.key,
      CiphertextBlob: wrapped,
      EncryptionAlgorithm: asked,
      EncryptionContext: asked === SYMMETRIC ? contextMember(context) : undefined,
    };
    const answer = await this.#call('Decrypt', request, signal);
    if (answer.status !== 200) throw this.#explain(answer, 'Decrypt');
    try {
      const message = readAnswer('AWS KMS', key, answer.body);
      const answered = readKeyId(this.#uri.key, message);
      if (answered === undefined) throw damaged(key, 'another key answered');
      if (!isKeyOfPacket(name, answered)) throw cannotBeUnwrapped(key);
      if (!isAlgorithm(message, asked)) throw damaged(key, 'another algorithm');
      const plaintext = asBytes(message.get('Plaintext'));
      if (plaintext === undefined) throw damaged(key, 'no Plaintext');
      return plaintext;
    } finally {
      wipe(answer.body);
    }
  }

  close(): void {
    this.#opened?.http.close();
  }

  #open(): Opened {
    if (this.#opened !== undefined) return this.#opened;
    const settings = this.#settings;
    const profiles = readAwsProfiles(settings.environment);
    const place = findAwsPlace(this.#uri, settings, profiles);
    const trusted = {
      ...settings,
      caFiles: [...(settings.caFiles ?? []), ...findBundle(settings.environment, profiles)],
    };
    const http = createHttpClient(trusted);
    const credentials = CREDENTIALS.get(settings, '', () =>
      openAwsCredentials(settings.environment, http, place.region),
    );
    this.#opened = { http, place, credentials };
    return this.#opened;
  }

  /** One call, made again once with new credentials if the service says that the first ones have ended. */
  async #call(operation: AwsOperation, message: JsonInput, signal: AbortSignal): Promise<HttpResponse> {
    const opened = this.#open();
    const { credentials } = opened;
    const body = writeJson(message);
    try {
      const answer = await send(opened, await credentials.read(signal), operation, body, signal);
      if (!isExpired(answer)) return answer;
      credentials.forget();
      return await send(opened, await credentials.read(signal), operation, body, signal);
    } finally {
      wipe(body);
    }
  }

  #explain(answer: HttpResponse, operation: AwsOperation): OcicryptError {
    const { region } = this.#open().place;
    return explainAwsError(answer, { key: this.key, keyId: this.#uri.key, region, operation });
  }

  #readEncrypted(body: Uint8Array): WrappedKey {
    const { key } = this;
    const message = readAnswer('AWS KMS', key, body);
    const name = readKeyId(this.#uri.key, message);
    if (name === undefined) throw damaged(key, 'another key answered');
    const wrapped = asBytes(message.get('CiphertextBlob')) ?? new Uint8Array(0);
    if (wrapped.length === 0 || wrapped.length > MAXIMUM_WRAPPED_BYTES) throw damaged(key, 'no CiphertextBlob');
    if (!isAlgorithm(message, SYMMETRIC)) throw damaged(key, 'another algorithm');
    return { key: name, algorithm: SYMMETRIC, wrapped };
  }

  /** Undefined if this is not an RSA key, or its public half cannot be fetched: what `Encrypt` said matters then. */
  async #readPublicKey(signal: AbortSignal): Promise<{ readonly name: string; readonly key: KeyObject } | undefined> {
    const keyId = this.#uri.key;
    const answer = await this.#call('GetPublicKey', { KeyId: keyId }, signal);
    if (answer.status !== 200) {
      const error = this.#explain(answer, 'GetPublicKey');
      if (error.retryable) throw error;
      return undefined;
    }
    const message = readAnswer('AWS KMS', this.key, answer.body);
    const name = readKeyId(keyId, message);
    const algorithms = asArray(message.get('EncryptionAlgorithms')) ?? [];
    const der = asBytes(message.get('PublicKey'));
    const rsa = der === undefined ? undefined : readRsaPublicKey(der);
    if (name === undefined) throw damaged(this.key, 'another key answered');
    if (rsa === undefined || !algorithms.some((algorithm) => asText(algorithm) === RSA)) return undefined;
    return { name, key: rsa };
  }
}

async function send(
  { http, place }: Opened,
  identity: AwsIdentity,
  operation: AwsOperation,
  body: Uint8Array,
  signal: AbortSignal,
): Promise<HttpResponse> {
  const url = `${place.endpoint}/`;
  const headers = await signAwsRequest(
    {
      url,
      region: place.region,
      service: 'kms',
      headers: { 'content-type': 'application/x-amz-json-1.1', 'x-amz-target': `TrentService.${operation}` },
      body,
    },
    identity,
  );
  return http.request({ method: 'POST', url, headers, body, signal, maximumBytes: MAXIMUM_ANSWER_BYTES });
}

/** The authorities that AWS's own tools are told to trust. */
function findBundle(environment: NodeJS.ProcessEnv, profiles: AwsProfiles): readonly string[] {
  const bundle = environment.AWS_CA_BUNDLE || profiles.profile(profiles.name)?.get('ca_bundle');
  return bundle ? [expandHome(bundle, environment)] : [];
}

/** The service takes no empty one. */
function contextMember(context: EncryptionContext): EncryptionContext | undefined {
  return Object.keys(context).length === 0 ? undefined : context;
}

/** The canonical URI of the ARN that answered, or undefined if it is not the key that was asked. */
function readKeyId(asked: string, message: JsonObject): string | undefined {
  const text = asText(message.get('KeyId')) ?? '';
  const uri = asKeyUri(text);
  const answered = uri?.scheme === 'awskms' ? parseAwsArn(uri.key) : undefined;
  if (uri?.scheme !== 'awskms' || answered === undefined || !answered.resource.startsWith('key/')) return undefined;
  return isAnswerFor(asked, uri.key) ? formatKeyUri(uri) : undefined;
}

/** An alias may be any key, one with an ARN any key of its account and region. */
function isAnswerFor(asked: string, answered: string): boolean {
  const [askedArn, answeredArn] = [parseAwsArn(asked), parseAwsArn(answered)];
  if (asked.startsWith('alias/')) return true;
  if (askedArn === undefined) return answeredArn?.resource === `key/${asked}`;
  if (!askedArn.resource.startsWith('alias/')) return asked === answered;
  return (
    askedArn.partition === answeredArn?.partition &&
    askedArn.region === answeredArn.region &&
    askedArn.account === answeredArn.account
  );
}

/** Packets of ours hold the ARN that wrapped; those of other programs may hold an id or an alias, which says less. */
function isKeyOfPacket(name: string, answered: string): boolean {
  const [packet, answer] = [keyOf(name), keyOf(answered)];
  if (packet === undefined || answer === undefined) return false;
  return parseAwsArn(packet)?.resource.startsWith('key/') ? isSameAwsKey(packet, answer) : isAnswerFor(packet, answer);
}

function keyOf(name: string): string | undefined {
  const uri = asKeyUri(name);
  return uri?.scheme === 'awskms' ? uri.key : undefined;
}

/** Services that stand in for AWS's may leave it out: the request has said it. */
function isAlgorithm(message: JsonObject, asked: string): boolean {
  return (asText(message.get('EncryptionAlgorithm')) ?? asked) === asked;
}

function damaged(key: string, how: string): OcicryptError {
  return damagedAnswer('AWS KMS', key, how);
}
