// The documents that are made from the table of options, and the units of deploy/.

import { VARIABLES } from '../src/base/environment.ts';
import { AUDIT_LOG, DEFAULT_OPTIONS, SOCKET_UNIT, serviceUnit } from '../src/cli/config-systemd.ts';
import { OPTION_NAMES } from '../src/cli/options/configuration.ts';
import { FORMS } from '../src/cli/options/forms.ts';
import { isRepeatable, type OptionSpec } from '../src/cli/options/spec.ts';
import {
  configurationPath,
  isOptionName,
  OPTION_GROUPS,
  type OptionName,
  optionSpec,
} from '../src/cli/options/table.ts';

/** The generated documents: path from the project's root, and content. */
export function generatedDocuments(): ReadonlyMap<string, string> {
  return new Map([
    ['docs/configuration.md', configurationDocument()],
    ['docs/configuration.schema.json', `${JSON.stringify(configurationSchema(), null, 2)}\n`],
    [
      'deploy/ocicrypt-kms.service',
      serviceUnit(['/usr/local/bin/ocicrypt-kms', 'serve', ...DEFAULT_OPTIONS, AUDIT_LOG]),
    ],
    ['deploy/ocicrypt-kms.socket', SOCKET_UNIT],
  ]);
}

function configurationDocument(): string {
  const groups = Object.entries(OPTION_GROUPS).map(([title, group]) => {
    const rows = Object.keys(group).filter(isOptionName).map(optionRow);
    return `### ${title}\n\n| option | in a file | meaning | default |\n|---|---|---|---|\n${rows.join('\n')}`;
  });
  const forms = [...FORMS].map(([word, text]) => `| \`${word}\` | ${escapeCell(text)} |`);
  return `<!-- made by npm run docs from src/cli/options/table.ts -->
# Configuration

Every option can be given on the command line, and most of them in a YAML or JSON file that \`--config=FILE\` names. An option on the command line replaces what the file says of it. Unknown members are errors. The file's JSON Schema is [configuration.schema.json](configuration.schema.json).

\`\`\`yaml
allow:
  - gcpkms://projects/example/locations/global/keyRings/images/*
context:
  env: prod
audit-log: /var/log/ocicrypt-kms/audit.jsonl
gcpkms:
  quota-project: example
\`\`\`

As \`kms_oci_crypt\` the command takes the same options, with one dash or two, and \`=\` or a space before the value.

## Options

\`ocicrypt-kms help COMMAND\` shows which of them a command takes. A repeatable option is a list in a file, or a mapping if it takes \`NAME=VALUE\`.

| word | how it is written |
|---|---|
${forms.join('\n')}

${groups.join('\n\n')}

## Environment

Our code reads no other variable.

| variable | meaning |
|---|---|
${environmentRows().join('\n')}
`;
}

/** What variables are for, by their names; the first that fits. */
const ENVIRONMENT: readonly (readonly [RegExp, string])[] = [
  [/^OCICRYPT_/, 'the file that names key providers; skopeo, buildah, podman and ctd-decoder read it too'],
  [/^HTTPS_PROXY|^NO_PROXY/i, 'the proxy to key services and registries, and hosts to reach without it'],
  [
    /^SSL_CERT_/,
    "a PEM file and directories of them, trusted beside the system's roots; both together replace those, as in Go",
  ],
  [
    /^NODE_TLS_/,
    'with `0` every command refuses to start. `NODE_EXTRA_CA_CERTS` has no effect: use `--ca` or `SSL_CERT_FILE`',
  ],
  [/^(?:GOOGLE|CLOUDSDK|GCE|METADATA|CLOUD_RUN|K)_/, "Google's: [keys.md](keys.md#google-cloud-kms)"],
  [/^AWS_/, "AWS's: [keys-aws.md](keys-aws.md)"],
  [/^(?:AZURE|DEFAULT_IDENTITY|IDENTITY|IMDS|MSI)_/, "Azure's: [keys-azure.md](keys-azure.md)"],
  [/^(?:VAULT|BAO)_/, "Vault's and OpenBao's: [keys-vault.md](keys-vault.md)"],
  [/^(?:REGISTRY_AUTH_FILE|DOCKER_CONFIG|XDG_CONFIG_HOME)$/, 'where files with credentials of registries are'],
  [/^LISTEN_/, 'sockets that systemd hands over to `serve`'],
  [/^NOTIFY_SOCKET$/, 'where `serve` tells systemd that it serves'],
  [
    /^(?:HOME|PATH|XDG_DATA_HOME|XDG_RUNTIME_DIR)$/,
    "the user's files, programs to run, a store of containerd without root, the directory of the default socket",
  ],
  [/^STREAM_PROCESSOR_MEDIATYPE$/, 'set by containerd for a decoder: the type of the layer'],
];

function environmentRows(): readonly string[] {
  const meaningOf = (name: string) => ENVIRONMENT.find(([pattern]) => pattern.test(name))?.[1];
  const names = [...VARIABLES.keys()];
  const unknown = names.find((name) => meaningOf(name) === undefined);
  if (unknown !== undefined) throw new Error(`the document says nothing of ${unknown}`);
  return ENVIRONMENT.map(([, meaning]) => {
    const ours = names.filter((name) => meaningOf(name) === meaning);
    return `| ${ours.map((name) => `\`${name}\``).join(', ')} | ${meaning} |`;
  });
}

function optionRow(name: OptionName): string {
  const { kind, value, describe, fallback } = optionSpec(name);
  const text = isRepeatable(kind) ? `${describe}; repeatable` : describe;
  const member = configurationPath(name)?.join('.');
  const flag = `--${name}${value === undefined ? '' : `=${value}`}`;
  return `| \`${escapeCell(flag)}\` | ${member === undefined ? '' : `\`${member}\``} | ${escapeCell(text)} | ${fallback ?? ''} |`;
}

function escapeCell(text: string): string {
  return text.replaceAll('|', '\\|');
}

function configurationSchema(): object {
  const properties: Record<string, object> = {};
  const sections = new Map<string, Record<string, object>>();
  for (const name of OPTION_NAMES) {
    const [first, second] = configurationPath(name) ?? [];
    if (first === undefined) continue;
    if (second === undefined) properties[first] = memberSchema(name);
    else sections.set(first, { ...sections.get(first), [second]: memberSchema(name) });
  }
  for (const [section, members] of sections) properties[section] = closedObject(members);
  return {
    $schema: 'https://json-schema.org/draft/2020-12/schema',
    title: 'ocicrypt-kms configuration',
    ...closedObject(properties),
  };
}

function memberSchema(name: OptionName): object {
  const { kind, choices, describe: description } = optionSpec(name);
  const text = { type: 'string', minLength: 1 };
  const schemas: { readonly [kind in OptionSpec['kind']]: object } = {
    list: { type: 'array', items: text },
    text,
    choice: { enum: choices },
    pairs: { type: 'object', additionalProperties: { type: 'string' } },
    count: { type: 'integer', minimum: 1, maximum: 999_999 },
    duration: { type: 'string', pattern: '^[0-9]{1,6}(ms|s|m|h)$' },
    switch: { type: 'boolean' },
  };
  return { description, ...schemas[kind] };
}

function closedObject(properties: Readonly<Record<string, object>>): object {
  return { type: 'object', properties, additionalProperties: false };
}
