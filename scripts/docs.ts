// Writes the documents that are made from the table of options, and the units of deploy/; a test compares them.

import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { DEFAULT_OPTIONS, SOCKET_UNIT, serviceUnit } from '../src/cli/config-systemd.ts';
import { FORMS } from '../src/cli/options/forms.ts';
import { OPTION_NAMES } from '../src/cli/options/settings.ts';
import type { OptionSpec } from '../src/cli/options/spec.ts';
import {
  configurationPath,
  isOptionName,
  OPTION_GROUPS,
  type OptionName,
  optionSpec,
} from '../src/cli/options/table.ts';
import { PROJECT } from './process.ts';

/** The generated documents: path from the project's root, and content. */
export function generatedDocuments(): ReadonlyMap<string, string> {
  return new Map([
    ['docs/configuration.md', configurationDocument()],
    ['docs/configuration.schema.json', `${JSON.stringify(configurationSchema(), null, 2)}\n`],
    ['deploy/ocicrypt-kms.service', serviceUnit(['/usr/local/bin/ocicrypt-kms', 'serve', ...DEFAULT_OPTIONS])],
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

\`ocicrypt-kms help COMMAND\` shows which of them a command takes. An option that takes a list or \`NAME=VALUE\` is repeatable; in a file it is a list, or names and values.

| word | how it is written |
|---|---|
${forms.join('\n')}

${groups.join('\n\n')}

## Environment

| variable | meaning |
|---|---|
| \`OCICRYPT_KEYPROVIDER_CONFIG\` | read by skopeo, buildah, podman and ctd-decoder: the file that names key providers |
| \`SSL_CERT_FILE\`, \`SSL_CERT_DIR\` | a PEM file and directories of them, trusted beside the system's roots; both together replace those, as in Go |
| \`NODE_EXTRA_CA_CERTS\`, \`NODE_TLS_REJECT_UNAUTHORIZED\` | the first has no effect: name authorities with \`--ca\` or \`SSL_CERT_FILE\`; with the second at 0 every command refuses to start |
| \`HTTPS_PROXY\`, \`NO_PROXY\` | the proxy to key services, and hosts to reach without it |
| \`GOOGLE_APPLICATION_CREDENTIALS\`, \`CLOUDSDK_CONFIG\`, \`GCE_METADATA_HOST\`, \`METADATA_SERVER_DETECTION\`, \`GOOGLE_CLOUD_QUOTA_PROJECT\`, \`GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES\` | Google's Application Default Credentials |
| \`AWS_ACCESS_KEY_ID\`, \`AWS_PROFILE\`, \`AWS_REGION\`, \`AWS_WEB_IDENTITY_TOKEN_FILE\` and the rest of the SDK's chain; \`AWS_ENDPOINT_URL_KMS\`, \`AWS_ENDPOINT_URL\`, \`AWS_USE_FIPS_ENDPOINT\`, \`AWS_USE_DUALSTACK_ENDPOINT\` | AWS's own: [keys-aws.md](keys-aws.md) |
| \`AZURE_TENANT_ID\`, \`AZURE_CLIENT_ID\`, \`AZURE_CLIENT_SECRET\`, \`AZURE_CLIENT_CERTIFICATE_PATH\`, \`AZURE_FEDERATED_TOKEN_FILE\`, \`AZURE_TOKEN_CREDENTIALS\`, \`AZURE_AUTHORITY_HOST\` | Azure's own: [keys-azure.md](keys-azure.md) |
`;
}

function optionRow(name: OptionName): string {
  const { value, describe, fallback } = optionSpec(name);
  const member = configurationPath(name)?.join('.');
  const flag = `--${name}${value === undefined ? '' : `=${value}`}`;
  return `| \`${escapeCell(flag)}\` | ${member === undefined ? '' : `\`${member}\``} | ${escapeCell(describe)} | ${fallback ?? ''} |`;
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

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  for (const [file, content] of generatedDocuments()) writeFileSync(join(PROJECT, file), content);
}
