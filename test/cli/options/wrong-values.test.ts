// A wrong value of any option ends in one line that says what is wrong and what to do, whichever command takes it.
import assert from 'node:assert/strict';
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { COMMANDS } from '../../../src/cli/commands.ts';
import { Settings } from '../../../src/cli/options/settings.ts';
import { type OptionName, optionSpec } from '../../../src/cli/options/table.ts';
import { warnOfFiles } from '../../../src/cli/serving.ts';
import { createKeyfile } from '../../../src/kms/keyfile/key.ts';
import { createCertificateAuthority } from '../../fixtures/certificates.ts';
import { wide } from '../../fixtures/seed.ts';
import { runCommand } from '../../fixtures/terminal.ts';

const directory = mkdtempSync(join(tmpdir(), 'wrong-'));
const before = process.cwd();
process.chdir(directory);
after(() => {
  process.chdir(before);
  rmSync(directory, { recursive: true, force: true });
});
await runCommand(['keygen', 'app.key']);
const key = `keyfile://${directory}/app.key`;

/** Words that lead each command as far as its options are looked at, and to nothing outside of the directory. */
const WORDS: Readonly<Record<string, readonly (readonly string[])[]>> = {
  serve: [['--check', '--key=app.key', `--listen=unix://${directory}/socket`]],
  health: [['--remote=unix:///nonexistent']],
  admission: [['--check', '--policy=/nonexistent/policy.yaml']],
  keygen: [['/nonexistent/new.key']],
  doctor: [[key, '--timeout=1s']],
  config: [['ocicrypt'], ['containerd'], ['systemd'], ['policy']],
  completion: [['bash']],
  node: [['install', '--dry-run', `--root=${directory}`]],
  encrypt: [['oci:nowhere', 'oci:new', `--recipient=${key}`]],
  decrypt: [['oci:nowhere', 'oci:new', '--key=app.key']],
  rewrap: [['oci:nowhere', '--key=app.key', `--add=${key}`]],
  inspect: [['oci:nowhere']],
  verify: [['oci:nowhere', `--only=${key}`]],
};

const WRONG = ['?', 'no such thing', '/nonexistent/file', '-1', '99999999999', 'http://x y/'];

/** Each option once; with all commands that take it where more is tried than `npm test` has the time for. */
const CASES: (readonly [command: string, words: readonly string[], option: OptionName])[] = [];
const met = new Set<OptionName>();
for (const [command, { options }] of COMMANDS) {
  for (const words of WORDS[command] ?? [[]]) {
    for (const option of options) {
      if (met.has(option) && !wide) continue;
      met.add(option);
      CASES.push([command, words, option]);
    }
  }
}

