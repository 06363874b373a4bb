// The only code that knows which backends there are: scheme to lazy import, so that one key loads one backend.

import { OcicryptError } from '../base/errors.ts';
import { formatKeyUri, type KeyUri } from '../base/key-uri.ts';
import { isAgeIdentityFile } from './age-file.ts';
import type { AgeSettings } from './age-identities.ts';
import type { AwsKmsSettings } from './awskms.ts';
import type { AzureKmsSettings } from './azure-vault.ts';
import type { GcpKmsSettings } from './gcpkms.ts';
import type { VaultSettings } from './hashivault.ts';
import type { KbsSettings } from './kbs.ts';
import type { Kek } from './kek.ts';
import type { Pkcs11Settings } from './pkcs11.ts';

/** What the operator sets for each backend; nothing here ever comes from a packet. */
export type BackendSettings = {
  readonly age: AgeSettings;
  readonly awskms: AwsKmsSettings;
  readonly azurekms: AzureKmsSettings;
  readonly gcpkms: GcpKmsSettings;
  readonly hashivault: VaultSettings;
  readonly kbs: KbsSettings;
  readonly pkcs11: Pkcs11Settings;
};

/** Opens keys and keeps them open: a second request for one key finds its credentials and connections ready. */
export interface KekStore {
  /** @throws OcicryptError `bad-input` where no backend has such keys; `configuration` and others by backend */
  open(uri: KeyUri): Promise<Kek>;
  /** Closes every key that was opened. */
  close(): Promise<void>;
}

/** More keys than any operator lists; a prefix lets packets name as many as they like. */
const MAXIMUM_OPEN = 256;

/** Makes a store; it loads and opens nothing until it is asked. */
export function createKekStore(settings: BackendSettings): KekStore {
  const keks = new Map<string, Promise<Kek>>();
  return {
    open(uri) {
      const name = cacheName(uri);
      const known = keks.get(name);
      if (known !== undefined) return known;
      const opening = openKek(uri, settings);
      keks.set(name, opening);
      opening.catch(() => keks.delete(name));
      const [oldest] = keks;
      if (keks.size > MAXIMUM_OPEN && oldest !== undefined) keks.delete(oldest[0]);
      return opening;
    },
    async close() {
      const opened = await Promise.allSettled(keks.values());
      keks.clear();
      for (const kek of opened) if (kek.status === 'fulfilled') kek.value.close?.();
    },
  };
}

/** The table of backends: a scheme is served by the file of its name, which nothing else loads. */
async function openKek(uri: KeyUri, settings: BackendSettings): Promise<Kek> {
  switch (uri.scheme) {
    case 'gcpkms':
      return (await import('./gcpkms.ts')).openGcpKms(uri, settings.gcpkms);
    case 'awskms':
      return (await import('./awskms.ts')).openAwsKms(uri, settings.awskms);
    case 'azurekms':
      return (await import('./azurekms.ts')).openAzureKms(uri, settings.azurekms);
    case 'hashivault':
      return (await import('./hashivault.ts')).openHashiVault(uri, settings.hashivault);
    case 'pkcs11':
      return (await import('./pkcs11.ts')).openPkcs11(uri, settings.pkcs11);
    case 'kbs':
      return (await import('./kbs.ts')).openKbsKey(uri, settings.kbs);
    case 'age':
      return (await import('./age.ts')).openAgeRecipient(uri, settings.age);
    case 'keyfile':
      if ('path' in uri) return openFile(uri.path, settings);
      throw new OcicryptError('configuration', `no key file here holds ${formatKeyUri(uri)}`, {
        hint: 'give the file that holds it: --key=FILE',
      });
  }
}

/** What `--key` names: 32 bytes, or identities of age. */
async function openFile(path: string, settings: BackendSettings): Promise<Kek> {
  if (isAgeIdentityFile(path)) return (await import('./age.ts')).openAgeIdentityFile(path, settings.age);
  return (await import('./keyfile.ts')).openKeyfile(path);
}

/** The canonical form leaves out what only the operator may set, so it is added. */
function cacheName(uri: KeyUri): string {
  const endpoint = uri.scheme === 'awskms' ? (uri.endpoint ?? '') : '';
  const query = uri.scheme === 'pkcs11' ? JSON.stringify([...uri.query]) : '';
  return `${formatKeyUri(uri)} ${endpoint}${query}`;
}
