// Roles that AWS's token service lets somebody assume: with an access key, or with a token of another authority.
// https://docs.aws.amazon.com/STS/latest/APIReference/API_Operations.html

import { wipe } from '../../base/bytes.ts';
import { OcicryptError } from '../../base/errors.ts';
import type { HttpClient, HttpResponse } from '../../base/http/contract.ts';
import { type AwsIdentity, type AwsRole, checkIdentity } from './identity.ts';
import { readToken, refused } from './metadata.ts';
import { signAwsRequest } from './signature.ts';

/** @throws OcicryptError */
export async function assumeRole(
  role: AwsRole & { readonly externalId: string | undefined; readonly seconds: string },
  source: AwsIdentity,
  region: string,
  endpoint: string,
  http: HttpClient,
  signal: AbortSignal,
): Promise<AwsIdentity> {
  const more = role.externalId === undefined ? undefined : { ExternalId: role.externalId };
  const body = encodeForm('AssumeRole', role, { DurationSeconds: role.seconds, ...more });
  const url = `${endpoint}/`;
  const headers = await signAwsRequest({ url, region, service: 'sts', headers: FORM, body }, source);
  const answer = await http.request({ method: 'POST', url, headers, body, signal, role: 'token service' });
  return readCredentials(answer, url, role);
}

/** @throws OcicryptError */
export async function assumeRoleWithWebIdentity(
  role: AwsRole & { readonly tokenFile: string },
  endpoint: string,
  http: HttpClient,
  signal: AbortSignal,
): Promise<AwsIdentity> {
  const token = readToken(role.named, role.tokenFile).trim();
  if (!/^[!-~]{4,20000}$/.test(token)) {
    throw new OcicryptError('configuration', `the token file of ${role.named} does not hold a token`, {
      hint: 'it must hold a JWT, as Kubernetes and CI services write it',
    });
  }
  const body = encodeForm('AssumeRoleWithWebIdentity', role, { WebIdentityToken: token });
  try {
    const url = `${endpoint}/`;
    const answer = await http.request({ method: 'POST', url, headers: FORM, body, signal, role: 'token service' });
    return readCredentials(answer, url, role);
  } finally {
    wipe(body);
  }
}

const FORM = { 'content-type': 'application/x-www-form-urlencoded; charset=utf-8' };

function encodeForm(action: string, role: AwsRole, more: Readonly<Record<string, string>>): Uint8Array {
  const form = new URLSearchParams({
    Action: action,
    Version: '2011-06-15',
    RoleArn: role.role,
    RoleSessionName: role.session ?? `ocicrypt-kms-${Date.now()}`,
    ...more,
  });
  return new TextEncoder().encode(form.toString());
}

function readCredentials(answer: HttpResponse, url: string, role: AwsRole): AwsIdentity {
  const text = new TextDecoder().decode(answer.body);
  // XML whose values are base64, dates and ids: none of them has an entity.
  const read = (name: string) => new RegExp(`<${name}>([^<&]*)</${name}>`).exec(text)?.[1];
  if (answer.status !== 200) throw explain(answer, read('Code') ?? '', new URL(url).host, role);
  return checkIdentity(`the token service ${new URL(url).host}`, {
    accessKeyId: read('AccessKeyId'),
    secretAccessKey: read('SecretAccessKey'),
    sessionToken: read('SessionToken'),
    expiration: read('Expiration'),
  });
}

/** What each refusal means: https://docs.aws.amazon.com/STS/latest/APIReference/CommonErrors.html */
const REFUSALS: Readonly<Record<string, readonly [fault: string, hint: string]>> = {
  AccessDenied: [
    'may not be assumed by these credentials',
    'compare its trust policy with: aws sts get-caller-identity',
  ],
  ExpiredToken: ['cannot be assumed with credentials that have expired', 'renew those that it is assumed with'],
  ExpiredTokenException: [
    'cannot be assumed with a token that has expired',
    'the token file must be renewed; Kubernetes and CI services do that by themselves',
  ],
  InvalidIdentityToken: [
    'cannot be assumed with this token',
    'an OIDC provider for its issuer and audience must be in IAM',
  ],
  IDPRejectedClaim: ['cannot be assumed with this token', 'its issuer has refused it: it may have been revoked'],
  InvalidClientTokenId: [
    'cannot be assumed with an access key that AWS does not know',
    'renew the credentials that it is assumed with',
  ],
  SignatureDoesNotMatch: [
    'cannot be assumed with a secret that is not that of the access key',
    'compare both; a clock that is minutes off has the same effect',
  ],
  RegionDisabledException: [
    'cannot be assumed in this region',
    'enable the token service of the region, or name another region in the profile',
  ],
  ValidationError: ['has a name or a session that AWS does not take', 'compare role_arn with: aws iam get-role'],
};

function explain(answer: HttpResponse, code: string, host: string, role: AwsRole): OcicryptError {
  const source = `the token service ${host}`;
  if (
    /^(?:IDPCommunicationError|ServiceUnavailable|InternalFailure)$/.test(code) ||
    /^Throttling|^RequestLimitExceeded$/.test(code)
  ) {
    return refused(source, { ...answer, status: 503 }, '');
  }
  const [fault, hint] = REFUSALS[code] ?? [];
  if (fault === undefined || hint === undefined) {
    return refused(source, answer, `check the role of ${role.named} and whom it trusts`);
  }
  return new OcicryptError('unauthenticated', `the role of ${role.named} ${fault}, says ${source}`, { hint });
}
