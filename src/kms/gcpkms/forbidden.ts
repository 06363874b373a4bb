// What Google Cloud KMS means by a 403: rights, perimeters, billing, policies; and what the operator should do about it.

import { type ErrorCode, OcicryptError } from '../../base/errors.ts';
import { type GoogleKmsCall, type GoogleKmsMethod, lastFlag, names, orNameVersion } from './gcloud.ts';
import type { Refusal } from './refusal.ts';

/** The least role that permits a call. */
const ROLES: { readonly [method in GoogleKmsMethod]: string } = {
  asymmetricDecrypt: 'roles/cloudkms.cryptoKeyDecrypter',
  decrypt: 'roles/cloudkms.cryptoKeyDecrypter',
  encrypt: 'roles/cloudkms.cryptoKeyEncrypter',
  getPublicKey: 'roles/cloudkms.publicKeyViewer',
  list: 'roles/cloudkms.viewer',
};

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

export const apiDisabled = refuse(
  'configuration',
  ({ key }) => `the Cloud KMS API is not enabled for ${key}`,
  (call) => `gcloud services enable cloudkms.googleapis.com --project ${names(call).project}`,
);

/** Reasons of `google.rpc.ErrorInfo`: https://github.com/googleapis/googleapis, google/api/error_reason.proto */
const FORBIDDEN = {
  SERVICE_DISABLED: apiDisabled,
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

/** Whether VPC Service Controls refused it. */
export function isByPerimeter({ message, violations }: Refusal): boolean {
  return PERIMETER.test([message, ...violations].join(' '));
}

/** The error for a 403. */
export function explainForbidden(refusal: Refusal, call: GoogleKmsCall): OcicryptError {
  const { key, method } = call;
  if (isByPerimeter(refusal)) return perimeter(call);
  if (isKnownReason(refusal.reason)) return FORBIDDEN[refusal.reason](call);
  return new OcicryptError('refused', `Google KMS does not permit these credentials to ${method} with ${key}`, {
    hint: `gcloud kms keys add-iam-policy-binding ${lastFlag(call)} --member serviceAccount:EMAIL --role ${ROLES[method]}${orNameVersion(call)}`,
  });
}
