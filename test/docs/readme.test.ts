// The documents say what is there: commands, options, error codes and links are compared with the tables of the source.

import assert from 'node:assert/strict';
import { existsSync, globSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { ERROR_STATUS, GRPC_STATUS } from '../../src/base/errors.ts';
import { COMMANDS } from '../../src/cli/commands.ts';
import { OPTIONS } from '../../src/cli/options/table.ts';
import { Instruments } from '../../src/server/instruments.ts';
import { realClients } from '../real-clients/tools.ts';
import { startClouds } from './clouds.ts';
import { blocksOf, createPlayground, PROJECT, readDocument, runTranscript } from './transcript.ts';

/** Options of skopeo, podman, gcloud, aws, az, npm and docker, which documents show too. */
const FOREIGN = new Set([
  ...['encryption-key', 'decryption-key', 'encrypt-layer', 'raw', 'all', 'global'],
  ...['description', 'query', 'output', 'vault-name', 'name', 'kty', 'size', 'ops'],
  ...['location', 'keyring', 'purpose', 'member', 'role', 'service-account', 'credential-source-file', 'output-file'],
]);

const DOCUMENTS = globSync(['*.md', 'docs/*.md'], { cwd: PROJECT }).sort();

test("the README's commands work in the order in which they stand", async (t) => {
  if (!(await realClients(t, ['skopeo']))) return;
  const playground = await createPlayground(t, ['skopeo']);
  const { environment, servers } = await startClouds(t, playground.home);
  await runTranscript(await readDocument('README.md'), playground, environment);
  // Three layers there and back, with Google one call each way.
  assert.equal(servers.google.requests.length, 6);
  for (const [name, { requests }] of Object.entries(servers)) assert.ok(requests.length >= 6, name);
});

test('the README lists every command and none that is not there', async () => {
  const readme = await readDocument('README.md');
  const named = [...readme.matchAll(/^\| `ocicrypt-kms ([a-z]+)/gm)].map(([, name]) => name);
  assert.deepEqual(named, [...COMMANDS.keys()]);
});

for (const name of ['README.md', 'docs/walkthrough.md']) {
  test(`${name} shows commands and options that there are`, async () => {
    const document = await readDocument(name);
    const code = [...blocksOf(document).map(({ text }) => text), ...inlineCode(document)].join('\n');
    for (const [, command = ''] of code.matchAll(/(?<![\w./-])ocicrypt-kms ([a-z]+)/g)) {
      assert.ok(COMMANDS.has(command), `ocicrypt-kms ${command}`);
    }
    for (const [, option = ''] of code.matchAll(/(?<=^|[\s"[(])--([A-Za-z][\w-]*)/gm)) {
      assert.ok(option in OPTIONS || option === 'version' || FOREIGN.has(option), `--${option}`);
    }
  });
}

test('docs/configuration.md has every option', async () => {
  const document = await readDocument('docs/configuration.md');
  for (const option of Object.keys(OPTIONS)) assert.match(document, new RegExp(`^\\| \`--${option}[=\`]`, 'm'));
});

test('docs/errors.md has every code with both of its statuses, and no other', async () => {
  const document = await readDocument('docs/errors.md');
  const rows = [...document.matchAll(/^\| `([a-z-]+)` \| (\d+) \| ([A-Z_]+) \|/gm)];
  const statuses = new Map<string, number>(Object.entries(GRPC_STATUS));
  assert.deepEqual(
    Object.fromEntries(
      rows.map(([, code, exit, grpc = '']) => [code, { exit: Number(exit), grpc: statuses.get(grpc) }]),
    ),
    { ...ERROR_STATUS },
  );
});

test('docs/server.md has every metric, and no other', async () => {
  const instruments = new Instruments();
  const zero = () => 0;
  instruments.read({ connections: zero, activeCalls: zero, queuedCalls: zero, bufferedBytes: zero });
  const named = [...(await readDocument('docs/server.md')).matchAll(/`((?:ocicrypt_kms|process)_[a-z_]+)`/g)];
  const made = [...instruments.render().matchAll(/^# TYPE ([a-z_]+) /gm)];
  assert.deepEqual(named.map(([, name]) => name).sort(), made.map(([, name]) => name).sort());
});

for (const name of DOCUMENTS) {
  test(`the links of ${name} lead somewhere`, async () => {
    const document = withoutBlocks(await readDocument(name));
    for (const [, target = ''] of document.matchAll(/\]\(([^)\s]+)\)/g)) {
      if (/^[a-z]+:/.test(target)) continue;
      const [path = '', anchor] = target.split('#');
      const file = path === '' ? name : join(dirname(name), path);
      assert.ok(existsSync(join(PROJECT, file)), target);
      if (anchor !== undefined) assert.ok(anchorsOf(await readDocument(file)).includes(anchor), target);
    }
  });
}

test('the README leads to every document, by one link or several', async () => {
  const seen = new Set<string>();
  const follow = async (file: string): Promise<void> => {
    if (seen.has(file)) return;
    seen.add(file);
    const document = withoutBlocks(await readDocument(file));
    for (const [, target = ''] of document.matchAll(/\]\(([^)\s#]+\.md)(?:#[^)]*)?\)/g))
      if (!/^[a-z]+:/.test(target)) await follow(join(dirname(file), target));
  };
  await follow('README.md');
  assert.deepEqual(
    DOCUMENTS.filter((name) => !seen.has(name)),
    [],
  );
});

function withoutBlocks(document: string): string {
  return document.replace(/^```.*?^```$/gms, '');
}

function inlineCode(document: string): readonly string[] {
  return [...withoutBlocks(document).matchAll(/`([^`\n]+)`/g)].map(([, text = '']) => text);
}

/** As GitHub makes them of headings. */
function anchorsOf(document: string): readonly string[] {
  return [...withoutBlocks(document).matchAll(/^#+ (.*)$/gm)].map(([, heading = '']) =>
    heading
      .toLowerCase()
      .replace(/[^\p{L}\p{N} _-]/gu, '')
      .replaceAll(' ', '-'),
  );
}
