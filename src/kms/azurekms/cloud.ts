// Which hosts are Azure's, and what tokens are good for them: a bearer token goes to no other host.

import { readEndpoint } from '../../base/address.ts';
import { OcicryptError } from '../../base/errors.ts';
import { azureHost, formatKeyUri, type KeyUri } from '../../base/key-uri.ts';
import { setting } from '../../base/setting.ts';

export type AzureKeyUri = Extract<KeyUri, { scheme: 'azurekms' }>;

/** What the operator says about the cloud. */
export type AzureCloudSettings = {
  /** Where requests go in place of the vault's own host, `https://HOST[:PORT]`: emulators and gateways. */
  readonly endpoint?: string | undefined;
  /** A domain of vaults beside the known ones, as a private cloud has; also the audience of its tokens. */
  readonly domain?: string | undefined;
  /** Where tokens come from, `https://HOST`. */
  readonly authority?: string | undefined;
  /** Where AZURE_AUTHORITY_HOST is read. */
  readonly environment: NodeJS.ProcessEnv;
};

/** Where a key's vault is and who gives tokens for it. */
export type AzurePlace = {
  /** The vault's host in lower case, as its key ids name it. */
  readonly host: string;
  readonly endpoint: string;
  /** `https://vault.azure.net` and its kin, without `/.default`. */
  readonly audience: string;
  readonly authority: string;
  readonly isManagedHsm: boolean;
};

/** Domain of vaults or managed HSMs, and the token service of its cloud. */
const DOMAINS: readonly (readonly [domain: string, authority: string])[] = [
  ['vault.azure.net', 'login.microsoftonline.com'],
  ['managedhsm.azure.net', 'login.microsoftonline.com'],
  ['vault.azure.cn', 'login.chinacloudapi.cn'],
  ['managedhsm.azure.cn', 'login.chinacloudapi.cn'],
  ['vault.usgovcloudapi.net', 'login.microsoftonline.us'],
  ['managedhsm.usgovcloudapi.net', 'login.microsoftonline.us'],
];

/** @throws OcicryptError `configuration` for a host that is in no known cloud */
export function findAzurePlace(uri: AzureKeyUri, settings: AzureCloudSettings): AzurePlace {
  const host = azureHost(uri.host);
  const own = settings.domain === undefined ? [] : [[settings.domain.toLowerCase(), DOMAINS[0]?.[1] ?? ''] as const];
  const known = [...own, ...DOMAINS].find(([domain]) => isOneLabelBelow(host, domain));
  if (known === undefined) {
    throw new OcicryptError('configuration', `${formatKeyUri(uri)} is not in a known Azure cloud`, {
      hint: `hosts end in ${DOMAINS.map(([domain]) => domain).join(', ')}; name the domain of a private cloud with ${setting('azurekms.domain')}`,
    });
  }
  const [domain, authority] = known;
  return {
    host,
    endpoint: readEndpoint(settings.endpoint ?? host, setting('azurekms.endpoint')),
    audience: `https://${domain}`,
    authority: settings.authority
      ? readEndpoint(settings.authority, setting('azurekms.authority'))
      : readEndpoint(settings.environment.AZURE_AUTHORITY_HOST || authority, 'AZURE_AUTHORITY_HOST'),
    isManagedHsm: domain.startsWith('managedhsm.'),
  };
}

/** Vaults have names of one label; a dot before the domain keeps `evilvault.azure.net.example` and its kind out. */
function isOneLabelBelow(host: string, domain: string): boolean {
  return host.endsWith(`.${domain}`) && !host.slice(0, -domain.length - 1).includes('.');
}
