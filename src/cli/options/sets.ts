// Which options go together: what a provider, a decoder and a command that forwards to a server take.

import type { OptionName } from './table.ts';

/** What a provider needs, whether it runs once or serves. */
export const PROVIDER_OPTIONS: readonly OptionName[] = [
  'allow',
  'kmsURI',
  'key',
  'provider',
  'packet',
  'context',
  'bytes',
  'timeout',
  'ca',
  'adc',
  'gcp-endpoint',
  'gcp-quota-project',
  'gcp-universe-domain',
  'aws-endpoint',
  'aws-region',
  'azure-endpoint',
  'azure-domain',
  'azure-authority',
  'kbs-key',
  'vault-addr',
  'vault-login',
  'vault-role',
  'vault-login-path',
  'vault-credentials',
  'age-passphrase-file',
  'pkcs11-module',
  'pkcs11-binding',
  'pkcs11-pin-file',
  'pkcs11-pin-env',
  'pkcs11-final-try',
  'pkcs11-oaep-sha1',
  'audit-log',
  'debugLog',
  'config',
];

/** What a command that forwards to a server needs. */
export const REMOTE_OPTIONS: readonly OptionName[] = ['tls-ca', 'tls-cert', 'tls-key'];

/** What answers one request, here or by a server. */
export const KEYPROVIDER_OPTIONS: readonly OptionName[] = [...PROVIDER_OPTIONS, 'remote', ...REMOTE_OPTIONS];

/** Options of wrapping and of requests, neither of which a decoder has. */
const OF_WRAPPING: readonly OptionName[] = ['packet', 'bytes', 'kmsURI'];

/** What opens layer keys. A webhook does so only if its policy says it. */
export const UNWRAPPING_OPTIONS: readonly OptionName[] = PROVIDER_OPTIONS.filter(
  (name) => ![...OF_WRAPPING, 'provider', 'timeout', 'ca', 'audit-log', 'debugLog', 'config'].includes(name),
);

/** What judges the images of pods. Its time is that of the API server. */
export const ADMISSION_OPTIONS: readonly OptionName[] = [
  'policy',
  'listen',
  'tls-cert',
  'tls-key',
  'tls-client-ca',
  'tls-min',
  'status',
  'insecure-status',
  'check',
  'max-connections',
  'max-calls',
  'max-queue',
  'authfile',
  'ca',
  ...UNWRAPPING_OPTIONS,
  'audit-log',
  'debugLog',
  'config',
];

/** What decrypts one layer. */
export const DECODER_OPTIONS: readonly OptionName[] = [
  ...PROVIDER_OPTIONS.filter((name) => !OF_WRAPPING.includes(name)),
  'content-store',
  'remote',
  ...REMOTE_OPTIONS,
];
