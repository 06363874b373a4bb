// Which command takes which option: what would have no effect is refused, in every mode of every command.
import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { COMMANDS } from '../../src/cli/commands.ts';
import { OPTION_NAMES } from '../../src/cli/options/configuration.ts';
import { type OptionName, optionSpec } from '../../src/cli/options/table.ts';
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

/** What puts a command into a mode, and what leaves it out of it. */
const MODES: Readonly<Record<string, readonly [readonly string[], readonly string[]]>> = {
  '--remote': [['--remote=unix:///nowhere/socket'], []],
  '--remote=tls://HOST:PORT': [['--remote=tls://127.0.0.1:1'], ['--remote=unix:///nowhere/socket']],
  '--listen=tls://HOST:PORT': [['--listen=tls://127.0.0.1:0'], ['--listen=unix:///proc/nowhere/socket']],
  '--listen or --status=tls://HOST:PORT': [['--status=tls://127.0.0.1:0'], ['--listen=unix:///proc/nowhere/socket']],
  '--listen=tcp://127.0.0.1:PORT': [['--listen=tcp://127.0.0.1:0'], ['--listen=unix:///proc/nowhere/socket']],
  '--listen=unix:///PATH or ttrpc:///PATH': [['--listen=ttrpc:///proc/nowhere/socket'], ['--listen=tls://127.0.0.1:0']],
  '--status=tls://HOST:PORT or tcp://HOST:PORT': [
    ['--status=tcp://127.0.0.1:0'],
    ['--status=unix:///proc/nowhere/status'],
  ],
  '--unwrap or --content': [['--unwrap'], []],
  '--remote=unix:///PATH': [['--remote=unix:///nowhere/socket'], ['--remote=tls://127.0.0.1:1']],
  'node install': [['install', '--root=/nowhere'], ['check']],
  'node install or uninstall': [['install', '--root=/nowhere'], ['check']],
  'node install or purge': [['purge'], ['check']],
  'node agent or dismiss': [['dismiss'], ['check']],
  'node agent': [['agent'], ['check']],
  'node check': [['check', '--pull=/nowhere'], ['uninstall']],
  '--decoder=ctd-decoder': [['--decoder=ctd-decoder'], []],
  'an image docker://IMAGE': [['docker://127.0.0.1:1/a'], ['hashivault://k']],
};

for (const [command, { options, modes = [], operands }] of COMMANDS) {
  const words = operands === '' || operands.endsWith(']…') ? [] : operands.split(' ').map(() => '/nowhere');
  test(`${command} refuses every option of another command`, async () => {
    for (const name of OPTION_NAMES.filter((one) => one !== 'help' && !options.includes(one))) {
      const { status, stderr } = await runCommand([command, ...words, word(name)]);
      assert.deepEqual([status, /unknown option/.test(stderr)], [64, true], `--${name}: ${stderr}`);
    }
  });
  for (const { name, takes, alone } of modes) {
    test(`${command} refuses what has no effect ${takes === undefined ? 'without' : 'with'} ${name}`, async () => {
      const [on, off] = MODES[name] ?? assert.fail(`how is a command with and without ${name} called?`);
      // Of a mode that only adds options these alone are tried: with others a server would start.
      const tried = takes === undefined ? alone : options.filter((one) => one !== 'config' && one !== 'debugLog');
      for (const option of tried) {
        const within = await runCommand([command, ...words, ...on, '--timeout=1s', word(option)], '{}');
        const isRefused = within.stderr.includes(` has no effect with ${name};`);
        assert.equal(isRefused, takes?.includes(option) === false, `--${option}: ${within.stderr}`);
        assert.ok(!within.stderr.includes(` has no effect without ${name};`), within.stderr);
        if (isRefused) assert.equal(within.status, 64);
      }
      for (const option of alone) {
        const { status, stderr } = await runCommand([command, ...words, ...off, word(option)], '{}');
        assert.deepEqual([status, stderr.includes(` has no effect without ${name};`)], [64, true], stderr);
      }
    });
  }
}

test('an audit log that a configuration file names is not left unwritten beside --remote', async () => {
  const file = join(directory, 'config.yaml');
  writeFileSync(file, `audit-log: ${join(directory, 'audit')}\n`);
  const { status, stderr } = await runCommand(['keyprovider', '--remote=unix:///nowhere', `--config=${file}`], '{}');
  assert.equal(status, 78, stderr);
});

describe('config takes what shows in the file that it prints', () => {
  const one = ['allow', 'key', 'adc', 'provider'] as const;
  const every = [...one, 'kmsURI', 'packet', 'audit-log', 'vault-addr', 'remote', 'content-store'] as const;
  const without = (...names: readonly OptionName[]) => every.filter((name) => !names.includes(name));
  const takes: Readonly<Record<string, readonly OptionName[]>> = {
    ocicrypt: without('content-store'),
    containerd: without('kmsURI', 'packet'),
    k3s: without('kmsURI', 'packet'),
    crio: [],
    'crio-unit': [],
    systemd: one,
    'systemd-socket': [],
    policy: without('content-store'),
  };
  const kinds = COMMANDS.get('config')?.operands.split('|') ?? [];
  assert.deepEqual(Object.keys(takes), kinds);
  for (const kind of kinds) {
    test(kind, async () => {
      for (const name of every) {
        const value = name === 'packet' ? 'v1' : /allow|kmsURI/.test(name) ? 'hashivault://shown' : '/nowhere/shown';
        const { status, stdout } = await runCommand(['config', kind, `--${name}=${value}`]);
        const shown = stdout.includes(value === 'v1' ? '--packet=v1' : value) || stdout.includes('packet: "v1"');
        const taken = takes[kind]?.includes(name) ?? false;
        assert.deepEqual([status, shown], taken ? [0, true] : [64, false], name);
      }
    });
  }
  test('a configuration file is named, not copied, and must be one', async () => {
    const file = join(directory, 'node.yaml');
    writeFileSync(file, 'allow:\n  - hashivault://images\n');
    const { stdout } = await runCommand(['config', 'containerd', `--config=${file}`]);
    assert.match(stdout, new RegExp(`args = \\[(?:"[^"]*", )?"decoder", "--config=${file}"\\]`));
    assert.ok(!stdout.includes('hashivault'));
    writeFileSync(file, 'alow: []\n');
    assert.equal((await runCommand(['config', 'containerd', `--config=${file}`])).status, 78);
  });
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
    assert.ok(text.includes(missing) && /"hint":"check its name; .* opens new images only/.test(text), text);
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
