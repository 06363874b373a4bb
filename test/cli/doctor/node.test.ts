// What a machine's runtimes are found to do, by root and by another user.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import type { CommandContext } from '../../../src/cli/command.ts';
import { examineNode } from '../../../src/cli/doctor/node.ts';
import { Settings } from '../../../src/cli/options/settings.ts';
import { containerdDropIn } from '../../../src/node/drop-in.ts';
import type { Containerd } from '../../../src/node/runtimes.ts';

const directory = mkdtempSync(join(tmpdir(), 'doctor-node-'));
after(() => rmSync(directory, { recursive: true }));
const config = join(directory, 'config.toml');
const policy = join(directory, 'policy.yaml');

const settings = new Settings(new Map());
const context: CommandContext = {
  settings,
  given: [],
  personality: 'ocicrypt-kms',
  reread: async () => settings,
  terminal: {
    read: () => assert.fail('nothing is read'),
    write: () => assert.fail('nothing is written'),
    streams: () => assert.fail('there are no streams'),
    say: () => undefined,
  },
};
const containerd: Containerd = {
  kind: 'containerd',
  program: undefined,
  config,
  version: undefined,
  running: undefined,
  unit: undefined,
};

/** What is found with this policy. */
async function find(text: string, isRoot = true): Promise<string> {
  writeFileSync(policy, text);
  writeFileSync(
    config,
    containerdDropIn({ kind: 'ocicrypt-kms', words: ['/bin/sh', 'decoder', `--config=${policy}`] }),
  );
  const runtimes = { containerds: [containerd], crio: undefined, hasDocker: false, hasPodman: false };
  const findings = await examineNode(context, runtimes, 'machine', isRoot);
  return findings.map(({ level, message, hint = '' }) => `${level} ${message}; ${hint}`).join('\n');
}

test('another user than root is told that decoders were not tried, and of none that its key is missing', async () => {
  const text = 'key:\n  - /nowhere/app.key\n';
  const asRoot = await find(text);
  assert.match(asRoot, /^fail no layer could be encrypted to try it: not-found/m);
  // Once for each processor, and not for each type.
  assert.equal(asRoot.match(/no layer could be encrypted/g)?.length, 2);
  assert.match(await find(text, false), /^warn has decoders that were not tried: .*; run this as root$/);
});

test('a policy without a key, and a content store that is nowhere, are wrong whatever a made-up layer shows', async () => {
  assert.match(await find('key: []\n'), /^fail configuration: no key is allowed in \S+policy\.yaml; name the keys/);
  assert.match(
    await find('allow:\n  - hashivault://images\ncontent-store: /nowhere\n'),
    /^fail not-found: \/nowhere holds no content store of containerd; name the root/,
  );
});
