// What a refusal of Google Cloud KMS means here, and what the operator should do about it.
// https://cloud.google.com/apis/design/errors

import { type ErrorCode, type ErrorDetails, OcicryptError } from '../../base/errors.ts';
import { parseRetryAfter } from '../../base/http/client.ts';
import type { HttpResponse } from '../../base/http/contract.ts';
import { setting } from '../../base/setting.ts';
import { foreignAnswer } from '../answers.ts';
import { cannotBeUnwrapped } from '../kek.ts';
import { apiDisabled, explainForbidden, isByPerimeter } from './forbidden.ts';
import { type GoogleKmsCall, keyFlags, lastFlag, names, orNameVersion, ringFlags } from './gcloud.ts';
import { type Refusal, readRefusal } from './refusal.ts';

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
  return foreignAnswer('Google KMS', key, status);
}

/**
 * Whether a refusal of `encrypt` may be about an asymmetric key: its purpose is wrong, or the credentials may only see
 * its public half.
 */
export function mayBeAsymmetric(answer: HttpResponse): boolean {
  const refusal = readRefusal(answer.body);
  const { isGoogle, status, message, reason } = refusal;
  if (!isGoogle || isByPerimeter(refusal)) return false;
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
  if (/has not been used in (?:this )?project/.test(message)) return apiDisabled(call);
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
