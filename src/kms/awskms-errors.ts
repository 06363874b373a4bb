// What a refusal of AWS KMS means here, and what the operator should do about it.
// https://docs.aws.amazon.com/kms/latest/APIReference/CommonErrors.html

import { parseAwsArn } from '../base/aws-arn.ts';
import { OcicryptError } from '../base/errors.ts';
import { type HttpResponse, parseRetryAfter } from '../base/http.ts';
import { asObject, asText, parseJson } from '../base/json.ts';
import { cannotBeUnwrapped } from './kek.ts';

/** The operation, named as in `X-Amz-Target` and in IAM actions. */
export type AwsOperation = 'Decrypt' | 'Encrypt' | 'GetPublicKey';

/** The call that was refused. */
export type AwsCall = {
  /** The canonical URI of the operator's key. */
  readonly key: string;
  /** The key as it was sent: an ARN, an id or an alias. */
  readonly keyId: string;
  readonly region: string;
  readonly operation: AwsOperation;
};

/** The SDK calls these worth a retry, beside throttling and the statuses of a broken server. */
const TRANSIENT = new Set([
  'DependencyTimeoutException',
  'InternalFailure',
  'KMSInternalException',
  'KeyUnavailableException',
  'RequestTimeout',
  'RequestTimeoutException',
  'ServiceUnavailable',
  'ServiceUnavailableException',
]);
const THROTTLED = new Set([
  'LimitExceededException',
  'RequestLimitExceeded',
  'Throttling',
  'ThrottlingException',
  'TooManyRequestsException',
]);
const UNAUTHENTICATED = new Set([
  'AuthFailure',
  'IncompleteSignature',
  'InvalidAccessKeyId',
  'InvalidClientTokenId',
  'InvalidSignatureException',
  'InvalidToken',
  'MissingAuthenticationToken',
  'MissingAuthenticationTokenException',
  'NotAuthorized',
  'OptInRequired',
  'RequestExpired',
  'SignatureDoesNotMatch',
  'UnrecognizedClientException',
]);
const EXPIRED = new Set(['ExpiredToken', 'ExpiredTokenException']);

/**
 * The error for an answer that is not 200. Its text is ours: AWS's may name what the caller should not learn, and
 * whatever answered in AWS's place may have written anything.
 */
export function explainAwsError(answer: HttpResponse, call: AwsCall): OcicryptError {
  const type = readErrorType(answer);
  const { key } = call;
  const retryAfter = parseRetryAfter(answer.headers);
  const wait = retryAfter === undefined ? {} : { retryAfter };
  if (THROTTLED.has(type) || answer.status === 429) {
    return new OcicryptError('throttled', `AWS KMS is throttling calls for ${key}`, {
      hint: `try again later, or raise the quota of cryptographic operations in ${call.region}`,
      retryable: true,
      ...wait,
    });
  }
  if (TRANSIENT.has(type) || [408, 500, 502, 503, 504].includes(answer.status)) {
    return new OcicryptError('unavailable', `AWS KMS is unavailable for ${key} (${answer.status})`, {
      hint: 'try again later; https://health.aws.amazon.com shows outages',
      retryable: true,
      ...wait,
    });
  }
  if (UNAUTHENTICATED.has(type) || EXPIRED.has(type)) {
    return new OcicryptError('unauthenticated', `AWS does not accept the credentials for ${key}`, {
      hint: 'try them with: aws sts get-caller-identity; a clock that is minutes off has the same effect',
    });
  }
  // We name a key, and the ciphertext names another one: nothing that a permission would mend.
  const foreign =
    type === 'AccessDeniedException' && /^the ciphertext refers to/i.test(readMember(answer.body, 'message') ?? '');
  return explainType(foreign ? 'IncorrectKeyException' : type, call) ?? unknownAnswer(answer.status, call);
}

/** Whether newer credentials may be accepted where these were not. */
export function isExpired(answer: HttpResponse): boolean {
  return EXPIRED.has(readErrorType(answer));
}

/** `Encrypt` says one of these of an RSA key, for which it has another algorithm or which only the public may use. */
export function mayBeAsymmetric(answer: HttpResponse): boolean {
  return ['AccessDeniedException', 'InvalidKeyUsageException'].includes(readErrorType(answer));
}

function explainType(type: string, call: AwsCall): OcicryptError | undefined {
  const { key, operation } = call;
  switch (type) {
    case 'IncorrectKeyException':
    case 'InvalidCiphertextException':
      return cannotBeUnwrapped(key);
    case 'AccessDeniedException':
      return new OcicryptError('refused', `AWS KMS does not permit kms:${operation} with ${key} to these credentials`, {
        hint: `allow kms:${operation} in the key's policy, or run: aws kms create-grant ${flags(call)} --operations ${operation} --grantee-principal ROLE-ARN`,
      });
    case 'NotFoundException':
    case 'InvalidArnException':
      return new OcicryptError('not-found', `there is no key ${key} in ${call.region}`, {
        hint: `compare with: aws kms list-aliases --region ${call.region}`,
      });
    case 'DisabledException':
      return new OcicryptError('key-disabled', `${key} is disabled`, {
        hint: `aws kms enable-key ${flags(call)}`,
      });
    case 'KMSInvalidStateException':
      return new OcicryptError('key-disabled', `${key} is not in a state in which it can be used`, {
        hint: `see KeyState of: aws kms describe-key ${flags(call)}`,
      });
    case 'InvalidKeyUsageException':
    case 'UnsupportedOperationException':
      return new OcicryptError('configuration', `${key} is not a key that can ${operation.toLowerCase()} this`, {
        hint: `its KeyUsage must be ENCRYPT_DECRYPT, and its KeySpec SYMMETRIC_DEFAULT or RSA: aws kms describe-key ${flags(call)}`,
      });
    case 'ValidationException':
      return new OcicryptError('configuration', `AWS KMS does not understand ${operation} with ${key}`, {
        hint: `compare with: aws kms describe-key ${flags(call)}`,
      });
    default:
      return undefined;
  }
}

function unknownAnswer(status: number, { key }: AwsCall): OcicryptError {
  return new OcicryptError('unavailable', `something that is not AWS KMS answered for ${key} (${status})`, {
    hint: 'check the endpoint and the proxy',
  });
}

/** `__type` may have a namespace before `#`; empty where something else than AWS answered. */
function readErrorType(answer: HttpResponse): string {
  const named = answer.headers['x-amzn-errortype'] ?? readMember(answer.body, '__type');
  return (named ?? '').replace(/^.*#/, '').replace(/:.*$/, '');
}

function readMember(body: Uint8Array, name: string): string | undefined {
  try {
    return asText(asObject(parseJson(body, 'the answer'))?.get(name));
  } catch {
    return undefined;
  }
}

function flags({ keyId, region }: AwsCall): string {
  return `--region ${region} --key-id ${parseAwsArn(keyId)?.resource.replace(/^key\//, '') ?? keyId}`;
}
