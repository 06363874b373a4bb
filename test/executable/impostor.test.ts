// An impostor in the place of everybody who is asked over TLS: it learns nothing, whoever asks and whatever the environment says.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { after, before, describe, type TestContext, test } from 'node:test';
import { createServer as createTlsServer } from 'node:tls';
import { fileURLToPath } from 'node:url';
import { COMMANDS } from '../../src/cli/commands.ts';
import { startWireServer } from '../fakes/wire.ts';
import { type CertificateFiles, createCertificateAuthority } from '../fixtures/certificates.ts';
import { runExecutable } from '../fixtures/executable.ts';
import { type Asking, OUTGOING, type Outgoing, type Used, type Way } from '../fixtures/outgoing.ts';
import { proving, SEED, seeded } from '../fixtures/seed.ts';
import { wrapRequest } from '../fixtures/vectors/shape.ts';

const directory = mkdtempSync(join(tmpdir(), 'impostor-'));
after(() => rmSync(directory, { recursive: true, force: true }));

/** Who stands there: somebody with a certificate of nobody, or of another host; and the true one, to whom all is told. */
const KINDS = ['unknown issuer', 'another host'] as const;
type Kind = (typeof KINDS)[number] | 'the true one';

const certificates = new Map<Kind, CertificateFiles>();
let trusted: string;
let unknown: string;

before(async () => {
  const authority = await createCertificateAuthority(directory, 'ca');
  const other = await createCertificateAuthority(directory, 'other');
  trusted = authority.certificate;
  unknown = other.certificate;
  const names = ['127.0.0.1', ...OUTGOING.map(({ host }) => host.replace(/:\d+$/, '')), 'registry.test', 'token.test'];
  certificates.set('unknown issuer', await other.issue('unknown', { names }));
  certificates.set('another host', await authority.issue('elsewhere', { names: ['elsewhere.test'] }));
  certificates.set('the true one', await authority.issue('true', { names }));
});

type Impostor = {
  readonly url: string;
  readonly host: string;
  /** A proxy without TLS that leads to the impostor, whoever is asked for. */
  readonly proxy: string;
  readonly asked: readonly string[];
  connections: number;
  /** What it could read: nothing, unless it was taken for the true one. */
  read: string;
};

