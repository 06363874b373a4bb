// P20: TLS 1.3, client certificates and their names, certificates that change under way, and TLS 1.2 where it is asked for.
import assert from 'node:assert/strict';
import { copyFileSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect as connectHttp2 } from 'node:http2';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import { type ConnectionOptions, connect as connectTls } from 'node:tls';
import { asOcicryptError, type ErrorCode } from '../../../src/base/errors.ts';
import type { GrpcTls } from '../../../src/client/grpc-client.ts';
import { type CertificateFiles, createCertificateAuthority } from '../../fixtures/certificates.ts';
import type { Program } from '../../fixtures/serve.ts';
import { callKeyProvider, callOn, wrapRequest } from '../../server/running.ts';
import { PROGRAMS, pause, type Subject, startSubject } from './served.ts';

type World = {
  readonly subject: Subject;
  readonly target: { readonly kind: 'tls'; readonly host: string; readonly port: number };
  readonly files: CertificateFiles;
  /** What a client with a good certificate of this name gives. */
  readonly client: (name: string, options?: { readonly expired?: boolean; readonly file?: string }) => Promise<GrpcTls>;
  readonly authority: string;
  readonly directory: string;
};

/** A server with TLS and client certificates; `words` are more of its options. */
async function startWorld(t: TestContext, program: Program, words: readonly string[] = []): Promise<World> {
  const directory = await mkdtemp(join(tmpdir(), 'tls-'));
  t.after(() => rm(directory, { recursive: true, force: true }));
  const servers = await createCertificateAuthority(directory, 'servers');
  const clients = await createCertificateAuthority(directory, 'clients');
  const files = await servers.issue('server');
  const subject = await startSubject(t, program, {
    words: [
      ...['--listen=tls://127.0.0.1:0', `--tls-cert=${files.certificate}`, `--tls-key=${files.privateKey}`],
      ...[`--tls-client-ca=${clients.certificate}`, ...words],
    ],
  });
  const port = Number(
    subject.addresses
      .find((address) => address.startsWith('tls:'))
      ?.split(':')
      .at(-1),
  );
  return {
    ...{ subject, files, directory, authority: servers.certificate },
    target: { kind: 'tls', host: '127.0.0.1', port },
    async client(name, { file = `client-${name}`, ...options } = {}) {
      const issued = await clients.issue(file, { names: [name], usage: 'client', ...options });
      return { authority: servers.certificate, certificate: issued.certificate, privateKey: issued.privateKey };
    },
  };
}

async function ends(world: World, tls: GrpcTls): Promise<'ok' | ErrorCode> {
  try {
    await callKeyProvider(world.target, wrapRequest(), tls);
    return 'ok';
  } catch (error) {
    return asOcicryptError(error).code;
  }
}

function pems({ authority, certificate, privateKey }: GrpcTls) {
  return {
    ca: readFileSync(authority ?? ''),
    cert: readFileSync(certificate ?? ''),
    key: readFileSync(privateKey ?? ''),
  };
}

/** The protocol and cipher of a connection that the server keeps, or "closed". */
function handshake({ target }: World, client: GrpcTls, options: ConnectionOptions): Promise<string> {
  const socket = connectTls({ ...pems(client), host: target.host, port: target.port, ...options });
  socket.on('error', () => {});
  return new Promise((resolve) => {
    socket.once('close', () => resolve('closed'));
    // The server's settings: with TLS 1.3 a client is connected before its certificate is looked at.
    socket.once('data', () => {
      resolve(`${socket.getProtocol()} ${socket.getCipher().name}`);
      socket.destroy();
    });
  });
}

/** Signals until the server has said `text` once more. */
async function reload({ subject }: World, text: string): Promise<void> {
  const count = () => subject.log().split(text).length;
  const before = count();
  subject.child.kill('SIGHUP');
  while (count() === before) await pause(10);
}

