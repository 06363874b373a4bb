// Which command takes which option: what would have no effect is refused, in every mode of every command.
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { COMMANDS } from '../../src/cli/commands.ts';
import { type OptionName, optionSpec } from '../../src/cli/options.ts';
import { OPTION_NAMES } from '../../src/cli/settings.ts';
import { runCommand } from '../fixtures/terminal.ts';

const directory = mkdtempSync(join(tmpdir(), 'modes-'));
after(() => rmSync(directory, { recursive: true, force: true }));

function word(name: OptionName): string {
  const { kind, choices, value } = optionSpec(name);
  if (kind === 'switch') return `--${name}`;
  if (kind === 'choice') return `--${name}=${choices?.[0]}`;
  if (kind === 'pairs') return value === 'KEY=FILE' ? `--${name}=kbs:///a/b/c=/nowhere` : `--${name}=env=prod`;
  if (kind === 'count') return `--${name}=7`;
  return kind === 'duration' ? `--${name}=1s` : `--${name}=/nowhere/x`;
}

for (const [command, { options, mode, operands }] of COMMANDS) {
  const words = operands === '' || operands.endsWith(']…') ? [] : operands.split(' ').map(() => '/nowhere');
  test(`${command} refuses every option of another command`, async () => {
    for (const name of OPTION_NAMES.filter((one) => one !== 'help' && !options.includes(one))) {
      const { status, stderr } = await runCommand([command, ...words, word(name)]);
      assert.deepEqual([status, /unknown option/.test(stderr)], [64, true], `--${name}: ${stderr}`);
    }
  });
  if (mode === undefined) continue;
  test(`${command} --${mode.option} refuses what has no effect with it, and without it what needs it`, async () => {
    const address = '--remote=unix:///nowhere/socket';
    for (const name of options.filter((one) => one !== mode.option && one !== 'config' && one !== 'debugLog')) {
      const withMode = await runCommand([command, address, '--timeout=1s', word(name)], '{}');
      const refused = / has no effect with --remote/.test(withMode.stderr);
      assert.equal(refused, !mode.takes.includes(name), `--${name}: ${withMode.stderr}`);
      if (refused) assert.equal(withMode.status, 64);
      if (!mode.alone.includes(name)) continue;
      const without = await runCommand([command, word(name)], '{}');
      assert.deepEqual([without.status, / has no effect without --remote/.test(without.stderr)], [64, true]);
    }
  });
}

test('an audit log that a configuration file names is not left unwritten beside --remote', async () => {
  const file = join(directory, 'config.yaml');
  writeFileSync(file, `audit-log: ${join(directory, 'audit')}\n`);
  const { status, stderr } = await runCommand(['keyprovider', '--remote=unix:///nowhere', `--config=${file}`], '{}');
  assert.equal(status, 78, stderr);
});

describe('config takes what shows in the file that it prints', () => {
  for (const [kind, takes] of Object.entries({
    ocicrypt: ['allow', 'key', 'adc', 'provider'],
    containerd: [],
    crio: [],
    systemd: ['allow', 'key', 'adc', 'provider'],
    'systemd-socket': [],
    policy: ['allow', 'key'],
  })) {
    test(kind, async () => {
      for (const name of ['allow', 'key', 'adc', 'provider'] as const) {
        const { status, stdout } = await runCommand(['config', kind, `--${name}=/nowhere/shown`]);
        const taken = takes.some((one) => one === name);
        assert.deepEqual([status, stdout.includes('/nowhere/shown')], taken ? [0, true] : [64, false], name);
      }
    });
  }
});

describe('how people who come from the reference provider call', () => {
  test('its options without a command are told where the command stands', async () => {
    for (const [words, command] of [
      [['--adc=/x', '--kmsURI=gcpkms://x'], 'keyprovider'],
      [['-kmsURI', 'gcpkms://x'], 'keyprovider'],
      [['--debugLog=/x'], 'keyprovider'],
      [['--grpcport=:50051'], 'serve'],
    ] as const) {
      const { status, stderr } = await runCommand(words);
      assert.equal(status, 64);
      assert.match(stderr, new RegExp(`put ${command} first`));
    }
    assert.equal((await runCommand(['--allow=x'])).status, 64);
  });
  test('kms_oci_crypt keyprovider is kms_oci_crypt', async () => {
    const results = await Promise.all([
      runCommand(['keyprovider', '--timeout', '5s'], '{}', '/usr/bin/kms_oci_crypt'),
      runCommand(['-timeout', '5s'], '{}', '/usr/bin/kms_oci_crypt'),
    ]);
    assert.deepEqual(results[0], results[1]);
    assert.equal(results[0].status, 65);
  });
});

describe('--debugLog holds the failure that a client may have lost', () => {
  const failure = (file: string) => {
    const lines = readFileSync(file, 'utf8').trimEnd().split('\n');
    const last: Readonly<Record<string, unknown>> = JSON.parse(lines.at(-1) ?? '');
    return last;
  };
  test('its code, message, hint, frames and causes', async () => {
    const file = join(directory, 'debug.log');
    const missing = join(directory, 'missing.key');
    const { status } = await runCommand(['doctor', `keyfile://${missing}`, `--debugLog=${file}`]);
    assert.equal(status, 66);
    const { msg, command, error } = failure(file);
    assert.deepEqual([msg, command], ['failed', 'doctor']);
    const text = JSON.stringify(error);
    assert.match(text, /"code":"not-found"/);
    assert.ok(text.includes(missing) && /"hint":"make one with/.test(text), text);
    assert.match(text, /"frames":\["[\w.# ]*base\/secret-file\.ts:\d+:\d+/);
    assert.match(text, /"name":"Error","code":"ENOENT"/);
  });
  test('also where the options are at fault, and where a server is asked', async () => {
    for (const words of [
      ['keyprovider', '--allow=x', '--remote=unix:///nowhere'],
      ['keyprovider', '--remote=unix:///nowhere', '--timeout=1s'],
      ['keygen', '/nowhere/x', '--json'],
    ]) {
      const file = join(directory, `${words.length}${words[1]?.length}.log`);
      const { status, stderr } = await runCommand([...words, `--debugLog=${file}`], '{}');
      if (words[0] === 'keygen') assert.match(stderr, /unknown option/);
      else assert.ok(status !== 0 && JSON.stringify(failure(file).error).includes('"code"'), stderr);
    }
  });
});
