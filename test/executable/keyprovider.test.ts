// The command as clients start it: standard input in every state, closed outputs, signals, the reference's flags.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { type ExecutableOptions, type Finished, runExecutable } from '../fixtures/executable.ts';
import { type GoogleWorld, startGoogleWorld } from '../fixtures/google.ts';
import { KEYFILES } from '../fixtures/packets.ts';
import { makeKeyDirectory } from '../fixtures/provider.ts';
import { FIRST_KEY, GCP, GCP_SECOND, PACKET, REPLY, unwrapRequest, wrapRequest } from '../fixtures/vectors/shape.ts';

const keys = makeKeyDirectory();
const directory = mkdtempSync(join(tmpdir(), 'ocicrypt-executable-'));
const MAIN = fileURLToPath(new URL('../../src/main.ts', import.meta.url));
const KEY = `--key=${keys.file('first')}`;
let google: GoogleWorld;
before(async () => {
  google = await startGoogleWorld();
});
after(async () => {
  keys.remove();
  rmSync(directory, { recursive: true, force: true });
  await google.close();
});

const provide = (words: readonly string[], options: ExecutableOptions) =>
  runExecutable(['keyprovider', ...words], options);

function assertRefused(result: Finished, status: number, pattern: RegExp): void {
  assert.equal(result.status, status, result.stderr);
  assert.equal(result.stdout.length, 0);
  assert.match(result.stderr, /^[^\n]+\n$/);
  assert.match(result.stderr, pattern);
}

test('a start loads few modules, those of the runtime included', async () => {
  const order = join(directory, 'order');
  const environment = { BUN_BYTECODE_ORDER_OUT: order };
  // From a pipe, as clients have it: of another kind of input it is asked whether it is a terminal.
  const shell = 'cat | "$@"';
  assert.equal((await provide([KEY], { input: unwrapRequest(PACKET), environment, shell })).status, 0);
  const modules = readFileSync(order, 'utf8').match(/^M /gm) ?? [];
  // 28 with this bundler, and 49 if the front door waits for the command: a tenth of the processor's time.
  assert.ok(modules.length > 5 && modules.length < 35, `${modules.length}`);
});

describe('standard input', () => {
  test('a request is answered, and stderr stays empty', async () => {
    const { status, stdout, stderr } = await provide([KEY], { input: unwrapRequest(PACKET) });
    assert.deepEqual([status, stdout.toString(), stderr], [0, REPLY, '']);
  });

  test('nothing at all: one line that says who runs this', async () => {
    assertRefused(await provide([KEY], {}), 65, /skopeo/);
    assertRefused(await provide([KEY], { shell: 'exec "$@" </dev/null' }), 65, /empty/);
  });

  test('closed', async () => {
    assertRefused(await provide([KEY], { shell: 'exec "$@" <&-' }), 65, /bad-input/);
  });

  test('a directory, a file', async () => {
    assertRefused(await provide([KEY], { shell: `exec "$@" <${directory}` }), 65, /bad-input/);
    const file = join(directory, 'request.json');
    writeFileSync(file, unwrapRequest(PACKET));
    assert.equal((await provide([KEY], { shell: `exec "$@" <${file}` })).stdout.toString(), REPLY);
  });

  test('half a request held open ends with the deadline', async () => {
    const result = await provide([KEY, '--timeout=300ms'], {
      input: unwrapRequest(PACKET).slice(0, 100),
      holdInput: true,
    });
    assertRefused(result, 69, /deadline-exceeded.*reading the request/);
    assert.ok(result.milliseconds < 5000);
  });

  test('a whole request held open too, since its end is not known', async () => {
    assertRefused(
      await provide([KEY, '--timeout=300ms'], { input: unwrapRequest(PACKET), holdInput: true }),
      69,
      /deadline-exceeded/,
    );
  });

  test('never written to, but open', async () => {
    assertRefused(await provide([KEY, '--timeout=200ms'], { holdInput: true }), 69, /deadline-exceeded/);
  });

  test('half a request that ends', async () => {
    assertRefused(await provide([KEY], { input: unwrapRequest(PACKET).slice(0, 100) }), 65, /not valid JSON/);
  });

  test('written byte by byte', async () => {
    const request = Buffer.from(unwrapRequest(PACKET));
    const result = await provide([KEY], {
      holdInput: true,
      started: (child) => {
        let sent = 0;
        const timer = setInterval(() => {
          child.stdin?.write(request.subarray(sent, sent + 97));
          sent += 97;
          if (sent < request.length) return;
          clearInterval(timer);
          child.stdin?.end();
        }, 2);
      },
    });
    assert.equal(result.stdout.toString(), REPLY);
  });

  test('300 KiB, and an endless stream, are refused without being read to their end', async () => {
    assertRefused(await provide([KEY], { input: Buffer.alloc(300 * 1024, 0x20) }), 65, /262144/);
    const endless = await provide([KEY], { shell: 'exec "$@" </dev/zero' });
    assertRefused(endless, 65, /262144/);
  });
});

