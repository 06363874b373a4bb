// What a refusal of Google Cloud KMS means here, and what the operator should do about it.
// https://cloud.google.com/apis/design/errors

import { type ErrorCode, type ErrorDetails, OcicryptError } from '../base/errors.ts';
import { type HttpResponse, parseRetryAfter } from '../base/http.ts';
import { asArray, asObject, asText, type JsonObject, parseJson } from '../base/json.ts';
import type { KeyUri } from '../base/key-uri.ts';
import { cannotBeUnwrapped } from './kek.ts';

export type GoogleKmsMethod = 'asymmetricDecrypt' | 'decrypt' | 'encrypt' | 'getPublicKey' | 'list';

/** The call that was refused. */
export type GoogleKmsCall = {
  /** The canonical URI of the operator's key. */
  readonly key: string;
  readonly uri: Extract<KeyUri, { scheme: 'gcpkms' }>;
  readonly method: GoogleKmsMethod;
};

/** The least role that permits a call. */
const ROLES: { readonly [method in GoogleKmsMethod]: string } = {
  asymmetricDecrypt: 'roles/cloudkms.cryptoKeyDecrypter',
  decrypt: 'roles/cloudkms.cryptoKeyDecrypter',
  encrypt: 'roles/cloudkms.cryptoKeyEncrypter',
  getPublicKey: 'roles/cloudkms.publicKeyViewer',
  list: 'roles/cloudkms.viewer',
};

type Refusal = {
  /** Whether Google said it, by its form. */
  readonly isGoogle: boolean;
  /** `google.rpc.Code`, empty where something else than Google answered. */
  readonly status: string;
  readonly message: string;
  /** `reason` of `google.rpc.ErrorInfo`. */
  readonly reason: string;
  /** Milliseconds of `google.rpc.RetryInfo`. */
  readonly retryDelay: number | undefined;
};

/**
 * The error for an answer that is not 200. Its text is ours: Google's may name what the caller should not learn, and
 * whatever answered in Google's place may have written anything.
 */
export function explainGoogleError(answer: HttpResponse, call: GoogleKmsCall): OcicryptError {
  const refusal = readRefusal(answer.body);
  const { key } = call;
  const retryAfter = parseRetryAfter(answer.headers) ?? refusal.retryDelay;
  const fail = (code: ErrorCode, message: string, details: ErrorDetails) => new OcicryptError(code, message, details);

  // What a middlebox refuses has another form: of Google's own, `error` is an object.
  if (!refusal.isGoogle && answer.status < 500 && answer.status !== 408 && answer.status !== 429) {
    return unknownAnswer(answer.status, call);
  }
  switch (answer.status) {
    case 400:
      return explainBadRequest(refusal, call);
    case 401:
      return fail('unauthenticated', `Google does not accept the credentials for ${key}`, {
        hint: 'try them with: gcloud auth application-default print-access-token',
      });
    case 403:
      return explainForbidden(refusal, call);
    case 404:
      return fail('not-found', `there is no key ${key}`, {
        hint: `compare with: gcloud kms keys list ${ringFlags(call)}`,
      });
    case 429:
      return fail('throttled', `Google KMS is throttling calls for ${key}`, {
        hint: `try again later, or raise the quota of project ${names(call).project}`,
        retryable: true,
        ...(retryAfter === undefined ? {} : { retryAfter }),
      });
    case 408:
    case 500:
    case 502:
    case 503:
    case 504:
      return fail('unavailable', `Google KMS is unavailable for ${key} (${answer.status})`, {
        hint: 'try again later; https://status.cloud.google.com shows outages',
        retryable: true,
        ...(retryAfter === undefined ? {} : { retryAfter }),
      });
    default:
      return unknownAnswer(answer.status, call);
  }
}

function unknownAnswer(status: number, { key }: GoogleKmsCall): OcicryptError {
  return new OcicryptError('unavailable', `something that is not Google KMS answered for ${key} (${status})`, {
    hint: 'check the endpoint and the proxy',
  });
}

/**
 * Whether a refusal of `encrypt` may be about an asymmetric key: its purpose is wrong, or the credentials may only see
 * its public half.
 */
export function mayBeAsymmetric(answer: HttpResponse): boolean {
  const { isGoogle, status, message, reason } = readRefusal(answer.body);
  if (!isGoogle) return false;
  if (answer.status === 403) return reason === '' || reason === 'IAM_PERMISSION_DENIED';
  if (answer.status !== 400 || reason === 'API_KEY_INVALID') return false;
  return status === 'FAILED_PRECONDITION' || (status === 'INVALID_ARGUMENT' && !isAboutChecksum(message));
}

