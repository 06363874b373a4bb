// The only code that knows which backends there are: scheme to lazy import, so that one key loads one backend.

import { OcicryptError } from '../base/errors.ts';
import { formatKeyUri, type KeyUri } from '../base/key-uri.ts';
import { setting } from '../base/setting.ts';
import type { AgeSettings } from './age/identities.ts';
import { isAgeIdentityFile } from './age-file.ts';
import type { AwsKmsSettings } from './awskms/key.ts';
import type { AzureKmsSettings } from './azurekms/vault.ts';
import type { GcpKmsSettings } from './gcpkms/key.ts';
import type { VaultSettings } from './hashivault/key.ts';
import type { KbsSettings } from './kbs/key.ts';
import type { Kek } from './kek.ts';
import type { OwnSchemes } from './own.ts';
import type { Pkcs11Settings } from './pkcs11/key.ts';

/** What the operator sets for each backend; nothing here ever comes from a packet. Of one that is left out no key opens. */
export type BackendSettings = {
  readonly age?: AgeSettings;
  readonly awskms?: AwsKmsSettings;
  readonly azurekms?: AzureKmsSettings;
  readonly gcpkms?: GcpKmsSettings;
  readonly hashivault?: VaultSettings;
  readonly kbs?: KbsSettings;
  /** What opens keys of schemes of one's own, by the scheme: `{ 'x-acme': open }`. */
  readonly own?: OwnSchemes;
  readonly pkcs11?: Pkcs11Settings;
};

/** The table of backends: a scheme is served by the file of its name, which nothing else loads. */
export async function openKek(uri: KeyUri, settings: BackendSettings): Promise<Kek> {
  switch (uri.scheme) {
    case 'gcpkms':
      return (await import('./gcpkms/key.ts')).openGcpKms(uri, given(settings, 'gcpkms'));
    case 'awskms':
      return (await import('./awskms/key.ts')).openAwsKms(uri, given(settings, 'awskms'));
    case 'azurekms':
      return (await import('./azurekms/key.ts')).openAzureKms(uri, given(settings, 'azurekms'));
    case 'hashivault':
      return (await import('./hashivault/key.ts')).openHashiVault(uri, given(settings, 'hashivault'));
    case 'pkcs11':
      return (await import('./pkcs11/key.ts')).openPkcs11(uri, given(settings, 'pkcs11'));
    case 'kbs':
      return (await import('./kbs/key.ts')).openKbsKey(uri, given(settings, 'kbs'));
    case 'age':
      return (await import('./age/key.ts')).openAgeRecipient(uri, given(settings, 'age'));
    case 'keyfile':
      if ('path' in uri) return openFile(uri.path, settings);
      throw new OcicryptError('configuration', `no key file here holds ${formatKeyUri(uri)}`, {
        hint: `give the file that holds it: ${setting('keys')}=FILE`,
      });
    default:
      return (await import('./own.ts')).openOwnKey(uri, settings.own ?? {});
  }
}

/** What `--key` names: 32 bytes, or identities of age. */
async function openFile(path: string, settings: BackendSettings): Promise<Kek> {
  if (isAgeIdentityFile(path)) return (await import('./age/key.ts')).openAgeIdentityFile(path, given(settings, 'age'));
  return (await import('./keyfile/key.ts')).openKeyfile(path);
}

function given<Name extends keyof BackendSettings>(settings: BackendSettings, name: Name) {
  const found = settings[name];
  if (found !== undefined) return found;
  throw new OcicryptError('configuration', `there are no settings for keys of ${name}`);
}