describe('standard output', () => {
  test('closed: that is an error, and the reply goes nowhere, least of all into a file that got its number', async () => {
    const [audit, log] = [join(directory, 'closed-audit'), join(directory, 'closed-log')];
    const result = await provide([KEY, `--audit-log=${audit}`, `--debugLog=${log}`], {
      input: unwrapRequest(PACKET),
      shell: 'exec "$@" >&-',
    });
    assertRefused(result, 74, /^ocicrypt-kms: not-written: /);
    for (const file of [audit, log]) {
      const text = readFileSync(file, 'utf8');
      assert.ok(!text.includes('optsdata') && !text.includes(JSON.parse(REPLY).keyunwrapresults.optsdata));
    }
  });

  test('closed, where the sources run on Node: a reply that was not written is no success', async () => {
    for (const [redirected, status] of [
      ['>&-', 74],
      ['>/dev/null', 0],
    ] as const) {
      const shell = `exec ${process.execPath} "$0" "$@" ${redirected}`;
      const child = spawn('/bin/sh', ['-c', shell, MAIN, 'keyprovider', KEY], { stdio: ['pipe', 'inherit', 'pipe'] });
      child.stderr.resume();
      child.stdin.end(unwrapRequest(PACKET));
      assert.deepEqual(await once(child, 'exit'), [status, null], redirected);
    }
  });

  test('full', async () => {
    const result = await provide([KEY], { input: unwrapRequest(PACKET), shell: 'exec "$@" >/dev/full' });
    assert.equal(result.status, 74, result.stderr);
  });

  test('a reader that has gone', async () => {
    const result = await provide([KEY], {
      input: unwrapRequest(PACKET),
      shell: '{ "$@"; echo "status $?" >&2; } | exec 0<&-',
    });
    assert.match(result.stderr, /status (?:74|0)\n$/);
  });

  test('and standard error closed: the status is still right', async () => {
    assert.equal((await provide([KEY], { input: '', shell: 'exec "$@" 2>&-' })).status, 65);
  });
});

describe('the reference provider’s name and flags', () => {
  const reference = (words: readonly string[], input: string) => runExecutable(words, { name: 'kms_oci_crypt', input });

  test('one dash or two, equals sign or space', async () => {
    const [adc = '', ca = '', endpoint = ''] = google.words.map((word) => word.slice(word.indexOf('=') + 1));
    const rest = ['--ca', ca, '--gcp-endpoint', endpoint];
    for (const words of [
      [`-adc=${adc}`, '-kmsURI', GCP],
      ['-adc', adc, `-kmsURI=${GCP}`],
      [`--adc=${adc}`, `--kmsURI=${GCP}`],
      ['--adc', adc, '--kmsURI', GCP],
    ]) {
      const { status, stdout, stderr } = await reference([...words, ...rest], wrapRequest(['Enabled']));
      assert.equal(status, 0, stderr);
      const packet = JSON.parse(
        Buffer.from(JSON.parse(stdout.toString()).keywrapresults.annotation, 'base64').toString(),
      );
      assert.deepEqual(Object.keys(packet), ['key_url', 'wrapped_key', 'wrap_type']);
      assert.equal(packet.key_url, GCP);
    }
  });

  test('another key than --kmsURI names both, before any request is made', async () => {
    const before = google.kms.server.requests.length;
    const result = await reference([...google.words, `--kmsURI=${GCP}`], wrapRequest([GCP_SECOND]));
    assertRefused(result, 65, /^kms_oci_crypt: bad-input: /);
    assert.ok(result.stderr.includes(`${GCP_SECOND},`) && result.stderr.includes(`is ${GCP};`), result.stderr);
    assert.equal(google.kms.server.requests.length, before);
  });

  test('a node that names no key must be told which it may use', async () => {
    const packet = JSON.stringify({ key_url: GCP, wrapped_key: 'AAAA', wrap_type: 'AES' });
    assertRefused(await reference([...google.words], unwrapRequest(packet)), 77, new RegExp(`--allow=${GCP}`));
  });

  test('an unknown flag is refused with the nearest', async () => {
    assertRefused(await reference(['-kmsUri', 'x'], ''), 64, /did you mean --kmsURI/);
  });
});