test('one line says what is wrong, by a name that the user wrote, and what to do', async () => {
  for (const [command, words, option] of CASES) {
    const { kind } = optionSpec(option);
    const values = kind === 'switch' ? ['=maybe', '='] : ['', '=', ...WRONG.map((value) => `=${value}`)];
    for (const value of values) {
      const given = [command, ...words, `--${option}${value}`];
      const { status, stderr } = await runCommand(given);
      const shown = `${given.join(' ')}: ${status} ${stderr}`;
      assert.doesNotMatch(stderr, /undefined|\[object|TypeError|\n\s+at |internal:/, shown);
      if (status === 0) continue;
      assert.match(stderr, /^ocicrypt-kms: [a-z-]+: [^\n]+\n$/, shown);
      // A value that has a form of its own is refused by the name of its option.
      if (kind === 'switch' || value.length < 2)
        assert.match(stderr, new RegExp(`: usage: option --${option} `), shown);
      // What to do stands behind a semicolon, or what would be right behind "takes".
      assert.match(stderr, /; | takes | was written: /, shown);
    }
  }
});

/** Without these files a server does not start. */
const NEEDED = ['audit-log', 'config', 'debugLog', 'policy', 'tls-cert', 'tls-client-ca', 'tls-key'];

/** The options of a server whose files are read later, with files that are not there, or with one path for all. */
function lateFiles(command: string, path?: string): ReadonlyMap<OptionName, string> {
  const options = COMMANDS.get(command)?.options ?? [];
  const files = options.filter(
    (name) => /^(?:KEY=)?FILE$/.test(optionSpec(name).value ?? '') && !NEEDED.includes(name),
  );
  assert.ok(files.includes('ca') && files.includes('adc'));
  const start = (name: OptionName) => (optionSpec(name).kind === 'pairs' ? 'kbs:///default/key/one=' : '');
  return new Map(files.map((name) => [name, `${start(name)}${path ?? `/nonexistent/${name}`}`]));
}

test('serve --check names each file that a key would need and that cannot be read', async () => {
  const files = lateFiles('serve');
  const words = [...files].map(([name, value]) => `--${name}=${value}`);
  const { status, stdout, stderr } = await runCommand(['serve', '--check', '--key=app.key', ...words]);
  assert.deepEqual([status, stdout], [0, 'the configuration can be served\n'], stderr);
  const warnings = stderr.split('\n').filter((line) => line.includes('"level":40'));
  for (const name of files.keys())
    assert.equal(warnings.filter((line) => line.includes(`/nonexistent/${name}`)).length, 1, name);
});

test('so does a webhook, which opens its keys when it starts; a directory is none of these files either', async () => {
  for (const path of [undefined, directory]) {
    const files = [...lateFiles('admission', path)].filter(([name]) => name !== 'key');
    const said: string[] = [];
    const log = { info: () => {}, warn: (_: unknown, message: string) => void said.push(message) };
    await warnOfFiles(new Settings(new Map(files.map(([name, value]) => [name, [value]]))), log);
    assert.deepEqual(said.toSorted(), files.map(([name]) => `the file of --${name} cannot be used`).toSorted());
  }
});

test('admission --check looks at the address of the status page', async () => {
  const authority = await createCertificateAuthority(directory);
  const { certificate, privateKey } = await authority.issue('server', { usage: 'server' });
  writeFileSync(
    'policy.yaml',
    'rules: [{name: all}]\nregistries: [registry.example]\nnodes: [{runtime: containerd}]\n',
  );
  const words = ['admission', '--check', `--policy=${join(directory, 'policy.yaml')}`, '--listen=tls://127.0.0.1:0'];
  const tls = [`--tls-cert=${certificate}`, `--tls-key=${privateKey}`];
  const check = (status: string) => runCommand([...words, ...tls, `--status=${status}`]);
  const right = await check(`unix://${join(directory, 'new/status')}`);
  assert.deepEqual([right.status, right.stdout], [0, 'the configuration can be served\n'], right.stderr);
  const wrong = await check('nonsense');
  assert.deepEqual([wrong.status, wrong.stdout], [78, ''], wrong.stderr);
});

test('serve --check refuses every address that a start refuses, in the same words, and makes nothing', async () => {
  const place = join(directory, 'places');
  const open = join(place, 'open');
  mkdirSync(open, { recursive: true });
  chmodSync(open, 0o777);
  writeFileSync(join(place, 'file'), '');
  const places = () => readdirSync(place, { recursive: true }).toSorted();
  const before = places();
  const cases: readonly (readonly string[])[] = [
    ['--listen=tcp://127.0.0.1:0'],
    ['--listen=tcp://0.0.0.0:0', '--insecure-plaintext'],
    ['--listen=tls://127.0.0.1:0'],
    ...['unix', 'ttrpc'].flatMap((kind) => [
      [`--listen=${kind}://${place}/file`],
      [`--listen=${kind}://${place}/file/below/s`],
      [`--listen=${kind}://${open}/s`],
      [`--listen=${kind}://${open}/below/s`],
      [`--listen=${kind}://${place}/s`, '--socket-group=no-such-group'],
      [`--listen=${kind}://${place}/s`, `--listen=unix://${place}/s`],
    ]),
    ...['tcp://0.0.0.0:0', 'tls://127.0.0.1:0', `unix://${place}/file`, `unix://${open}/s`, `unix://${place}/s`].map(
      (status) => [`--listen=unix://${place}/s`, `--status=${status}`],
    ),
  ];
  for (const words of cases) {
    const checked = await runCommand(['serve', '--check', '--key=app.key', ...words]);
    const started = await runCommand(['serve', '--key=app.key', ...words]);
    assert.deepEqual([checked.status, checked.stdout, checked.stderr], [78, '', started.stderr], words.join(' '));
  }
  assert.deepEqual(places(), before);
  const right = [`--listen=unix://${place}/new/s`, `--listen=tcp://127.0.0.1:0`, '--insecure-plaintext'];
  assert.equal((await runCommand(['serve', '--check', '--key=app.key', ...right])).status, 0);
});

test('a configuration is not printed with keys that are none', async () => {
  for (const file of ['ocicrypt', 'containerd', 'k3s', 'systemd', 'policy']) {
    const { status, stdout, stderr } = await runCommand(['config', file, '--allow=no such key']);
    assert.deepEqual([status, stdout], [78, ''], stderr);
  }
  assert.equal((await runCommand(['config', 'ocicrypt', '--kmsURI=gcpkms://x'])).status, 78);
});

test('a key file that no URI can name is not made, and one that was made elsewhere is opened by its path', async () => {
  mkdirSync('my keys');
  const { status, stdout, stderr } = await runCommand(['keygen', 'my keys/app.key']);
  assert.deepEqual([status, stdout, readdirSync('my keys')], [65, '', []]);
  assert.match(stderr, /not a key URI: .*; the path of a key file in a URI holds ASCII alone/);
  createKeyfile('my keys/app.key');
  const probed = await runCommand(['doctor', '--key=my keys/app.key', '--json']);
  assert.equal(JSON.parse(probed.stdout).keys[0].ok, true, probed.stderr);
});
