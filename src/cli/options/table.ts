// The one table of options: parsing, help, configuration file, JSON Schema and documentation are all made from it.

import { IMAGE_OPTIONS } from './image.ts';
import { KEY_OPTIONS } from './keys.ts';
import { NODE_OPTIONS } from './node.ts';
import { LIMIT_OPTIONS, SERVER_OPTIONS, TLS_OPTIONS } from './server.ts';
import { AGE_OPTIONS, AWS_OPTIONS, AZURE_OPTIONS, GOOGLE_OPTIONS, PKCS11_OPTIONS, VAULT_OPTIONS } from './services.ts';
import { isRepeatable, type OptionGroup, type OptionKind, type OptionSpec } from './spec.ts';

const NETWORK_OPTIONS = {
  timeout: {
    kind: 'duration',
    hasVariable: true,
    value: 'TIME',
    describe: 'the time for one request, at most 50s; for an image command, the time for all of it',
    fallback: '10s for one request to a key; none for an image command',
  },
  ca: {
    kind: 'list',
    hasVariable: true,
    value: 'FILE',
    describe: "CAs to trust beside the system's, for private endpoints and proxies, PEM",
  },
} as const satisfies OptionGroup;

const OUTPUT_OPTIONS = {
  json: { kind: 'switch', hasVariable: true, describe: 'print JSON', member: null },
  quiet: {
    kind: 'switch',
    hasVariable: true,
    describe: 'say nothing on standard error but errors and warnings: no progress, no advice',
  },
  digestfile: {
    kind: 'text',
    hasVariable: true,
    value: 'FILE',
    describe: 'write the digest of the new image to FILE too',
    member: null,
  },
  'audit-log': {
    kind: 'text',
    hasVariable: true,
    value: 'FILE',
    describe: 'append one JSON line for each decision; no key is released without its line',
  },
  debugLog: {
    kind: 'text',
    hasVariable: true,
    value: 'FILE',
    describe: 'append what happens as JSON lines, without any secret (mode 0600)',
  },
  config: {
    kind: 'text',
    hasVariable: true,
    value: 'FILE',
    describe: 'YAML or JSON with the same options; an option given here replaces what the file says',
    member: null,
  },
  help: { kind: 'switch', describe: 'print this help', member: null },
} as const satisfies OptionGroup;

/** The options as help and documentation show them: in groups, by title. */
export const OPTION_GROUPS = {
  Image: IMAGE_OPTIONS,
  'Recipients and keys': KEY_OPTIONS,
  Node: NODE_OPTIONS,
  Server: SERVER_OPTIONS,
  TLS: TLS_OPTIONS,
  Limits: LIMIT_OPTIONS,
  'Google Cloud KMS': GOOGLE_OPTIONS,
  'AWS KMS': AWS_OPTIONS,
  'Azure Key Vault': AZURE_OPTIONS,
  'Vault and OpenBao': VAULT_OPTIONS,
  age: AGE_OPTIONS,
  'PKCS#11': PKCS11_OPTIONS,
  Network: NETWORK_OPTIONS,
  'Output and configuration': OUTPUT_OPTIONS,
} as const satisfies Readonly<Record<string, OptionGroup>>;

export const OPTIONS = {
  ...IMAGE_OPTIONS,
  ...KEY_OPTIONS,
  ...NODE_OPTIONS,
  ...SERVER_OPTIONS,
  ...TLS_OPTIONS,
  ...LIMIT_OPTIONS,
  ...GOOGLE_OPTIONS,
  ...AWS_OPTIONS,
  ...AZURE_OPTIONS,
  ...VAULT_OPTIONS,
  ...AGE_OPTIONS,
  ...PKCS11_OPTIONS,
  ...NETWORK_OPTIONS,
  ...OUTPUT_OPTIONS,
} as const;

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

export const VARIABLE_PREFIX = 'OCICRYPT_KMS_';

/** How the variable of an option would be called, whether it has one or not. */
export function variableName(option: OptionName): string {
  const words = option.replace(/([a-z])([A-Z])/g, '$1_$2').replaceAll('-', '_');
  return `${VARIABLE_PREFIX}${words.toUpperCase()}`;
}

/** The variable that sets an option, if it has one. */
export function variableOf(option: OptionName): string | undefined {
  return optionSpec(option).hasVariable === true ? variableName(option) : undefined;
}

/** What help and the manual say of an option of a command: what it is for, whether it may be repeated, its variable, what holds without it. */
export function optionText(name: OptionName, command: { readonly isOpen?: true }): string {
  const { kind, describe, fallback } = optionSpec(name);
  const variable = command.isOpen === true ? variableOf(name) : undefined;
  const notes = [
    ...(isRepeatable(kind) ? ['repeatable'] : []),
    ...(variable === undefined ? [] : [variable]),
    ...(fallback === undefined ? [] : [`default: ${fallback}`]),
  ];
  return notes.length === 0 ? describe : `${describe} (${notes.join('; ')})`;
}

export function isOptionName(name: string): name is OptionName {
  return Object.hasOwn(OPTIONS, name);
}

/** The place of an option in the configuration file: `[member]` or `[section, member]`; undefined if it has none. */
export function configurationPath(name: OptionName): readonly string[] | undefined {
  const { member } = optionSpec(name);
  return member === null ? undefined : (member ?? [name]);
}
