// What a refusal of Azure Key Vault or Managed HSM means here, and what the operator should do about it.
// https://learn.microsoft.com/azure/key-vault/general/rest-error-codes

import { OcicryptError } from '../../base/errors.ts';
import { parseRetryAfter } from '../../base/http/client.ts';
import type { HttpResponse } from '../../base/http/contract.ts';
import { asObject, asText, readObject } from '../../base/json.ts';
import { setting } from '../../base/setting.ts';
import { foreignAnswer } from '../answers.ts';
import { cannotBeUnwrapped } from '../kek.ts';
import type { AzurePlace } from './cloud.ts';

/** The call that was refused. */
export type AzureCall = {
  /** The canonical URI of the operator's key. */
  readonly key: string;
  /** The key's name in its vault. */
  readonly name: string;
  readonly place: AzurePlace;
  readonly purpose: 'unwrap' | 'wrap';
};

/**
 * The error for an answer that is not 200. Its text is ours: Azure's may name what the caller should not learn, and
 * whatever answered in Azure's place may have written anything.
 */
export function explainAzureError(answer: HttpResponse, call: AzureCall): OcicryptError {
  const { key, purpose } = call;
  const retryAfter = parseRetryAfter(answer.headers);
  const { status } = answer;
  switch (status) {
    case 400:
      return explainBadRequest(answer, call);
    case 401:
      return explainUnauthenticated(answer, call);
    case 403:
      return explainForbidden(answer, call);
    case 404:
      if (isOther(answer)) return unknownAnswer(404, call);
      return new OcicryptError('not-found', `there is no key ${key}, or not in the version asked for`, {
        hint: `compare with: az keyvault key list-versions ${vaultFlag(call)} --name ${call.name}; one that was deleted may be recovered: az keyvault key recover ${vaultFlag(call)} --name ${call.name}`,
      });
    case 409:
      if (isOther(answer)) return unknownAnswer(409, call);
      return new OcicryptError('key-disabled', `${key} is deleted`, {
        hint: `it may be recovered: az keyvault key recover ${vaultFlag(call)} --name ${call.name}`,
      });
    case 429:
      return new OcicryptError('throttled', `Azure is throttling calls for ${key}`, {
        hint: 'try again later, or spread the keys over more vaults',
        retryable: true,
        retryAfter,
      });
    case 408:
    case 500:
    case 502:
    case 503:
    case 504:
      return new OcicryptError('unavailable', `Azure is unavailable to ${purpose} with ${key} (${status})`, {
        hint: 'try again later; https://azure.status.microsoft shows outages',
        retryable: true,
        retryAfter,
      });
    default:
      return unknownAnswer(status, call);
  }
}

/** Why a key that is there may not be used, and the attribute that says so. */
const DISABLED = {
  KeyDisabled: ['is disabled', '--enabled true'],
  KeyExpired: ['has expired', '--expires DATE'],
  KeyNotYetValid: ['is not valid yet', '--not-before DATE'],
} as const;

/** The same error whether the service says so or the attributes of the key do. @param date since or until when */
export function disabled(why: keyof typeof DISABLED, call: Omit<AzureCall, 'purpose'>, date?: Date): OcicryptError {
  const [what, flag] = DISABLED[why];
  const since = date === undefined ? '' : ` (${date.toISOString()})`;
  return new OcicryptError('key-disabled', `${call.key} ${what}${since}`, {
    hint: `az keyvault key set-attributes ${vaultFlag(call)} --name ${call.name} ${flag}; see: az keyvault key show ${vaultFlag(call)} --name ${call.name}`,
  });
}

/** A key whose `key_ops` lack the operation: the same error whether the service or the key says so. */
export function notPermitted(call: AzureCall): OcicryptError {
  return new OcicryptError('refused', `${call.key} does not permit the operation to ${call.purpose}`, {
    hint: `az keyvault key set-attributes ${vaultFlag(call)} --name ${call.name} --ops wrapKey unwrapKey encrypt decrypt`,
  });
}

/** How a service refuses a version of its API, which has the code of a parameter. */
const OTHER_VERSION = /specified version .*is not recognized|api-version/i;