async function listen(t: TestContext, server: Server): Promise<number> {
  const sockets = new Set<Socket>();
  server.on('connection', (socket: Socket) => {
    sockets.add(socket);
    socket.on('error', () => {});
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  const address = server.address();
  return typeof address === 'object' && address !== null ? address.port : 0;
}

async function startImpostor(t: TestContext, kind: Kind): Promise<Impostor> {
  const { certificate, privateKey } = certificates.get(kind) ?? assert.fail();
  const files = { cert: readFileSync(certificate), key: readFileSync(privateKey), ALPNProtocols: ['h2', 'http/1.1'] };
  const server = createTlsServer(files, (socket) => {
    socket.on('error', () => {});
    socket.on('data', (data) => {
      impostor.read += data.toString('latin1');
      socket.end('HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n');
    });
  });
  server.on('connection', () => impostor.connections++);
  server.on('tlsClientError', () => {});
  const port = await listen(t, server);
  const asked: string[] = [];
  const proxy = createServer((socket) => {
    socket.once('data', (head) => {
      asked.push(/^CONNECT (\S+) /.exec(head.toString('latin1'))?.[1] ?? 'something else');
      const onward = connect(port, '127.0.0.1', () => socket.write('HTTP/1.1 200 OK\r\n\r\n'));
      onward.on('error', () => {});
      socket.on('close', () => onward.destroy());
      onward.on('close', () => socket.destroy());
      onward.pipe(socket).pipe(onward);
    });
  });
  const host = `127.0.0.1:${port}`;
  const impostor: Impostor = {
    ...{ url: `https://${host}`, host, asked, connections: 0, read: '' },
    proxy: `http://127.0.0.1:${await listen(t, proxy)}`,
  };
  return impostor;
}

let homes = 0;
function newHome(): string {
  const home = join(directory, `home-${homes++}`);
  mkdirSync(home);
  return home;
}

/** Nobody else is found by chance. */
const QUIET = { AWS_EC2_METADATA_DISABLED: 'true', METADATA_SERVER_DETECTION: 'none' };

function askingOf({ ask }: Outgoing, way: Way, { url, proxy }: Impostor): Asking {
  const HOME = newHome();
  const { key, words, environment } = ask(way === 'direct' ? url : undefined, HOME);
  return {
    key,
    words,
    // Without the system's roots, which take most of the time.
    environment: {
      ...QUIET,
      HOME,
      SSL_CERT_FILE: trusted,
      SSL_CERT_DIR: HOME,
      ...environment,
      ...(way === 'proxy' ? { HTTPS_PROXY: proxy } : {}),
    },
  };
}

const KEY_SERVICES = new Set(['cloudkms.googleapis.com:443', 'example.vault.azure.net:443']);

function assertDeceived({ name, host }: Outgoing, way: Way, kind: Kind, impostor: Impostor): void {
  const about = `${name}, ${way}, ${kind}`;
  assert.ok(impostor.connections > 0, `${about}: nobody came`);
  if (way === 'proxy') {
    assert.ok(impostor.asked.includes(host), about);
    // The connection to the key service is opened while its token is asked for.
    const others = impostor.asked.filter((name) => name !== host && !KEY_SERVICES.has(name));
    assert.deepEqual(others, [], about);
  }
  if (kind === 'the true one') assert.match(impostor.read, /^(?:GET|POST|PUT) /, about);
  else assert.equal(impostor.read, '', about);
}

const cases = OUTGOING.flatMap((outgoing) =>
  outgoing.ways.flatMap((way) => KINDS.map((kind) => ({ outgoing, way, kind }))),
);

describe('an impostor learns nothing', () => {
  test(seeded('from the command, of any key or source of credentials'), async (t) => {
    const chosen = cases.filter((_, index) => proving || (SEED + index) % 3 === 0);
    const rest = [...chosen];
    const work = async () => {
      for (let next = rest.pop(); next !== undefined; next = rest.pop()) {
        const { outgoing, way, kind } = next;
        const impostor = await startImpostor(t, kind);
        const { key, words, environment } = askingOf(outgoing, way, impostor);
        const { status, stderr } = await runExecutable(['doctor', key, '--timeout=3s', ...words], {
          environment: { ...environment, NODE_EXTRA_CA_CERTS: unknown },
        });
        assertDeceived(outgoing, way, kind, impostor);
        assert.equal(status, 69, `${outgoing.name}: ${stderr}`);
      }
    };
    await Promise.all([work(), work(), work()]);
    t.diagnostic(`figures: ${chosen.length} of ${cases.length} cases`);
  });

  for (const [runtime, path] of [
    ['Node', process.execPath],
    ['Bun', fileURLToPath(new URL('../../node_modules/.bin/bun', import.meta.url))],
  ] as const) {
    test(`from a program that uses the library under ${runtime}, which is told to check nothing`, async (t) => {
      const kinds = [...KINDS, 'the true one'] as const;
      const tried = OUTGOING.flatMap((outgoing) => outgoing.ways.map((way) => ({ outgoing, way }))).flatMap(
        ({ outgoing, way }, index) =>
          kinds
            .filter((_, number) => proving || (SEED + index) % kinds.length === number)
            .map((kind) => ({ outgoing, way, kind })),
      );
      const all = await Promise.all(
        tried.map(async ({ outgoing, way, kind }) => ({ outgoing, way, kind, impostor: await startImpostor(t, kind) })),
      );
      const file = join(directory, `askings-${runtime}.json`);
      writeFileSync(file, JSON.stringify(all.map(({ outgoing, way, impostor }) => askingOf(outgoing, way, impostor))));
      const program = fileURLToPath(new URL('../fixtures/outgoing.ts', import.meta.url));
      const env = { PATH: process.env.PATH, NODE_TLS_REJECT_UNAUTHORIZED: '0', NODE_EXTRA_CA_CERTS: unknown };
      const child = spawn(path, [program, file], { env, stdio: ['ignore', 'pipe', 'pipe'] });
      const [out, errors] = await Promise.all([text(child.stdout), text(child.stderr), once(child, 'close')]);
      assert.match(out, /^\[/, errors);
      const used: readonly Used[] = JSON.parse(out);
      for (const [index, { outgoing, way, kind, impostor }] of all.entries()) {
        assertDeceived(outgoing, way, kind, impostor);
        const { code, sockets } = used[index] ?? assert.fail();
        if (kind !== 'the true one') assert.equal(code, 'unavailable', `${outgoing.name}, ${way}`);
        // Bun says nothing of its sockets.
        if (runtime === 'Bun') continue;
        const openers = ['src/base/http/dial-node.ts'];
        assert.deepEqual([...new Set(sockets)], openers, `${outgoing.name}, ${way}`);
      }
    });
  }

  /** `COMMAND` of one who is asked for images or keys by an address of its own. */
  const others: Readonly<
    Record<string, (host: string, home: string) => { readonly words: readonly string[]; readonly status: number }>
  > = {
    'a registry': (host, home) => ({
      words: ['inspect', `docker://${host}/a`, `--authfile=${writeLogin(home, host)}`, `--ca=${trusted}`],
      status: 69,
    }),
    'a registry that is written to': (host, home) => ({
      words: [
        ...['rewrap', `docker://${host}/a`, '--add=hashivault://k'],
        ...[`--authfile=${writeLogin(home, host)}`, `--ca=${trusted}`],
      ],
      status: 69,
    }),
    'a server of keys': (host) => ({
      words: ['keyprovider', `--remote=tls://${host}`, `--tls-ca=${trusted}`, '--timeout=3s'],
      status: 69,
    }),
  };
  for (const [name, wordsFor] of Object.entries(others)) {
    test(`from a command that asks ${name}`, async (t) => {
      for (const kind of [...KINDS, 'the true one'] as const) {
        const impostor = await startImpostor(t, kind);
        const home = newHome();
        const { words, status } = wordsFor(impostor.host, home);
        const ended = await runExecutable(words, {
          environment: { HOME: home, NODE_EXTRA_CA_CERTS: unknown },
          input: wrapRequest(['hashivault://k']),
        });
        assert.ok(impostor.connections > 0, ended.stderr);
        assert.equal(impostor.read !== '', kind === 'the true one', `${kind}: ${ended.stderr}`);
        if (kind !== 'the true one') assert.equal(ended.status, status, ended.stderr);
      }
    });
  }

  test('in the place of the token service that a registry names, or of a proxy that is reached by TLS', async (t) => {
    for (const kind of [...KINDS, 'the true one'] as const) {
      const impostor = await startImpostor(t, kind);
      const home = newHome();
      const registry = await startWireServer(
        () => ({
          status: 401,
          headers: { 'WWW-Authenticate': `Bearer realm="${impostor.url}/token",service="registry"` },
          body: '{}',
        }),
        { tls: certificates.get('the true one') ?? assert.fail() },
      );
      t.after(() => registry.close());
      const host = `127.0.0.1:${registry.port}`;
      const asked = await runExecutable(
        ['inspect', `docker://${host}/a`, `--authfile=${writeLogin(home, host)}`, `--ca=${trusted}`],
        { environment: { HOME: home } },
      );
      assert.ok(impostor.connections > 0, asked.stderr);
      assert.equal(impostor.read.includes('/token?'), kind === 'the true one', asked.stderr);

      const proxy = await startImpostor(t, kind);
      const HTTPS_PROXY = `https://somebody:password@${proxy.host}`;
      for (const words of [
        ['doctor', 'hashivault://k', '--vault-addr=https://vault.example.test:8200', '--timeout=3s'],
        ['inspect', 'docker://registry.test/a'],
      ]) {
        proxy.read = '';
        proxy.connections = 0;
        const ended = await runExecutable([...words, `--ca=${trusted}`], {
          environment: { HOME: home, VAULT_TOKEN: 'token', HTTPS_PROXY },
        });
        assert.ok(proxy.connections > 0, ended.stderr);
        assert.equal(proxy.read.startsWith('CONNECT '), kind === 'the true one', `${kind}: ${ended.stderr}`);
        assert.equal(ended.status, 69, ended.stderr);
      }
    }
  });
});

function writeLogin(home: string, host: string): string {
  const file = join(home, 'auth.json');
  const auth = Buffer.from('somebody:password').toString('base64');
  writeFileSync(file, JSON.stringify({ auths: { [host]: { auth } } }), { mode: 0o600 });
  return file;
}

test('no command asks anybody where the environment turns the checking of certificates off', async (t) => {
  const impostor = await startImpostor(t, 'the true one');
  const image = `docker://${impostor.host}/a`;
  const vault = [`--vault-addr=${impostor.url}`, `--ca=${trusted}`];
  const calls: Readonly<Record<string, readonly string[]>> = {
    keyprovider: vault,
    serve: [...vault, '--allow=hashivault://k', `--listen=unix://${join(newHome(), 'socket')}`],
    encrypt: [image, image, '--recipient=hashivault://k', ...vault],
    decrypt: [image, image, ...vault],
    rewrap: [image, '--add=hashivault://k', ...vault],
    inspect: [image, `--ca=${trusted}`],
    verify: [image, ...vault],
    keygen: [join(newHome(), 'x.key')],
    doctor: ['hashivault://k', image, ...vault],
    config: ['ocicrypt'],
    completion: ['bash'],
    admission: ['--check', `--policy=${trusted}`, '--listen=tls://127.0.0.1:0'],
    health: [`--remote=tls://${impostor.host}`, `--tls-ca=${trusted}`],
    decoder: vault,
    node: ['check'],
    licenses: [],
    version: [],
  };
  assert.deepEqual(Object.keys(calls).toSorted(), [...COMMANDS.keys()].toSorted());
  for (const [command, words] of Object.entries(calls)) {
    for (const name of command === 'keyprovider'
      ? (['ocicrypt-kms', 'kms_oci_crypt'] as const)
      : (['ocicrypt-kms'] as const)) {
      const ended = await runExecutable([command, ...words], {
        name,
        environment: { VAULT_TOKEN: 'token', NODE_TLS_REJECT_UNAUTHORIZED: '0' },
        input: wrapRequest(['hashivault://k']),
      });
      assert.equal(ended.status, 78, `${command}: ${ended.stderr}`);
      assert.match(ended.stderr, /NODE_TLS_REJECT_UNAUTHORIZED=0/);
      assert.equal(ended.stdout.length, 0);
    }
  }
  assert.equal(impostor.connections, 0);
});
