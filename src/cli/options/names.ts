// The option that sets what a text of a lower layer names: the command's spelling of every setting.

import type { SettingName } from '../../base/setting.ts';
import type { OptionName } from './table.ts';

/** Exhaustive by type: a setting that a text names does not compile until its option is named here. */
const OPTION_OF: { readonly [name in SettingName]: OptionName } = {
  add: 'add',
  'age.identityFiles': 'key',
  'age.passphraseFile': 'age-passphrase-file',
  authFile: 'authfile',
  'awskms.endpoint': 'aws-endpoint',
  'azurekms.authority': 'azure-authority',
  'azurekms.domain': 'azure-domain',
  'azurekms.endpoint': 'azure-endpoint',
  caFiles: 'ca',
  clients: 'allow-client',
  contentStore: 'content-store',
  defaultKey: 'kmsURI',
  digestTag: 'digest-tag',
  'gcpkms.credentialsFile': 'adc',
  'gcpkms.endpoint': 'gcp-endpoint',
  'hashivault.address': 'vault-addr',
  'hashivault.credentialsFile': 'vault-credentials',
  'hashivault.login': 'vault-login',
  'hashivault.loginPath': 'vault-login-path',
  'hashivault.role': 'vault-role',
  insecurePlaintext: 'insecure-plaintext',
  'kbs.files': 'kbs-key',
  keys: 'key',
  labels: 'context',
  layers: 'layer',
  'limits.active': 'max-calls',
  'limits.queue': 'max-queue',
  'limits.rate': 'key-rate',
  'limits.total': 'timeout',
  listen: 'listen',
  log: 'debugLog',
  'names.configured': 'provider',
  packet: 'packet',
  'pkcs11.bindingDirectory': 'pkcs11-binding',
  'pkcs11.finalTry': 'pkcs11-final-try',
  'pkcs11.modules': 'pkcs11-module',
  'pkcs11.oaepSha1': 'pkcs11-oaep-sha1',
  'pkcs11.pinFile': 'pkcs11-pin-file',
  'pkcs11.pinVariable': 'pkcs11-pin-env',
  platforms: 'platform',
  provider: 'provider',
  recipients: 'recipient',
  remove: 'remove',
  rules: 'allow',
  'status.insecure': 'insecure-status',
  'tls.authority': 'tls-ca',
  'tls.certificate': 'tls-cert',
  'tls.clientAuthority': 'tls-client-ca',
  'tls.privateKey': 'tls-key',
};

/** The option as users write it. */
export function optionOf(name: SettingName): string {
  return `--${OPTION_OF[name]}`;
}