function explainBadRequest(answer: HttpResponse, call: AzureCall): OcicryptError {
  const { code, message } = readRefusal(answer.body);
  // Anything but Azure's own words may come from a proxy.
  if (code === '') return unknownAnswer(400, call);
  if (OTHER_VERSION.test(message)) {
    return new OcicryptError('configuration', `the service of ${call.key} does not know this version of its API`, {
      hint: `it is older or newer than Key Vault of the public cloud: check ${setting('azurekms.endpoint')}, or update ocicrypt-kms`,
    });
  }
  if (call.purpose === 'unwrap') return cannotBeUnwrapped(call.key);
  return new OcicryptError('configuration', `${call.key} is not a key that can wrap`, {
    hint: `it must be of type RSA, RSA-HSM or oct-HSM and permit wrapKey and unwrapKey: az keyvault key show ${vaultFlag(call)} --name ${call.name}`,
  });
}

/** The challenge names the tenant that the vault trusts; it is told, not followed. */
function explainUnauthenticated(answer: HttpResponse, call: AzureCall): OcicryptError {
  const { key, place } = call;
  const challenge = answer.headers['www-authenticate'] ?? '';
  if (!/^Bearer\b/i.test(challenge) && isOther(answer)) return unknownAnswer(401, call);
  const resource = /\b(?:resource|scope)="([^"]*)"/.exec(challenge)?.[1]?.replace(/\/\.default$/, '');
  if (resource !== undefined && resource.replace(/\/+$/, '') !== place.audience) {
    return new OcicryptError('unauthenticated', `the host of ${key} asks for tokens of another service`, {
      hint: `it gets none: tokens here are for ${place.audience}; check the host, the proxy and ${setting('azurekms.domain')}`,
    });
  }
  const tenant = /\bauthorization(?:_uri)?="https:\/\/[^"/]+\/([0-9A-Fa-f-]{36})\/?"/.exec(challenge)?.[1];
  return new OcicryptError('unauthenticated', `Azure does not accept the token for ${key}`, {
    hint:
      tenant === undefined
        ? 'the identity must be in the tenant of the vault: az account show'
        : `the vault is in tenant ${tenant}: AZURE_TENANT_ID must be that`,
  });
}

function explainForbidden(answer: HttpResponse, call: AzureCall): OcicryptError {
  const { code, inner } = readRefusal(answer.body);
  const { key, purpose, place } = call;
  switch (inner) {
    case 'KeyDisabled':
    case 'KeyExpired':
    case 'KeyNotYetValid':
      return disabled(inner, call);
    case 'ForbiddenByFirewall':
    case 'ForbiddenByConnection':
      return new OcicryptError('refused', `the firewall of the vault does not let ${key} be used from here`, {
        hint: `use a private endpoint, or: az keyvault network-rule add ${vaultFlag(call)} --ip-address ADDRESS`,
      });
    case 'KeyOperationForbidden':
      return notPermitted(call);
    default:
      if (code === '') return unknownAnswer(403, call);
      return new OcicryptError('refused', `Azure does not permit this identity to ${purpose} with ${key}`, {
        hint: place.isManagedHsm
          ? `az keyvault role assignment create ${vaultFlag(call)} --role "Managed HSM Crypto User" --scope /keys/${call.name} --assignee PRINCIPAL-ID`
          : `az role assignment create --role "Key Vault Crypto Service Encryption User" --assignee PRINCIPAL-ID --scope VAULT-RESOURCE-ID/keys/${call.name}; or, if the vault has access policies: az keyvault set-policy ${vaultFlag(call)} --object-id PRINCIPAL-ID --key-permissions get wrapKey unwrapKey`,
      });
  }
}

function unknownAnswer(status: number, { key }: AzureCall): OcicryptError {
  return foreignAnswer('Azure Key Vault', key, status);
}

/** Whether something else than Azure answered. */
export function isOther({ body }: HttpResponse): boolean {
  return readRefusal(body).code === '';
}

/** `{"error": {"code", "message", "innererror": {"code"}}}`; empty if something else than Azure answered. */
function readRefusal(body: Uint8Array): { readonly code: string; readonly inner: string; readonly message: string } {
  const error = asObject(readObject(body)?.get('error'));
  return {
    code: asText(error?.get('code')) ?? '',
    message: asText(error?.get('message')) ?? '',
    inner: asText(asObject(error?.get('innererror'))?.get('code')) ?? '',
  };
}

function vaultFlag({ place }: Pick<AzureCall, 'place'>): string {
  const [name = ''] = place.host.split('.');
  return place.isManagedHsm ? `--hsm-name ${name}` : `--vault-name ${name}`;
}
