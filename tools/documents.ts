// The documents that are made from the table of options, and the units of deploy/.

import { VARIABLES } from '../src/base/environment.ts';
import { COMMANDS } from '../src/cli/commands.ts';
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
  variableOf,
} from '../src/cli/options/table.ts';
import { admissionSchema } from './admission-schema.ts';
import { chartSchema } from './chart-schema.ts';
import { outputSchemas } from './output-schemas.ts';

/** The generated documents: path from the project's root, and content. */
export function generatedDocuments(): ReadonlyMap<string, string> {
  return new Map([
    ['docs/configuration.md', configurationDocument()],
    ['docs/configuration.schema.json', `${JSON.stringify(configurationSchema(), null, 2)}\n`],
    ['deploy/helm/ocicrypt-kms/values.schema.json', `${JSON.stringify(chartSchema(configurationObject()), null, 2)}\n`],
    admissionSchema(),
    ...outputSchemas(),
    [
      'deploy/ocicrypt-kms.service',
      serviceUnit(['/usr/local/bin/ocicrypt-kms', 'serve', ...DEFAULT_OPTIONS, AUDIT_LOG]),
    ],
    ['deploy/ocicrypt-kms.socket', SOCKET_UNIT],
  ]);
}

function configurationDocument(): string {
  const openCommands = [...COMMANDS]
    .filter(([, { isOpen }]) => isOpen)
    .map(([name]) => `\`${name}\``)
    .join(', ');
  const policyOptions = OPTION_NAMES.filter((name) => optionSpec(name).isPolicy)
    .map((name) => `\`${name}\``)
    .join(', ');
  const groups = Object.entries(OPTION_GROUPS).map(([title, group]) => {
    const rows = Object.keys(group).filter(isOptionName).map(optionRow);
    return `### ${title}\n\n| option | in a file | variable | meaning | default |\n|---|---|---|---|---|\n${rows.join('\n')}`;
  });
  const forms = [...FORMS].map(([word, text]) => `| \`${word}\` | ${escapeCell(text)} |`);
  return `<!-- made by npm run docs from src/cli/options/table.ts -->
# Configuration

Every option can be given on the command line, and most of them in a YAML or JSON file that \`--config=FILE\` names. Unknown members are errors. The file's JSON Schema is [configuration.schema.json](configuration.schema.json).

\`\`\`yaml
allow:
  - gcpkms://projects/example/locations/global/keyRings/images/*
context:
  env: prod
audit-log: /var/log/ocicrypt-kms/audit.jsonl
gcpkms:
  quota-project: example
\`\`\`

## What goes before what

| | said by | for which commands |
|---|---|---|
| 1 | the option on the command line | all |
| 2 | its variable, \`OCICRYPT_KMS_…\` | ${openCommands} |
| 3 | the file that \`--config\` or \`OCICRYPT_KMS_CONFIG\` names | all that take \`--config\` |
| 4 | without such a file, one that is found | as variables |
| 5 | the default | all |

The first that says anything of an option decides; nothing is merged. If the command line names recipients, variables name none.

**Commands that other programs start** (\`keyprovider\`, \`decoder\`, \`serve\` and all others that row 2 does not name) are told everything by their caller: they read no variable of the table below, and look for no file. Their environment comes from anywhere.

**Variables** are for pipelines. One that may be repeated holds one value in each line, a switch \`true\` or \`false\`. A misspelt \`OCICRYPT_KMS_…\`, and one that is empty, is an error: a demand must not vanish in silence. Those of options that the command does not take are left alone. Not every option has one: none has a secret for its value, and none of those that name files of secrets but \`--key\` has a variable; what widens what is accepted (\`--insecure-…\`, \`--allow-absent\`) and what changes what a command does (\`--dry-run\`, \`--unwrap\`, \`--content\`) is to be seen where the command is; settings of key services have the variables of their vendors (\`AWS_REGION\`, \`VAULT_ADDR\`); options of the server are for its unit or file.

**A file is found** as \`$XDG_CONFIG_HOME/ocicrypt-kms/config.yaml\`, or else \`~/.config/ocicrypt-kms/config.yaml\`; if there is none, as \`/etc/ocicrypt-kms/config.yaml\`. The first that is there is the only one. What it may not say: policy (${policyOptions}), which a caller names, and \`timeout\`, which for an image command is the time of all of it. A warning tells what does not count, and \`verify\` refuses to go on if that is \`require\` or \`only\`. The file, and the directory that it lies in, must belong to you or root, and no other user may write them; otherwise the command ends with \`configuration\`. Where \`CI\` is set, and where the program runs with the rights of another user (setuid), only the file below \`/etc\` is looked for: a pipeline's home may hold what it builds, or what another pipeline has left. A file that \`--config\` or the webhook's \`--policy\` names is refused if every user can write it, or if it belongs to neither you nor root and every user can write its directory. \`ocicrypt-kms doctor\` says which file is found and what of it counts.

As \`kms_oci_crypt\` the command takes the same options, with one dash or two, and \`=\` or a space before the value.

## Options

\`ocicrypt-kms help COMMAND\` shows which of them a command takes. A repeatable option is a list in a file, or a mapping if it takes \`NAME=VALUE\`.

| word | how it is written |
|---|---|
${forms.join('\n')}

${groups.join('\n\n')}

## Environment

Beside those of options our code reads no other variable.

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
  [
    /^(?:REGISTRY_AUTH_FILE|DOCKER_CONFIG|XDG_CONFIG_HOME)$/,
    'where files with credentials of registries are; below the last also our configuration file',
  ],
  [/^LISTEN_/, 'sockets that systemd hands over to `serve`'],
  [
    /^KUBERNETES_/,
    'the API server of the cluster, which Kubernetes tells every pod, for `node agent` and `node dismiss`',
  ],
  [/^NOTIFY_SOCKET$/, 'where `serve` tells systemd that it serves'],
  [
    /^(?:HOME|PATH|XDG_DATA_HOME|XDG_RUNTIME_DIR)$/,
    "the user's files, programs to run, a store of containerd without root, the directory of the default socket",
  ],
  [/^TERM$/, 'with `dumb`, or unset, no progress is drawn'],
  [/^CI$/, 'set by pipelines: no configuration file is looked for in the home'],
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
  const variable = variableOf(name);
  return `| \`${escapeCell(flag)}\` | ${member === undefined ? '' : `\`${member}\``} | ${variable === undefined ? '' : `\`${variable}\``} | ${escapeCell(text)} | ${fallback ?? ''} |`;
}

function escapeCell(text: string): string {
  return text.replaceAll('|', '\\|');
}

function configurationSchema(): object {
  return {
    $schema: 'https://json-schema.org/draft/2020-12/schema',
    title: 'ocicrypt-kms configuration',
    ...configurationObject(),
  };
}

function configurationObject(): object {
  const properties: Record<string, object> = {};
  const sections = new Map<string, Record<string, object>>();
  for (const name of OPTION_NAMES) {
    const [first, second] = configurationPath(name) ?? [];
    if (first === undefined) continue;
    if (second === undefined) properties[first] = memberSchema(name);
    else sections.set(first, { ...sections.get(first), [second]: memberSchema(name) });
  }
  for (const [section, members] of sections) properties[section] = closedObject(members);
  return closedObject(properties);
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