describe('errors of the surroundings', () => {
  test('missing and unreadable files: one line that names the file', async () => {
    for (const [words, status, file] of [
      [['--config=/proc/nonexistent/config.yaml'], 78, '/proc/nonexistent/config.yaml'],
      [['--key=/proc/nonexistent/key'], 66, '/proc/nonexistent/key'],
      [[`--key=${keys.file('readable')}`], 78, keys.file('readable')],
      [['--audit-log=/proc/nonexistent/audit'], 74, '/proc/nonexistent/audit'],
      [['--debugLog=/proc/nonexistent/log'], 74, '/proc/nonexistent/log'],
      [[`--audit-log=${directory}`], 74, directory],
      [['--allow', GCP, '--adc=/proc/nonexistent/adc.json'], 66, '/proc/nonexistent/adc.json'],
      [['--allow', GCP, ...google.words, '--ca=/proc/nonexistent/ca.pem'], 78, '/proc/nonexistent/ca.pem'],
    ] as const) {
      const packet =
        file.endsWith('adc.json') || file.endsWith('ca.pem')
          ? JSON.stringify({ key_url: GCP, wrapped_key: 'AAAA', wrap_type: 'AES' })
          : PACKET;
      const result = await provide([...words], { input: unwrapRequest(packet) });
      assertRefused(result, status, /hint|;|:/);
      assert.ok(result.stderr.includes(file), `${words.join(' ')}: ${result.stderr}`);
    }
  });

  test('a key service that is not there is unavailable, within the deadline', async () => {
    const [adc = '', ca = ''] = google.words;
    const words = [`--allow=${GCP}`, adc, ca, '--gcp-endpoint=https://127.0.0.1:1', '--timeout=3s'];
    const result = await provide(words, {
      input: unwrapRequest(JSON.stringify({ key_url: GCP, wrapped_key: 'AAAA', wrap_type: 'AES' })),
    });
    assertRefused(result, 69, /unavailable/);
    assert.ok(result.stderr.includes(GCP));
  });

  test('a key service that hangs is named when the deadline ends', async () => {
    google.kms.server.setFault(() => ({ kind: 'silent' }));
    try {
      const result = await provide([`--allow=${GCP}`, ...google.words, '--timeout=400ms'], {
        input: unwrapRequest(JSON.stringify({ key_url: GCP, wrapped_key: 'AAAA', wrap_type: 'AES' })),
      });
      assertRefused(result, 69, /deadline-exceeded.*--timeout/);
      assert.ok(result.stderr.includes(GCP), result.stderr);
      assert.ok(result.milliseconds < 3000);
    } finally {
      google.kms.server.setFault(undefined);
    }
  });

  test('it writes nothing into its directory, and needs none', async () => {
    const empty = mkdtempSync(join(tmpdir(), 'ocicrypt-empty-'));
    writeFileSync(join(empty, '.env'), 'PATH=/evil\nNODE_OPTIONS=--bad\n');
    writeFileSync(join(empty, 'bunfig.toml'), 'preload = ["./evil.ts"]\n');
    writeFileSync(join(empty, 'evil.ts'), 'process.exit(3);\n');
    writeFileSync(join(empty, 'package.json'), '{"type":"broken"');
    writeFileSync(join(empty, 'tsconfig.json'), 'broken');
    const { status, stdout } = await provide([KEY], { input: unwrapRequest(PACKET), cwd: empty });
    assert.deepEqual([status, stdout.toString()], [0, REPLY]);
    assert.deepEqual(readdirSync(empty).toSorted(), [
      '.env',
      'bunfig.toml',
      'evil.ts',
      'package.json',
      'tsconfig.json',
    ]);
    rmSync(empty, { recursive: true });
  });
});

describe('keygen', () => {
  test('makes a file of 32 bytes that nobody else can read, and says how it is known', async () => {
    const file = join(directory, 'new.key');
    const { status, stdout, stderr } = await runExecutable(['keygen', file], { shell: 'umask 000; exec "$@"' });
    assert.equal(status, 0, stderr);
    assert.equal(stdout.toString(), `keyfile://${file}\n`);
    assert.match(stderr, /keyfile:sha256:[0-9a-f]{64}/);
    assert.deepEqual([statSync(file).size, statSync(file).mode & 0o777], [32, 0o600]);
    const request = wrapRequest([`keyfile://${file}`]);
    const wrapped = await provide([], { input: request });
    const { annotation } = JSON.parse(wrapped.stdout.toString()).keywrapresults;
    const opened = await provide([`--key=${file}`], { input: unwrapRequest(Buffer.from(annotation, 'base64')) });
    assert.equal(opened.stdout.toString(), REPLY);
  });

  test('never touches a file that is there, and leaves none where it cannot finish', async () => {
    assertRefused(await runExecutable(['keygen', keys.file('first')]), 78, /exists/);
    assert.deepEqual(readFileSync(keys.file('first')), KEYFILES.first);
    assertRefused(await runExecutable(['keygen', '/proc/nonexistent/new.key']), 74, /nonexistent/);
    assertRefused(await runExecutable(['keygen', '/dev/null']), 78, /exists/);
    const full = join(directory, 'full.key');
    assertRefused(await runExecutable(['keygen', full], { shell: 'ulimit -f 0; exec "$@"' }), 74, /full\.key/);
    assert.equal(existsSync(full), false);
  });

  test('as JSON', async () => {
    const file = join(directory, 'json.key');
    const { stdout } = await runExecutable(['keygen', '--json', file]);
    const { uri, key } = JSON.parse(stdout.toString());
    assert.equal(uri, `keyfile://${file}`);
    assert.match(key, /^keyfile:sha256:[0-9a-f]{64}$/);
    assert.notEqual(key, FIRST_KEY);
  });
});
