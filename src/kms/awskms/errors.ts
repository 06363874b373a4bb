// What a refusal of AWS KMS means here, and what the operator should do about it.
// https://docs.aws.amazon.com/kms/latest/APIReference/CommonErrors.html

import { parseAwsArn } from '../../base/aws-arn.ts';
import { OcicryptError } from '../../base/errors.ts';
import { parseRetryAfter } from '../../base/http/client.ts';
import type { HttpResponse } from '../../base/http/contract.ts';
import { asText, readObject } from '../../base/json.ts';
import { foreignAnswer } from '../answers.ts';
import { cannotBeUnwrapped } from '../kek.ts';

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
  'InternalError',
  'InternalFailure',
  'KMSInternalException',
  'KeyUnavailableException',
  'RequestTimeout',
  'RequestTimeoutException',
  'ServiceUnavailable',
  'ServiceUnavailableException',
  'TimeoutError',
]);
/** Those that botocore and the SDK for JavaScript call throttling. */
const THROTTLED = new Set([
  'BandwidthLimitExceeded',
  'EC2ThrottledException',
  'LimitExceededException',
  'PriorRequestNotComplete',
  'ProvisionedThroughputExceededException',
  'RequestLimitExceeded',
  'RequestThrottled',
  'RequestThrottledException',
  'SlowDown',
  'ThrottledException',
  'Throttling',
  'ThrottlingException',
  'TooManyRequestsException',
  'TransactionInProgressException',
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
  'RequestInTheFuture',
  'RequestTimeTooSkewed',
  'SignatureDoesNotMatch',
  'UnrecognizedClientException',
]);
const EXPIRED = new Set(['ExpiredToken', 'ExpiredTokenException']);

/**
 * States of a key that pass by themselves, by what the service says of them: a key that is being made, and key stores
 * outside of AWS that are slow, busy or out of reach.
 * https://docs.aws.amazon.com/kms/latest/developerguide/xks-troubleshooting.html
 */
const PASSING_STATE =
  /retry the request|did not respond in time|cannot communicate with|very high request rate|is creating/i;
/** We name a key, and the ciphertext names another one: nothing that a permission would mend. */
const OTHER_CIPHERTEXT = /^the ciphertext refers to|on the resource associated with this ciphertext because/i;

/**
 * The error for an answer that is not 200. Its text is ours: AWS's may name what the caller should not learn, and
 * whatever answered in AWS's place may have written anything.
 */
export function explainAwsError(answer: HttpResponse, call: AwsCall): OcicryptError {
  const type = readErrorType(answer);
  const { key } = call;
  const text = readMember(answer.body, 'message') ?? readMember(answer.body, 'Message') ?? '';
  const retryAfter = readWait(answer.headers);
  if (THROTTLED.has(type) || answer.status === 429) {
    return new OcicryptError('throttled', `AWS KMS is throttling calls for ${key}`, {
      hint: `try again later, or raise the quota of cryptographic operations in ${call.region}`,
      retryable: true,
      retryAfter,
    });
  }
  if (
    TRANSIENT.has(type) ||
    (type === 'KMSInvalidStateException' && PASSING_STATE.test(text)) ||
    [408, 500, 502, 503, 504].includes(answer.status)
  ) {
    return new OcicryptError('unavailable', `AWS KMS is unavailable for ${key} (${answer.status})`, {
      hint: 'try again later; https://health.aws.amazon.com shows outages',
      retryable: true,
      retryAfter,
    });
  }
  if (UNAUTHENTICATED.has(type) || EXPIRED.has(type)) {
    return new OcicryptError('unauthenticated', `AWS does not accept the credentials for ${key}`, {
      hint: 'try them with: aws sts get-caller-identity; a clock that is minutes off has the same effect',
    });
  }
  if (type === 'AccessDeniedException') return explainDenial(text, call);
  return explainType(type, call) ?? unknownAnswer(answer.status, call);
}

/** Whether newer credentials may be accepted where these were not. */
export function isExpired(answer: HttpResponse): boolean {
  return EXPIRED.has(readErrorType(answer));
}

/**
 * `Encrypt` says one of these of an RSA key, for which it has another algorithm, which only the public may use, or which
 * takes no encryption context.
 */
export function mayBeAsymmetric(answer: HttpResponse): boolean {
  return ['AccessDeniedException', 'InvalidKeyUsageException', 'ValidationException'].includes(readErrorType(answer));
}

/** Which of the policies that could have said no did, by the service's own words; a grant helps against few of them. */
const DENIALS: readonly (readonly [said: RegExp, hint: string])[] = [
  [
    /service control policy/i,
    "a service control policy of the organization forbids it: its administrators can change that, the key's policy cannot",
  ],
  [
    /resource control policy/i,
    "a resource control policy of the organization forbids it: its administrators can change that, the key's policy cannot",
  ],
  [/VPC endpoint polic/i, 'the policy of the VPC endpoint forbids it: aws ec2 describe-vpc-endpoints shows it'],
  [/permissions boundary/i, 'the permissions boundary of the role or user forbids it: aws iam get-role shows it'],
  [/session polic/i, 'the policy that the role was assumed with forbids it'],
  [/explicit deny in an identity-based policy/i, 'a policy of the role or user denies it'],
  [/with an explicit deny in an? (?:resource|key)/i, "a statement of the key's policy denies it"],
];

function explainDenial(text: string, call: AwsCall): OcicryptError {
  const { key, operation, region } = call;
  if (OTHER_CIPHERTEXT.test(text)) return cannotBeUnwrapped(key);
  const grant = `allow kms:${operation} in the key's policy, or run: aws kms create-grant ${flags(call)} --operations ${operation} --grantee-principal ROLE-ARN`;
  const missing = `there may be no such key in ${region}; else ${grant}`;
  const denial = DENIALS.find(([said]) => said.test(text))?.[1];
  return new OcicryptError('refused', `AWS KMS does not permit kms:${operation} with ${key} to these credentials`, {
    hint: denial ?? (/does not exist in this Region/i.test(text) ? missing : grant),
  });
}

function explainType(type: string, call: AwsCall): OcicryptError | undefined {
  const { key, operation } = call;
  switch (type) {
    case 'IncorrectKeyException':
    case 'InvalidCiphertextException':
      return cannotBeUnwrapped(key);
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
      // The packet named an algorithm that is not the key's.
      if (operation === 'Decrypt') return cannotBeUnwrapped(key);
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
  return foreignAnswer('AWS KMS', key, status);
}

/** What the SDKs take from answers: seconds or a date, or AWS's own header in milliseconds. */
function readWait(headers: HttpResponse['headers']): number | undefined {
  const milliseconds = headers['x-amz-retry-after'];
  return milliseconds !== undefined && /^\d{1,9}$/.test(milliseconds) ? Number(milliseconds) : parseRetryAfter(headers);
}

/** `__type` may have a namespace before `#`; empty if something else than AWS answered. */
function readErrorType(answer: HttpResponse): string {
  const named =
    answer.headers['x-amzn-errortype'] ?? readMember(answer.body, '__type') ?? readMember(answer.body, 'code');
  return (named ?? '').replace(/^.*#/, '').replace(/:.*$/, '');
}

function readMember(body: Uint8Array, name: string): string | undefined {
  return asText(readObject(body)?.get(name));
}

function flags({ keyId, region }: AwsCall): string {
  return `--region ${region} --key-id ${parseAwsArn(keyId)?.resource.replace(/^key\//, '') ?? keyId}`;
}