function explainBadRequest({ status, message, reason }: Refusal, call: GoogleKmsCall): OcicryptError {
  const { key, method } = call;
  if (status === 'FAILED_PRECONDITION') {
    return new OcicryptError('key-disabled', `${key} is disabled or destroyed`, {
      hint: `see: gcloud kms keys versions list ${keyFlags(call)}${orNameVersion(call)}`,
    });
  }
  if (reason === 'API_KEY_INVALID') {
    return new OcicryptError('unauthenticated', `Google does not accept the credentials for ${key}`);
  }
  if (status !== 'INVALID_ARGUMENT') {
    return unknownAnswer(400, call);
  }
  if (isAboutChecksum(message)) {
    return new OcicryptError('integrity', `the request to Google KMS about ${key} was damaged on its way`, {
      hint: 'something between here and the service changes data: check proxies and middleboxes',
      retryable: true,
    });
  }
  if (method === 'decrypt' || method === 'asymmetricDecrypt') return cannotBeUnwrapped(key);
  return new OcicryptError('configuration', `${key} cannot encrypt this`, {
    hint: `its purpose must be ENCRYPT_DECRYPT, or ASYMMETRIC_DECRYPT; see: gcloud kms keys describe ${lastFlag(call)}${orNameVersion(call)}`,
  });
}

function isAboutChecksum(message: string): boolean {
  return /crc32c|checksum/i.test(message);
}

/** To find the newest version of an asymmetric key takes a permission that nobody else needs. */
function orNameVersion({ key, uri, method }: GoogleKmsCall): string {
  if (method !== 'encrypt' || uri.version !== undefined) return '';
  return `; of an asymmetric key name a version: ${key}/cryptoKeyVersions/N`;
}

function explainForbidden({ reason }: Refusal, call: GoogleKmsCall): OcicryptError {
  const { key, method } = call;
  const { project } = names(call);
  switch (reason) {
    case 'SERVICE_DISABLED':
      return new OcicryptError('configuration', `the Cloud KMS API is not enabled for ${key}`, {
        hint: `gcloud services enable cloudkms.googleapis.com --project ${project}`,
      });
    case 'BILLING_DISABLED':
      return new OcicryptError('configuration', `billing is disabled for ${key}`, {
        hint: `link a billing account to project ${project}`,
      });
    case 'CONSUMER_INVALID':
      return new OcicryptError('not-found', `there is no key ${key}`, {
        hint: `project ${project} does not exist, or not for these credentials`,
      });
    case 'USER_PROJECT_DENIED':
      return new OcicryptError('refused', `the quota project may not be used for ${key}`, {
        hint: 'grant roles/serviceusage.serviceUsageConsumer on it, or name another quota project',
      });
    case 'ACCESS_TOKEN_SCOPE_INSUFFICIENT':
      return new OcicryptError('unauthenticated', `the credentials for ${key} lack the scope of Cloud KMS`, {
        hint: 'they need https://www.googleapis.com/auth/cloud-platform or …/auth/cloudkms',
      });
    default: {
      return new OcicryptError('refused', `Google KMS does not permit these credentials to ${method} with ${key}`, {
        hint: `gcloud kms keys add-iam-policy-binding ${lastFlag(call)} --member serviceAccount:EMAIL --role ${ROLES[method]}`,
      });
    }
  }
}

/** `{"error": google.rpc.Status}`; anything else is an empty refusal. */
function readRefusal(body: Uint8Array): Refusal {
  let error: JsonObject | undefined;
  try {
    error = asObject(asObject(parseJson(body, 'the answer'))?.get('error'));
  } catch {}
  const details = (asArray(error?.get('details')) ?? []).map((detail) => asObject(detail));
  const find = (member: string) =>
    details.map((detail) => asText(detail?.get(member))).find((text) => text !== undefined);
  const delay = /^(\d{1,6}(?:\.\d{1,9})?)s$/.exec(find('retryDelay') ?? '');
  return {
    isGoogle: error !== undefined,
    status: asText(error?.get('status')) ?? '',
    message: asText(error?.get('message')) ?? '',
    reason: find('reason') ?? '',
    retryDelay: delay === null ? undefined : Math.ceil(Number(delay[1]) * 1000),
  };
}

function names({ uri }: GoogleKmsCall): { project: string; location: string; ring: string; key: string } {
  const [, project = '', , location = '', , ring = '', , key = ''] = uri.key.split('/');
  return { project, location, ring, key };
}

/** The flags of gcloud's `kms` commands, in the three shapes that they have. */
function ringFlags(call: GoogleKmsCall): string {
  const { project, location, ring } = names(call);
  return `--project ${project} --location ${location} --keyring ${ring}`;
}

function keyFlags(call: GoogleKmsCall): string {
  return `${ringFlags(call)} --key ${names(call).key}`;
}

function lastFlag(call: GoogleKmsCall): string {
  return `${names(call).key} ${ringFlags(call)}`;
}
