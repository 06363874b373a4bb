// The server as it is shipped: started, called by `keyprovider --remote`, killed, stopped, and told what is wrong.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, type TestContext, test } from 'node:test';
import { createCertificateAuthority } from '../fixtures/certificates.ts';
import { runExecutable } from '../fixtures/executable.ts';
import { makeKeyDirectory } from '../fixtures/provider.ts';
import { serve } from '../fixtures/serve.ts';
import { PACKET, REPLY, unwrapRequest, wrapRequest } from '../fixtures/vectors/shape.ts';

const keys = makeKeyDirectory();
after(() => keys.remove());
const KEY = `--key=${keys.file('first')}`;

function makeDirectory(t: TestContext): string {
  const directory = mkdtempSync(join(tmpdir(), 'serve-'));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

const remote = (address: string, input: string | Uint8Array, ...words: readonly string[]) =>
  runExecutable(['keyprovider', `--remote=${address}`, ...words], { input });

describe('serve', () => {
  test('answers keyprovider --remote with the same bytes and exits as keyprovider alone', async (t) => {
    const { addresses } = await serve(t, [
      `--listen=unix://${makeDirectory(t)}/s`,
      `--allow=keyfile://${keys.file('first')}`,
    ]);
    const [address = ''] = addresses;
    const unwrapped = await remote(address, unwrapRequest(PACKET));
    assert.deepEqual([unwrapped.status, unwrapped.stdout.toString(), unwrapped.stderr], [0, REPLY, '']);
    const wrapped = await remote(address, wrapRequest(['Enabled']));
    assert.equal(wrapped.status, 0, wrapped.stderr);
    for (const [input, status] of [
      ['{}', 65],
      [wrapRequest(['gcpkms://projects/p/locations/l/keyRings/r/cryptoKeys/k']), 77],
    ] as const) {
      const direct = await runExecutable(
        ['keyprovider', KEY, '--allow=age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj'],
        { input },
      );
      const forwarded = await remote(address, input);
      assert.equal(forwarded.status, status, forwarded.stderr);
      if (status === 65) assert.equal(forwarded.stderr, direct.stderr);
    }
  });

  test('over TLS with client certificates', async (t) => {
    const directory = makeDirectory(t);
    const authority = await createCertificateAuthority(directory);
    const server = await authority.issue('server');
    const client = await authority.issue('client', { names: ['builder.example'] });
    const { addresses } = await serve(t, [
      ...['--listen=tls://127.0.0.1:0', KEY],
      ...[`--tls-cert=${server.certificate}`, `--tls-key=${server.privateKey}`],
      ...[`--tls-client-ca=${authority.certificate}`, `--allow-client=builder.example=unwrap:${keys.file('first')}`],
    ]);
    const [address = ''] = addresses;
    const mine = [
      `--tls-ca=${authority.certificate}`,
      `--tls-cert=${client.certificate}`,
      `--tls-key=${client.privateKey}`,
    ];
    const unwrapped = await remote(address, unwrapRequest(PACKET), ...mine);
    assert.deepEqual([unwrapped.status, unwrapped.stdout.toString()], [0, REPLY], unwrapped.stderr);
    assert.notEqual((await remote(address, wrapRequest(['Enabled']), ...mine)).status, 0);
    assert.equal((await remote(address, unwrapRequest(PACKET), `--tls-ca=${authority.certificate}`)).status, 69);
  });

  test("the reference server's flags work, and say what they mean", async (t) => {
    const { addresses, log } = await serve(t, ['--grpcport=:0', KEY]);
    assert.match(addresses[0] ?? '', /^tcp:\/\/127\.0\.0\.1:[1-9]\d*$/);
    assert.match(log(), /in clear on the loopback/);
  });

  test('everything can stand in a file', async (t) => {
    const directory = makeDirectory(t);
    const file = join(directory, 'config.yaml');
    writeFileSync(
      file,
      `listen: ["unix://${directory}/s"]\nkey: [${keys.file('first')}]\nsocket-mode: "0660"\nmax-queue: 5\n`,
    );
    await serve(t, [`--config=${file}`]);
    assert.equal(statSync(join(directory, 's')).mode & 0o777, 0o660);
  });

  test('P24 without a line in the audit log no key leaves', async (t) => {
    const directory = makeDirectory(t);
    const audit = join(directory, 'audit.jsonl');
    const { addresses } = await serve(t, [`--listen=unix://${directory}/s`, KEY, `--audit-log=${audit}`]);
    const [address = ''] = addresses;
    assert.equal((await remote(address, unwrapRequest(PACKET))).status, 0);
    const lines = readFileSync(audit, 'utf8')
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line));
    assert.deepEqual(
      lines.map(({ operation, outcome, caller }) => [operation, outcome, caller]),
      [['unwrap', 'ok', address]],
    );

    const pipe = join(directory, 'pipe');
    execFileSync('mkfifo', [pipe]);
    const refused = await runExecutable(['serve', `--listen=unix://${directory}/t`, KEY, `--audit-log=${pipe}`]);
    assert.equal(refused.status, 74, refused.stderr);
    const full = await serve(t, [`--listen=unix://${directory}/full`, KEY, '--audit-log=/dev/full']).catch(
      () => undefined,
    );
    if (full !== undefined) {
      const unwrapped = await remote(`unix://${directory}/full`, unwrapRequest(PACKET));
      assert.deepEqual([unwrapped.status, unwrapped.stdout.length], [74, 0], unwrapped.stderr);
    }
  });
});

