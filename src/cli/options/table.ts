// The one table of options: parsing, help, configuration file, JSON Schema and documentation are all made from it.

import { IMAGE_OPTIONS } from './image.ts';
import { SERVER_OPTIONS } from './server.ts';

/** How an option's text becomes a value: repeated texts, one text, one of several, name=value pairs, time, a number, or a switch. */
export type OptionKind = 'list' | 'text' | 'choice' | 'pairs' | 'duration' | 'count' | 'switch';

export type OptionSpec = {
  readonly kind: OptionKind;
  /** What stands for the value in help. */
  readonly value?: string;
  readonly choices?: readonly string[];
  /** One sentence, lower case, for help and documentation. */
  readonly describe: string;
  /** The member of the configuration file that means the same; a path where it stands in a section; null where none may. */
  readonly member?: readonly [string, string] | null;
  /** What holds where the option is not given. */
  readonly fallback?: string;
};

export const OPTIONS = {
  allow: {
    kind: 'list',
    value: 'KEY',
    describe: 'a key that may be used, or all below a prefix that ends in /*; repeatable',
  },
  kmsURI: {
    kind: 'text',
    value: 'KEY',
    describe: 'default key when a call names none; a call that names another one is refused',
  },
  key: {
    kind: 'list',
    value: 'FILE',
    describe: 'a key file or age identity file that may be used; repeatable, for rotation',
  },
  provider: {
    kind: 'text',
    value: 'NAME',
    describe: "this provider's name in the caller's configuration",
    fallback: 'kmscrypt, else the only name that carries keys',
  },
  packet: {
    kind: 'choice',
    value: 'v1|v2|coco-v2',
    choices: ['v1', 'v2', 'coco-v2'],
    describe:
      'the packet to write: v1 is what the reference provider reads, coco-v2 what guests of Confidential Containers unwrap with AWS KMS',
    fallback: 'v2; as kms_oci_crypt v1 for a single Google key',
  },
  context: {
    kind: 'pairs',
    value: 'NAME=VALUE',
    describe: 'a public label that new packets are bound to, and that a packet must carry to be unwrapped; repeatable',
  },
  bytes: {
    kind: 'choice',
    value: 'base64|array',
    choices: ['base64', 'array'],
    describe: 'how bytes are written in replies: array for clients made with Rust',
    fallback: 'base64',
  },
  timeout: {
    kind: 'duration',
    value: 'TIME',
    describe: 'the time for one request, as 10s or 500ms, at most 50s; for a whole image command, as 5m or 2h',
    fallback: '10s for one request to a key; image commands end when they are done',
  },
  ca: {
    kind: 'list',
    value: 'FILE',
    describe: "PEM certificates to trust beside the system's, for private endpoints and proxies; repeatable",
  },
  adc: {
    kind: 'text',
    value: 'FILE',
    describe: 'Google credentials to use in place of Application Default Credentials',
    member: ['gcpkms', 'adc'],
  },
  'gcp-endpoint': {
    kind: 'text',
    value: 'URL',
    describe: 'where Cloud KMS answers, for private and regional endpoints',
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
  'aws-endpoint': {
    kind: 'text',
    value: 'URL',
    describe: 'where AWS KMS answers, for private endpoints',
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
  'azure-endpoint': {
    kind: 'text',
    value: 'URL',
    describe: "where Azure keys answer in place of their vault's own host, for emulators and gateways",
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
  'kbs-key': {
    kind: 'pairs',
    value: 'KEY=FILE',
    describe:
      "a key kbs:///REPOSITORY/TYPE/TAG of Confidential Containers' broker and the file that holds its 32 bytes; it may unwrap; repeatable",
  },
  'vault-addr': {
    kind: 'text',
    value: 'URL',
    describe: 'where Vault or OpenBao answers, in place of BAO_ADDR and VAULT_ADDR',
    member: ['hashivault', 'address'],
  },
  'vault-login': {
    kind: 'choice',
    value: 'token|kubernetes|jwt|approle|cert',
    choices: ['token', 'kubernetes', 'jwt', 'approle', 'cert'],
    describe: 'how to log in to Vault: token takes one from VAULT_TOKEN or ~/.vault-token',
    member: ['hashivault', 'login'],
    fallback: 'token',
  },
  'vault-role': {
    kind: 'text',
    value: 'ROLE',
    describe: "the role of Vault's login, or the role id of an approle login",
    member: ['hashivault', 'role'],
  },
  'vault-login-path': {
    kind: 'text',
    value: 'PATH',
    describe: "where Vault's login is mounted",
    member: ['hashivault', 'login-path'],
    fallback: 'the name of the login',
  },
  'vault-credentials': {
    kind: 'text',
    value: 'FILE',
    describe: "the token, JWT or secret id of Vault's login",
    member: ['hashivault', 'credentials'],
    fallback: 'for kubernetes the token of the service account',
  },
  'age-passphrase-file': {
    kind: 'text',
    value: 'FILE',
    describe: 'the passphrase of protected age identity files',
    member: ['age', 'passphrase-file'],
    fallback: 'asked for on the terminal',
  },
  'pkcs11-module': {
    kind: 'list',
    value: 'FILE',
    describe: 'a PKCS#11 module that may be loaded, by its whole path; repeatable, the first is the default',
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
    describe: 'the PIN of the token',
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
      'use the configured PIN even if the token says that it locks at the next wrong one; some tokens always say so',
    member: ['pkcs11', 'final-try'],
  },
  'pkcs11-oaep-sha1': {
    kind: 'switch',
    describe: 'permit RSA-OAEP with SHA-1, for tokens that know no other',
    member: ['pkcs11', 'oaep-sha1'],
  },
  'audit-log': {
    kind: 'text',
    value: 'FILE',
    describe: 'append one JSON line for each decision; no key is released without its line',
  },
  debugLog: {
    kind: 'text',
    value: 'FILE',
    describe: 'append what happens as JSON lines, without any secret (mode 0600)',
  },
  config: {
    kind: 'text',
    value: 'FILE',
    describe: 'YAML or JSON that holds the same as these options; an option given here replaces what the file says',
    member: null,
  },
  ...SERVER_OPTIONS,
  ...IMAGE_OPTIONS,
  json: { kind: 'switch', describe: 'print JSON', member: null },
  help: { kind: 'switch', describe: 'print this help', member: null },
} as const satisfies Readonly<Record<string, OptionSpec>>;

export type OptionName = keyof typeof OPTIONS;
type NamesOf<Kind extends OptionKind> = {
  [Name in OptionName]: (typeof OPTIONS)[Name]['kind'] extends Kind ? Name : never;
}[OptionName];

export type ListName = NamesOf<'list'>;
export type TextName = NamesOf<'text' | 'choice'>;
export type PairsName = NamesOf<'pairs'>;
export type DurationName = NamesOf<'duration'>;
export type CountName = NamesOf<'count'>;
export type SwitchName = NamesOf<'switch'>;

/** The entry of `name`, as the general type. */
export function optionSpec(name: OptionName): OptionSpec {
  return OPTIONS[name];
}

export function isOptionName(name: string): name is OptionName {
  return Object.hasOwn(OPTIONS, name);
}

/** Where an option stands in the configuration file: `[member]` or `[section, member]`; undefined where it may not. */
export function configurationPath(name: OptionName): readonly string[] | undefined {
  const { member } = optionSpec(name);
  return member === null ? undefined : (member ?? [name]);
}
