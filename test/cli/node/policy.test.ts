// The policy that `node install` writes: what no decoder could use is refused, and the one that is there stays.
import assert from 'node:assert/strict';
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, test } from 'node:test';
import { COMMANDS } from '../../../src/cli/commands.ts';
import { policyText } from '../../../src/cli/node/policy.ts';
import { parseSettings } from '../../../src/cli/options/settings.ts';
import { POLICY_FILE } from '../../../src/node/drop-in.ts';

const root = mkdtempSync(join(tmpdir(), 'node-policy-'));
after(() => rmSync(root, { recursive: true }));
const KEY = join(root, 'app.key');
writeFileSync(KEY, new Uint8Array(32), { mode: 0o600 });
const OPEN = join(root, 'open.key');
writeFileSync(OPEN, new Uint8Array(32));
// Whatever the umask.
chmodSync(OPEN, 0o644);

async function policyOf(words: readonly string[], options: Partial<Parameters<typeof policyText>[1]> = {}) {
  const settings = await parseSettings(words, COMMANDS.get('node')?.options ?? []);
  return policyText({ settings, given: settings.names() }, { root, isService: false, hasKeyFiles: true, ...options });
}

test('keys are written with the other settings', async () => {
  const text = await policyOf([`--key=${KEY}`, '--allow=hashivault://images', '--timeout=20s', '--dry-run']);
  assert.match(text ?? '', new RegExp(`^key:\n {2}- "${KEY}"$`, 'm'));
  assert.match(text ?? '', /^allow:\n {2}- "hashivault:\/\/images"\ntimeout: "20s"$/m);
  assert.doesNotMatch(text ?? '', /dry-run/);
});

const ALLOW = '--allow=hashivault://images';
for (const [said, words, code, hint] of [
  ['nothing', [], 'configuration', /--allow=KEY/],
  ['settings without a key', ['--audit-log=/var/log/a.log', '--timeout=5s'], 'configuration', /--allow=KEY/],
  ['more time than a client waits', [ALLOW, '--timeout=5m'], 'usage', undefined],
  ['a server that is no address', ['--remote=/run/x.sock'], 'configuration', /unix:\/\//],
  ['a server over TLS without its authorities', ['--remote=tls://kms.example:443'], 'usage', /--tls-ca/],
  ['an audit log of a server', ['--remote=unix:///run/x.sock', '--audit-log=/a'], 'configuration', undefined],
  ['a key that is none', ['--allow=images'], 'configuration', /keys look like/],
  ['a key file as a key', [`--key=keyfile://${KEY}`], 'configuration', /--allow=keyfile:/],
  ['a key file that is not there', ['--key=/nowhere/app.key'], 'not-found', /check its name/],
  ['a key file that others can read', [`--key=${OPEN}`], 'configuration', /chmod 600/],
  ['a label that is not usable', [ALLOW, '--context=a b=x'], 'usage', /a name is a letter/],
] as const) {
  test(`${said} is refused before anything is written`, async () => {
    await assert.rejects(policyOf(words), (error: Error & { code?: unknown; hint?: unknown }) => {
      assert.equal(error.code, code, String(error));
      if (hint !== undefined) assert.match(String(error.hint), hint);
      return true;
    });
  });
}

test('in the build of an image a key file need not be there yet', async () => {
  assert.match((await policyOf(['--key=/nowhere/app.key'], { hasKeyFiles: false })) ?? '', /nowhere/);
});

test('the policy that is there stays, and options that name no key do not replace it', async () => {
  const path = join(root, POLICY_FILE);
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, 'allow:\n  - hashivault://images\n');
  assert.equal(await policyOf(['--no-restart', '--dry-run']), undefined);
  await assert.rejects(policyOf(['--audit-log=/var/log/a.log']), /nothing says which keys/);
});