test('a key that cannot be used is one line of the log and a status, and the server goes on with its others', async (t) => {
  const { addresses, log } = await serve(t, [
    ...[`--listen=unix://${makeDirectory(t)}/s`, KEY],
    ...['readable', 'directory', 'missing'].map((name) => `--key=${keys.file(name)}`),
  ]);
  const [address = ''] = addresses;
  assert.equal((await remote(address, unwrapRequest(PACKET))).status, 0);
  const refused = await remote(address, wrapRequest([`keyfile://${keys.file('readable')}`]));
  assert.equal(refused.status, 78);
  assert.match(refused.stderr, /open to other users; the log of the server says more\n$/);
  const problems = log().matchAll(/"problem":"([^"]*)"/g);
  assert.deepEqual(
    [...problems].map(([, text = '']) => text.replace(/:.*/, '')),
    // The last is of the call, whose caller does not read the path.
    ['configuration', 'configuration', 'not-found', 'configuration'],
  );
});

describe('serve that cannot', () => {
  const cases: readonly (readonly [name: string, words: (directory: string) => readonly string[], says: RegExp])[] = [
    ['no key is allowed', (directory) => [`--listen=unix://${directory}/s`], /--allow=/],
    ['a path is too long', (directory) => [`--listen=unix://${directory}/${'x'.repeat(110)}`, KEY], /at most 107/],
    ['an abstract socket', () => ['--listen=unix:@ocicrypt', KEY], /abstract/],
    ['two listeners on one address', () => ['--listen=tls://127.0.0.1:1', '--listen=tls://127.0.0.1:1', KEY], /twice/],
    ['clear text to the world', () => ['--listen=tcp://0.0.0.0:0', '--insecure-plaintext', KEY], /tls:\/\//],
    ['clear text that is not asked for', () => ['--listen=tcp://127.0.0.1:0', KEY], /--insecure-plaintext/],
    ['TLS without a certificate', () => ['--listen=tls://127.0.0.1:0', KEY], /--tls-cert/],
    ['a certificate without its key', () => ['--listen=tls://127.0.0.1:0', '--tls-cert=/x', KEY], /--tls-key/],
    [
      'clients without certificates',
      (directory) => [
        '--listen=tls://127.0.0.1:0',
        `--tls-cert=${directory}/certificate`,
        `--tls-key=${keys.file('readable')}`,
        '--allow-client=a',
        '--insecure-any-client',
        KEY,
      ],
      /--tls-client-ca/,
    ],
    [
      'everybody on a network',
      (directory) => [
        '--listen=tls://127.0.0.1:0',
        `--tls-cert=${directory}/certificate`,
        `--tls-key=${keys.file('readable')}`,
        KEY,
      ],
      /--tls-client-ca=FILE .*--insecure-any-client/,
    ],
    [
      'everybody and somebody',
      (directory) => [
        '--listen=tls://127.0.0.1:0',
        `--tls-cert=${directory}/certificate`,
        `--tls-key=${keys.file('readable')}`,
        `--tls-client-ca=${directory}/certificate`,
        '--insecure-any-client',
        KEY,
      ],
      /leave one of them out/,
    ],
    ...['spiffe://a/b', 'a@b.example', '10.0.0.1', 'IP:a', 'URI:', 'John Doe', 'x509:a'].map(
      (name) =>
        [
          `a client called ${name}`,
          (directory: string) => [
            '--listen=tls://127.0.0.1:0',
            `--tls-cert=${directory}/certificate`,
            `--tls-key=${keys.file('readable')}`,
            `--tls-client-ca=${directory}/certificate`,
            `--allow-client=${name}`,
            KEY,
          ],
          /not the name of a client.*write a DNS name, or (?:URI|email|IP):/,
        ] as const,
    ),
    ['a directory that others can write', (directory) => [`--listen=unix://${directory}/open/s`, KEY], /chmod go-w/],
    [
      'a private key of TLS that others can read',
      (directory) => [
        '--listen=tls://127.0.0.1:0',
        `--tls-cert=${directory}/certificate`,
        `--tls-key=${keys.file('readable')}`,
        '--insecure-any-client',
        KEY,
      ],
      /chmod 600/,
    ],
    ['a file in the way', (directory) => [`--listen=unix://${directory}/file`, KEY], /not a socket/],
  ];
  for (const [name, words, says] of cases) {
    test(name, async (t) => {
      const directory = makeDirectory(t);
      mkdirSync(join(directory, 'open'));
      chmodSync(join(directory, 'open'), 0o777);
      writeFileSync(join(directory, 'file'), '');
      writeFileSync(join(directory, 'certificate'), '-----BEGIN CERTIFICATE-----');
      const { status, stdout, stderr } = await runExecutable(['serve', ...words(directory)]);
      assert.equal(status, 78, stderr);
      assert.equal(stdout.length, 0);
      assert.match(stderr, /^ocicrypt-kms: configuration: [^\n]+\n$/);
      assert.match(stderr, says);
    });
  }

  test('P23 checking of certificates turned off', async (t) => {
    const { status, stderr } = await runExecutable(['serve', `--listen=unix://${makeDirectory(t)}/s`, KEY], {
      environment: { NODE_TLS_REJECT_UNAUTHORIZED: '0' },
    });
    assert.equal(status, 78);
    assert.match(stderr, /NODE_TLS_REJECT_UNAUTHORIZED/);
  });
});
