// The options of each key service, part of the one table (table.ts).

import type { OptionGroup } from './spec.ts';

export const GOOGLE_OPTIONS = {
  adc: {
    kind: 'text',
    value: 'FILE',
    describe: 'Google credentials to use in place of Application Default Credentials',
    member: ['gcpkms', 'adc'],
  },
  'gcp-endpoint': {
    kind: 'text',
    value: 'URL',
    describe: 'private or regional endpoint of Cloud KMS',
    member: ['gcpkms', 'endpoint'],
    fallback: 'https://cloudkms.googleapis.com',
  },
  'gcp-quota-project': {
    kind: 'text',
    value: 'PROJECT',
    describe: 'the Google project that calls are counted against',
    member: ['gcpkms', 'quota-project'],
  },
  'gcp-universe-domain': {
    kind: 'text',
    value: 'DOMAIN',
    describe: 'the domain of a sovereign Google cloud',
    member: ['gcpkms', 'universe-domain'],
    fallback: 'googleapis.com',
  },
} as const satisfies OptionGroup;

export const AWS_OPTIONS = {
  'aws-endpoint': {
    kind: 'text',
    value: 'URL',
    describe: 'private endpoint of AWS KMS',
    member: ['awskms', 'endpoint'],
    fallback: "AWS_ENDPOINT_URL_KMS, else the endpoint of the key's region",
  },
  'aws-region': {
    kind: 'text',
    value: 'REGION',
    describe: 'the region of AWS keys that are named without one',
    member: ['awskms', 'region'],
    fallback: 'AWS_REGION',
  },
} as const satisfies OptionGroup;

export const AZURE_OPTIONS = {
  'azure-endpoint': {
    kind: 'text',
    value: 'URL',
    describe: "emulator or gateway to call in place of the vault's own host",
    member: ['azurekms', 'endpoint'],
  },
  'azure-domain': {
    kind: 'text',
    value: 'DOMAIN',
    describe: 'the domain of the vaults of a private Azure cloud',
    member: ['azurekms', 'domain'],
  },
  'azure-authority': {
    kind: 'text',
    value: 'URL',
    describe: 'Microsoft Entra endpoint that issues tokens',
    member: ['azurekms', 'authority'],
    fallback: 'AZURE_AUTHORITY_HOST, else that of the cloud',
  },
} as const satisfies OptionGroup;

export const VAULT_OPTIONS = {
  'vault-addr': {
    kind: 'text',
    value: 'URL',
    describe: 'address of Vault or OpenBao',
    member: ['hashivault', 'address'],
    fallback: 'BAO_ADDR, else VAULT_ADDR',
  },
  'vault-login': {
    kind: 'choice',
    value: 'token|kubernetes|jwt|approle|cert',
    choices: ['token', 'kubernetes', 'jwt', 'approle', 'cert'],
    describe: 'how to log in to Vault; token takes one from VAULT_TOKEN or ~/.vault-token',
    member: ['hashivault', 'login'],
    fallback: 'token',
  },
  'vault-role': {
    kind: 'text',
    value: 'ROLE',
    describe: 'the role to log in with; for approle the role id',
    member: ['hashivault', 'role'],
  },
  'vault-login-path': {
    kind: 'text',
    value: 'PATH',
    describe: 'the path at which the auth method is mounted',
    member: ['hashivault', 'login-path'],
    fallback: 'the name of the login',
  },
  'vault-credentials': {
    kind: 'text',
    value: 'FILE',
    describe: 'the file that holds the token, JWT or secret id to log in with',
    member: ['hashivault', 'credentials'],
    fallback: 'for kubernetes the token of the service account',
  },
} as const satisfies OptionGroup;

export const AGE_OPTIONS = {
  'age-passphrase-file': {
    kind: 'text',
    value: 'FILE',
    describe: 'the passphrase of protected age identity files',
    member: ['age', 'passphrase-file'],
    fallback: 'asked for on the terminal',
  },
} as const satisfies OptionGroup;

export const PKCS11_OPTIONS = {
  'pkcs11-module': {
    kind: 'list',
    isPolicy: true,
    value: 'FILE',
    describe: 'a PKCS#11 module that may be loaded, by its whole path; the first is the default',
    member: ['pkcs11', 'module'],
  },
  'pkcs11-binding': {
    kind: 'text',
    value: 'DIR',
    describe: 'the directory in which npm has installed pkcs11js, which PKCS#11 keys need',
    member: ['pkcs11', 'binding'],
    fallback: 'that of the executable, or ../lib/ocicrypt-kms beside it',
  },
  'pkcs11-pin-file': {
    kind: 'text',
    value: 'FILE',
    describe: 'the file that holds the PIN of the token',
    member: ['pkcs11', 'pin-file'],
    fallback: 'asked for on the terminal',
  },
  'pkcs11-pin-env': {
    kind: 'text',
    value: 'NAME',
    describe: 'the environment variable that holds the PIN of the token',
    member: ['pkcs11', 'pin-env'],
  },
  'pkcs11-final-try': {
    kind: 'switch',
    describe:
      'use the configured PIN even if the token says that the next wrong one locks it; some tokens always say so',
    member: ['pkcs11', 'final-try'],
  },
  'pkcs11-oaep-sha1': {
    kind: 'switch',
    isPolicy: true,
    describe: 'permit RSA-OAEP with SHA-1, for tokens that support no other hash',
    member: ['pkcs11', 'oaep-sha1'],
  },
} as const satisfies OptionGroup;
