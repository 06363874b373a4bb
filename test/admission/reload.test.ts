// What changes while a webhook runs: its policy file, its certificate; and what it is started with.
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { openCourts } from '../../src/cli/admission-policy.ts';
import { ADMISSION_OPTIONS } from '../../src/cli/options/sets.ts';
import { parseSettings } from '../../src/cli/options/settings.ts';
import { createKeyfile } from '../../src/kms/keyfile/key.ts';
import { runCommand } from '../fixtures/terminal.ts';
import { rejects, scratch } from '../image/harness.ts';
import { podOf, startWorld } from './world.ts';

const directory = await scratch({ after });
const file = join(directory, 'policy.yaml');

async function open(yaml: string, ...words: readonly string[]) {
  await writeFile(file, yaml);
  const terminal = {
    read: async () => new Uint8Array(),
    write: () => undefined,
    say: () => undefined,
    streams: async () => assert.fail('no stream is used'),
  };
  const settings = await parseSettings([`--policy=${file}`, ...words], ADMISSION_OPTIONS);
  const logs = { audit: undefined, log: undefined };
  const setup = { logs, isInCluster: false, onVerdict: () => undefined };
  return openCourts({ settings, personality: 'ocicrypt-kms', terminal }, setup);
}

test('a policy is read again when its file changes; a broken or removed one leaves the old, and is told once', async () => {
  const courts = await open('rules: [{name: one}]');
  const names = () => courts.current.policy.rules.map(({ name }) => name);
  assert.equal(courts.hasChanged(), false);
  await writeFile(file, 'rules: [{name: two}, {name: never}]');
  assert.equal(courts.hasChanged(), true);
  await rejects('configuration', courts.reread());
  assert.deepEqual([names(), courts.hasChanged()], [['one'], false]);
  await rm(file);
  assert.equal(courts.hasChanged(), true);
  await rejects('configuration', courts.reread());
  assert.deepEqual([names(), courts.hasChanged()], [['one'], false]);
  await writeFile(file, 'rules: [{name: three}]');
  assert.equal(courts.hasChanged(), true);
  await courts.reread();
  assert.deepEqual([names(), courts.hasChanged()], [['three'], false]);
  await courts.close();
});

test('of two readings at once that of the newer file holds, whichever ends first', async () => {
  const key = join(directory, 'slow.key');
  const required = `unwrap: true, require: ['${createKeyfile(key)}']`;
  const courts = await open(`rules: [{name: one, ${required}}]`, `--key=${key}`);
  // A policy of many rules takes longer than one of a single rule.
  const many = Array.from({ length: 50 }, (_, index) => `{name: two${index}, namespaces: [n${index}], ${required}}`);
  writeFileSync(file, `rules: [${many.join()}]`);
  const first = courts.reread();
  writeFileSync(file, 'rules: [{name: three, unwrap: true}]');
  const second = courts.reread();
  await Promise.all([second, first]);
  assert.deepEqual(
    courts.current.policy.rules.map(({ name }) => name),
    ['three'],
  );
  await courts.close();
});

test('keys are for rules that say unwrap, and the API server is there inside a cluster alone', async () => {
  const key = join(directory, 'app.key');
  const thumbprint = createKeyfile(key);
  await rejects('configuration', open('rules: [{name: a}]', `--key=${key}`));
  await rejects('configuration', open('rules: [{name: a, pull-secrets: true}]'));
  await rejects('configuration', open('rules: [{name: a, namespace-labels: {b: c}}]'));
  const courts = await open(`rules: [{name: a, unwrap: true, require: ['${thumbprint}']}]`, `--key=${key}`);
  await courts.close();
});

test('what is missing on the command line is told before anything listens', async () => {
  await writeFile(file, 'rules: [{name: one}]');
  const tls = ['--tls-cert=/nowhere/tls.crt', '--tls-key=/nowhere/tls.key'];
  for (const [words, status] of [
    [[], 78],
    [[`--policy=${file}`], 78],
    [[`--policy=${file}`, ...tls], 78],
    [[`--policy=${file}`, ...tls, '--listen=tls://127.0.0.1:0'], 78],
    [['--listen=unix:///nowhere/socket', ...tls], 78],
    [['--address=127.0.0.1:8443'], 64],
  ] as const) {
    const result = await runCommand(['admission', ...words]);
    assert.equal(result.status, status, result.stderr);
  }
});

test('a certificate that has expired is refused by callers until it is replaced; a broken one changes nothing', async (t) => {
  const world = await startWorld(t);
  const { server, instruments, image, issue, certificate, agent } = world;
  const isServed = async () => {
    agent.destroy();
    return world.ask(podOf(image('app:1'))).then(
      ({ allowed }) => allowed,
      () => 'refused',
    );
  };
  const expiry = () => Number(/not_after_seconds (\d+)/.exec(instruments.render())?.[1]);
  assert.equal(await isServed(), true);
  assert.ok(expiry() * 1000 > Date.now());
  await issue({ expired: true });
  await server.reload();
  assert.ok(expiry() * 1000 < Date.now());
  assert.equal(await isServed(), 'refused');
  await issue({});
  await server.reload();
  assert.equal(await isServed(), true);
  await writeFile(certificate, 'nonsense');
  await server.reload();
  assert.equal(await isServed(), true);
  assert.match(instruments.render(), /certificate_reloads_total\{result="failed"\} 1\n/);
  assert.ok(expiry() * 1000 > Date.now(), 'one that cannot be read is not one that has expired');
});
