// What a refusal of Google Cloud KMS means here, and what the operator should do about it.
// https://cloud.google.com/apis/design/errors

import { type ErrorCode, type ErrorDetails, OcicryptError } from '../../base/errors.ts';
import { parseRetryAfter } from '../../base/http/client.ts';
import type { HttpResponse } from '../../base/http/contract.ts';
import { asArray, asObject, asText, type JsonObject, parseJson } from '../../base/json.ts';
import type { KeyUri } from '../../base/key-uri.ts';
import { setting } from '../../base/setting.ts';
import { cannotBeUnwrapped } from '../kek.ts';

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
  /** `google.rpc.Code`, empty if something else than Google answered. */
  readonly status: string;
  readonly message: string;
  /** `reason` of `google.rpc.ErrorInfo`. */
  readonly reason: string;
  /** Types of the violations of `google.rpc.PreconditionFailure`. */
  readonly violations: readonly string[];
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
        hint: 'try them with: gcloud auth application-default print-access-token; a clock that is off has the same effect: date',
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
        retryAfter,
      });
    case 412:
      return explainPrecondition(refusal, call);
    case 501:
      return fail('configuration', `the service of ${key} does not know this call (501)`, {
        hint: `check ${setting('gcpkms.endpoint')}: it must be Cloud KMS, REST v1`,
      });
    case 408:
    // Aborted, because another request came first, and cancelled.
    case 409:
    case 499:
    case 500:
    case 502:
    case 503:
    case 504:
      return fail('unavailable', `Google KMS is unavailable for ${key} (${answer.status})`, {
        hint: 'try again later; https://status.cloud.google.com shows outages',
        retryable: true,
        retryAfter,
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
  const { isGoogle, status, message, reason, violations } = readRefusal(answer.body);
  if (!isGoogle || PERIMETER.test([message, ...violations].join(' '))) return false;
  if (answer.status === 403) return reason === '' || reason === 'IAM_PERMISSION_DENIED';
  if (answer.status !== 400 || reason === 'API_KEY_INVALID') return false;
  return status === 'FAILED_PRECONDITION' || (status === 'INVALID_ARGUMENT' && !isAboutChecksum(message));
}

function explainBadRequest(refusal: Refusal, call: GoogleKmsCall): OcicryptError {
  const { status, message, reason } = refusal;
  const { key } = call;
  if (status === 'FAILED_PRECONDITION') return explainPrecondition(refusal, call);
  if (reason === 'API_KEY_INVALID') {
    return new OcicryptError('unauthenticated', `Google does not accept the credentials for ${key}`);
  }
  if (status !== 'INVALID_ARGUMENT') return unknownAnswer(400, call);
  if (isAboutChecksum(message)) {
    return new OcicryptError('integrity', `the request to Google KMS about ${key} was damaged on its way`, {
      hint: 'something between here and the service changes data: check proxies and middleboxes',
      retryable: true,
    });
  }
  return wrongPurpose(call);
}

/** States of a version that end by themselves, and those that do not. */
const PASSING_STATE = /^PENDING_(?:GENERATION|IMPORT)$/;
const LASTING_STATE =
  /^(?:DISABLED|DESTROYED|DESTROY_SCHEDULED|IMPORT_FAILED|GENERATION_FAILED|PENDING_EXTERNAL_DESTRUCTION|EXTERNAL_DESTRUCTION_FAILED)$/;

/**
 * What a precondition is about: the state of the version, the manager of an external key (its "error domain" is a
 * violation beside the state), the API of the project, or the purpose of the key.
 * https://cloud.google.com/kms/docs/reference/ekm_errors
 */
function explainPrecondition({ message, violations }: Refusal, call: GoogleKmsCall): OcicryptError {
  const external = violations.find((type) => /^EXTERNAL_[A-Z_]{1,60}$/.test(type));
  if (external !== undefined) return explainExternal(external, call);
  const said = /current state is: ([A-Z_]+)/.exec(message)?.[1];
  const states = [said ?? '', ...violations.map((type) => type.replace(/^KEY_/, ''))];
  if (states.some((state) => PASSING_STATE.test(state))) {
    return new OcicryptError('unavailable', `the version of ${call.key} is still being made`, {
      hint: `it takes seconds or minutes; see: gcloud kms keys versions list ${keyFlags(call)}`,
      retryable: true,
    });
  }
  const state = states.find((one) => LASTING_STATE.test(one));
  if (state !== undefined) {
    return new OcicryptError('key-disabled', `the version of ${call.key} that is needed cannot be used (${state})`, {
      hint: `see: gcloud kms keys versions list ${keyFlags(call)}; gcloud kms keys versions enable, or restore before enable`,
    });
  }
  if (/has not been used in (?:this )?project/.test(message)) return FORBIDDEN.SERVICE_DISABLED(call);
  return wrongPurpose(call);
}

/** What may be otherwise the next time, by the words in the error domain. */
const PASSING_DOMAIN = /TIMEOUT|TIMED_OUT|UNAVAILABLE|UNREACHABLE|INTERNAL|EXHAUSTED|ABORTED|DEADLINE/;

function explainExternal(domain: string, { key }: GoogleKmsCall): OcicryptError {
  const isPassing = PASSING_DOMAIN.test(domain);
  const code = isPassing
    ? 'unavailable'
    : /PERMISSION_DENIED/.test(domain)
      ? 'refused'
      : /NOT_FOUND/.test(domain)
        ? 'not-found'
        : 'configuration';
  return new OcicryptError(code, `the external key manager of ${key} does not do it (${domain})`, {
    hint: 'look there: the key, the rights of Google’s service account, the network; https://cloud.google.com/kms/docs/reference/ekm_errors has each',
    retryable: isPassing,
  });
}

/** MAC, raw, signing and key-encapsulation keys are refused in this way, too. What was to be unwrapped is not the key's. */
function wrongPurpose(call: GoogleKmsCall): OcicryptError {
  if (call.method === 'decrypt' || call.method === 'asymmetricDecrypt') return cannotBeUnwrapped(call.key);
  return new OcicryptError('configuration', `${call.key} cannot encrypt this`, {
    hint: `its purpose must be ENCRYPT_DECRYPT, or ASYMMETRIC_DECRYPT, and no MAC, raw, signing or encapsulation; see: gcloud kms keys describe ${lastFlag(call)}${orNameVersion(call)}`,
  });
}

function isAboutChecksum(message: string): boolean {
  return /crc32c|checksum/i.test(message);
}

/** To find the newest version of an asymmetric key takes a permission that nothing else needs. */
function orNameVersion(call: GoogleKmsCall): string {
  const { key, method, uri } = call;
  if (method !== 'encrypt' || uri.version !== undefined) return '';
  return `; of an asymmetric key name a version: ${key}/cryptoKeyVersions/N, or grant roles/cloudkms.viewer to find it`;
}

type Explain = (call: GoogleKmsCall) => OcicryptError;

const refuse =
  (code: ErrorCode, what: (call: GoogleKmsCall) => string, hint: (call: GoogleKmsCall) => string): Explain =>
  (call) =>
    new OcicryptError(code, what(call), { hint: hint(call) });

const perimeter = refuse(
  'refused',
  ({ key }) => `VPC Service Controls do not let ${key} be used from here`,
  () =>
    'no role helps: the call must come from inside of the perimeter, or an access level or ingress rule must let it in; Google’s audit log has the id of the violation',
);
const suspended = refuse(
  'refused',
  (call) => `project ${names(call).project} of ${call.key} is suspended`,
  () => 'no role helps: see the billing account and the notices of the project',
);
const organization = refuse(
  'refused',
  ({ key }) => `a policy of the organization does not let ${key} be used from here`,
  () =>
    'no role helps: ask the administrators of the organization (locations, restrictions of organizations and of resources)',
);

/** Reasons of `google.rpc.ErrorInfo`: https://github.com/googleapis/googleapis, google/api/error_reason.proto */
const FORBIDDEN = {
  SERVICE_DISABLED: refuse(
    'configuration',
    ({ key }) => `the Cloud KMS API is not enabled for ${key}`,
    (call) => `gcloud services enable cloudkms.googleapis.com --project ${names(call).project}`,
  ),
  BILLING_DISABLED: refuse(
    'configuration',
    ({ key }) => `billing is disabled for ${key}`,
    (call) => `link a billing account to project ${names(call).project}`,
  ),
  CONSUMER_INVALID: refuse(
    'not-found',
    ({ key }) => `there is no key ${key}`,
    (call) => `project ${names(call).project} does not exist, or not for these credentials`,
  ),
  USER_PROJECT_DENIED: refuse(
    'refused',
    ({ key }) => `the quota project may not be used for ${key}`,
    () => 'grant roles/serviceusage.serviceUsageConsumer on it, or name another quota project',
  ),
  ACCESS_TOKEN_SCOPE_INSUFFICIENT: refuse(
    'unauthenticated',
    ({ key }) => `the credentials for ${key} lack the scope of Cloud KMS`,
    () => 'they need https://www.googleapis.com/auth/cloud-platform or …/auth/cloudkms',
  ),
  SECURITY_POLICY_VIOLATED: perimeter,
  CONSUMER_SUSPENDED: suspended,
  GCP_SUSPENDED: suspended,
  LOCATION_POLICY_VIOLATED: organization,
  LOCATION_TAX_POLICY_VIOLATED: organization,
  ORG_RESTRICTION_VIOLATION: organization,
  ORG_RESTRICTION_HEADER_INVALID: organization,
  RESOURCE_USAGE_RESTRICTION_VIOLATED: organization,
} as const satisfies Readonly<Record<string, Explain>>;

function isKnownReason(reason: string): reason is keyof typeof FORBIDDEN {
  return Object.hasOwn(FORBIDDEN, reason);
}

/** The perimeter's refusal has an id in its text, whatever else it has. */
const PERIMETER = /vpcServiceControlsUniqueIdentifier|VPC_SERVICE_CONTROLS/;

function explainForbidden({ reason, message, violations }: Refusal, call: GoogleKmsCall): OcicryptError {
  const { key, method } = call;
  if (PERIMETER.test([message, ...violations].join(' '))) return perimeter(call);
  if (isKnownReason(reason)) return FORBIDDEN[reason](call);
  return new OcicryptError('refused', `Google KMS does not permit these credentials to ${method} with ${key}`, {
    hint: `gcloud kms keys add-iam-policy-binding ${lastFlag(call)} --member serviceAccount:EMAIL --role ${ROLES[method]}${orNameVersion(call)}`,
  });
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
    violations: details
      .flatMap((detail) => asArray(detail?.get('violations')) ?? [])
      .flatMap((violation) => asText(asObject(violation)?.get('type')) ?? []),
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