for (const { name, program } of PROGRAMS) {
  describe(`P20 TLS (${name})`, () => {
    test('serves a client with a certificate, and nobody without, with an expired one or one of others', async (t) => {
      const world = await startWorld(t, program);
      assert.equal(await ends(world, await world.client('a.example')), 'ok');
      assert.equal(await ends(world, { authority: world.authority }), 'unavailable');
      assert.equal(await ends(world, await world.client('b.example', { expired: true })), 'unavailable');
      const others = await createCertificateAuthority(world.directory, 'others');
      const { certificate, privateKey } = await others.issue('stranger', { names: ['a.example'] });
      assert.equal(await ends(world, { authority: world.authority, certificate, privateKey }), 'unavailable');
      assert.equal(
        await ends(world, { ...(await world.client('a.example')), authority: others.certificate }),
        'unavailable',
      );
      assert.equal(await ends(world, await world.client('a.example')), 'ok');
    });

    test('serves the names that are allowed', async (t) => {
      const world = await startWorld(t, program, ['--allow-client=a.example']);
      assert.equal(await ends(world, await world.client('a.example')), 'ok');
      assert.equal(await ends(world, await world.client('b.example')), 'not-allowed');
      assert.equal(await ends(world, await world.client('x.a.example')), 'not-allowed');
    });

    test('serves names of another kind where they are written so, and writes a line of who is refused', async (t) => {
      const kinds = ['URI:spiffe://x/y', 'email:a@b.example', 'IP:2001:db8::1'];
      const log = join(await mkdtemp(join(tmpdir(), 'tls-')), 'audit.log');
      t.after(() => rm(dirname(log), { recursive: true, force: true }));
      const allowed = ['a.example', ...kinds].map((name) => `--allow-client=${name}`);
      const world = await startWorld(t, program, [...allowed, `--audit-log=${log}`]);
      const clients = ['a.example', 'URI:spiffe://x/y', 'email:a@b.example', '2001:db8::1'];
      const strangers = ['URI:a.example', 'email:a.example', 'spiffe://x/y', 'URI:spiffe://x/z', '2001:db8::2'];
      for (const [index, name] of [...clients, ...strangers].entries()) {
        const code = await ends(world, await world.client(name, { file: `client${index}` }));
        assert.equal(code, index < clients.length ? 'ok' : 'not-allowed', name);
      }
      const lines: readonly Record<string, unknown>[] = readFileSync(log, 'utf8')
        .trimEnd()
        .split('\n')
        .map((line) => JSON.parse(line));
      const refused = lines.filter(({ outcome }) => outcome === 'not-allowed');
      assert.deepEqual([lines.length, refused.length], [clients.length + strangers.length, strangers.length]);
      for (const { operation, caller } of refused) {
        assert.deepEqual([operation, /^tls:\/\/127\.0\.0\.1\b/.test(String(caller))], ['wrap', true]);
      }
      assert.ok(String(refused[0]?.caller).endsWith(' URI:a.example'));
      const metric = /operation="wrap",backend="none",code="not-allowed"/;
      assert.equal(await world.subject.sample('ocicrypt_kms_requests_total', metric), strangers.length);
    });

    test('speaks HTTP/2 over TLS 1.3 and nothing else', async (t) => {
      const world = await startWorld(t, program);
      const client = await world.client('a.example');
      assert.match(await handshake(world, client, { ALPNProtocols: ['h2'] }), /^TLSv1\.3 TLS_/);
      for (const options of [
        { maxVersion: 'TLSv1.2', ALPNProtocols: ['h2'] },
        { ALPNProtocols: ['http/1.1'] },
        {},
      ] as const) {
        assert.equal(
          await handshake(world, client, { ...options, ALPNProtocols: [...(options.ALPNProtocols ?? [])] }),
          'closed',
        );
      }
    });

    test('speaks TLS 1.2 where it is asked for, with AEAD and forward secrecy only', async (t) => {
      const world = await startWorld(t, program, ['--tls-min=1.2']);
      const client = await world.client('a.example');
      const h2 = { ALPNProtocols: ['h2'] };
      assert.match(await handshake(world, client, h2), /^TLSv1\.3 TLS_/);
      const old = { ...h2, maxVersion: 'TLSv1.2' } as const;
      assert.match(await handshake(world, client, old), /^TLSv1\.2 ECDHE-ECDSA-(?:AES\d+-GCM|CHACHA20)/);
      for (const ciphers of [
        'ECDHE-ECDSA-AES128-SHA256',
        'ECDHE-ECDSA-AES256-SHA',
        'ECDHE-ECDSA-AES256-CCM8:@SECLEVEL=0',
      ]) {
        assert.equal(await handshake(world, client, { ...old, ciphers }), 'closed', ciphers);
      }
      assert.equal(await handshake(world, client, { ...h2, minVersion: 'TLSv1.1', maxVersion: 'TLSv1.1' }), 'closed');
    });

    test('takes new certificates without a dropped call, and broken ones not at all', async (t) => {
      const world = await startWorld(t, program);
      const client = await world.client('a.example');
      const session = connectHttp2(`https://127.0.0.1:${world.target.port}`, pems(client));
      t.after(() => session.destroy());
      assert.equal((await callOn(session, wrapRequest())).status, '0');

      writeFileSync(world.files.certificate, 'not a certificate');
      await reload(world, 'certificates not reloaded');
      assert.equal(await ends(world, client), 'ok');
      rmSync(world.files.certificate);
      await reload(world, 'certificates not reloaded');
      assert.equal(await ends(world, client), 'ok');

      // Another authority: who still trusts the old one alone does not connect any more.
      const next = await createCertificateAuthority(world.directory, 'next');
      const issued = await next.issue('next-server');
      copyFileSync(issued.privateKey, world.files.privateKey);
      copyFileSync(issued.certificate, world.files.certificate);
      await reload(world, 'certificates reloaded');
      assert.equal(await ends(world, client), 'unavailable');
      assert.equal(await ends(world, { ...client, authority: next.certificate }), 'ok');
      assert.equal((await callOn(session, wrapRequest())).status, '0');
      const counted = (result: RegExp) => world.subject.sample('ocicrypt_kms_certificate_reloads_total', result);
      assert.deepEqual([await counted(/failed/), await counted(/ok/)], [2, 1]);
    });

    test('takes new certificates by itself when their files change', async (t) => {
      const world = await startWorld(t, program);
      const client = await world.client('a.example');
      const next = await createCertificateAuthority(world.directory, 'next');
      const issued = await next.issue('next-server');
      copyFileSync(issued.privateKey, world.files.privateKey);
      copyFileSync(issued.certificate, world.files.certificate);
      // Looked at every 5 s.
      while (!world.subject.log().includes('certificates reloaded')) await pause(100);
      assert.equal(await ends(world, { ...client, authority: next.certificate }), 'ok');
    });
  });
}
