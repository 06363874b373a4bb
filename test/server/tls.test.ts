// P20: TLS 1.3, client certificates and their names, and certificates that change under way.
import assert from 'node:assert/strict';
import { chmodSync, copyFileSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { connect as connectHttp2 } from 'node:http2';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import { connect as connectTls } from 'node:tls';
import { asOcicryptError, type ErrorCode } from '../../src/base/errors.ts';
import type { GrpcTls } from '../../src/client/grpc-client.ts';
import { parseNames } from '../../src/server/tls.ts';
import { type CertificateFiles, createCertificateAuthority } from '../fixtures/certificates.ts';
import { callKeyProvider, callOn, type Running, startRunning, temporaryDirectory, wrapRequest } from './running.ts';

type World = {
  readonly running: Running;
  readonly files: CertificateFiles;
  /** What a client with a good certificate of this name gives. */
  readonly client: (name: string, options?: { readonly expired?: boolean }) => Promise<GrpcTls>;
  readonly authority: string;
  readonly directory: string;
};

/** A server with TLS and client certificates; `allowed` names clients, all others are refused where there are any. */
async function startWorld(t: TestContext, allowed: readonly string[] = []): Promise<World> {
  const directory = await temporaryDirectory(t);
  const servers = await createCertificateAuthority(directory, 'servers');
  const clients = await createCertificateAuthority(directory, 'clients');
  const files = await servers.issue('server');
  const tls = { certificate: files.certificate, privateKey: files.privateKey, clientAuthority: clients.certificate };
  const running = await startRunning(t, {
    listen: ['tls://127.0.0.1:0'],
    server: { listener: { access: { mode: 0o600, group: undefined }, tls, insecurePlaintext: false } },
    clients: allowed,
  });
  return {
    running,
    files,
    directory,
    authority: servers.certificate,
    async client(name, options = {}) {
      const issued = await clients.issue(`client-${name}`, { names: [name], usage: 'client', ...options });
      return { authority: servers.certificate, certificate: issued.certificate, privateKey: issued.privateKey };
    },
  };
}

async function ends(world: World, tls: GrpcTls): Promise<'ok' | ErrorCode> {
  try {
    await callKeyProvider(world.running.target, wrapRequest(), tls);
    return 'ok';
  } catch (error) {
    return asOcicryptError(error).code;
  }
}

describe('P20 TLS', () => {
  test('serves a client with a certificate, and nobody without, with an expired one or one of others', async (t) => {
    const world = await startWorld(t);
    assert.equal(await ends(world, await world.client('a.example')), 'ok');
    assert.equal(await ends(world, { authority: world.authority }), 'unavailable');
    assert.equal(await ends(world, await world.client('b.example', { expired: true })), 'unavailable');
    const others = await createCertificateAuthority(world.directory, 'others');
    const { certificate, privateKey } = await others.issue('stranger', { names: ['a.example'] });
    assert.equal(await ends(world, { authority: world.authority, certificate, privateKey }), 'unavailable');
    assert.equal(await ends(world, await world.client('a.example')), 'ok');
  });

  test('serves the names that are allowed', async (t) => {
    const world = await startWorld(t, ['a.example']);
    assert.equal(await ends(world, await world.client('a.example')), 'ok');
    assert.equal(await ends(world, await world.client('b.example')), 'not-allowed');
    assert.equal(await ends(world, await world.client('x.a.example')), 'not-allowed');
  });

  test('the client refuses a server of another authority', async (t) => {
    const world = await startWorld(t);
    const others = await createCertificateAuthority(world.directory, 'others');
    const client = await world.client('a.example');
    assert.equal(await ends(world, { ...client, authority: others.certificate }), 'unavailable');
  });

  test('TLS 1.2 and protocols other than h2 are refused', async (t) => {
    const world = await startWorld(t);
    const client = await world.client('a.example');
    for (const options of [
      { maxVersion: 'TLSv1.2', ALPNProtocols: ['h2'] },
      { ALPNProtocols: ['http/1.1'] },
      {},
    ] as const) {
      assert.equal(await handshakeEnds(world, client, options), 'closed');
    }
  });

  test('new certificates are taken without a dropped call, and broken ones not at all', async (t) => {
    const world = await startWorld(t);
    const { target, server, instruments, said } = world.running;
    assert.ok(target.kind === 'tls');
    const client = await world.client('a.example');
    const session = connectHttp2(`https://127.0.0.1:${target.port}`, {
      ca: readFileSync(world.authority),
      cert: readFileSync(client.certificate ?? ''),
      key: readFileSync(client.privateKey ?? ''),
    });
    t.after(() => session.destroy());
    assert.equal((await callOn(session, wrapRequest())).status, '0');

    const good = join(world.directory, 'good.crt');
    copyFileSync(world.files.certificate, good);
    writeFileSync(world.files.certificate, 'not a certificate');
    server.reload();
    assert.equal(await ends(world, client), 'ok');
    rmSync(world.files.certificate);
    server.reload();
    assert.equal(await ends(world, client), 'ok');
    assert.ok(said.some((text) => text.startsWith('certificates not reloaded')));

    // Another authority: who still trusts the old one alone does not connect any more.
    const next = await createCertificateAuthority(world.directory, 'next');
    const issued = await next.issue('next-server');
    copyFileSync(issued.privateKey, world.files.privateKey);
    copyFileSync(issued.certificate, world.files.certificate);
    server.reload();
    assert.equal(await ends(world, client), 'unavailable');
    assert.equal(await ends(world, { ...client, authority: next.certificate }), 'ok');
    assert.equal((await callOn(session, wrapRequest())).status, '0');
    assert.match(instruments.render(), /certificate_reloads_total\{result="failed"\} 2\n.*result="ok"\} 1/s);
  });

  test('a private key that others can read is refused', async (t) => {
    const directory = await temporaryDirectory(t);
    const { certificate, privateKey } = await (await createCertificateAuthority(directory)).issue('server');
    const open = join(directory, 'open.key');
    copyFileSync(privateKey, open);
    chmodSync(open, 0o644);
    const tls = { certificate, privateKey: open, clientAuthority: undefined };
    const listener = { access: { mode: 0o600, group: undefined }, tls, insecurePlaintext: false };
    await assert.rejects(
      startRunning(t, { listen: ['tls://127.0.0.1:0'], server: { listener } }),
      (error) => asOcicryptError(error).code === 'configuration',
    );
  });

  test('names that OpenSSL has to quote are no names', () => {
    assert.deepEqual(
      parseNames('DNS:a.example, URI:spiffe://x/y, IP Address:10.0.0.1, email:a@b.example, othername:<unsupported>'),
      ['a.example', 'spiffe://x/y', '10.0.0.1', 'a@b.example'],
    );
    assert.deepEqual(parseNames('DNS:"a.example, DNS:b.example"'), []);
    assert.deepEqual(parseNames(''), []);
  });
});

type HandshakeOptions = {
  readonly maxVersion?: 'TLSv1.2';
  readonly ALPNProtocols?: string[] | readonly ['h2'] | readonly ['http/1.1'];
};

async function handshakeEnds(world: World, client: GrpcTls, options: HandshakeOptions): Promise<string> {
  const { target } = world.running;
  assert.ok(target.kind === 'tls');
  const socket = connectTls({
    host: '127.0.0.1',
    port: target.port,
    ca: readFileSync(world.authority),
    cert: readFileSync(client.certificate ?? ''),
    key: readFileSync(client.privateKey ?? ''),
    ...(options.maxVersion === undefined ? {} : { maxVersion: options.maxVersion }),
    ...(options.ALPNProtocols === undefined ? {} : { ALPNProtocols: [...options.ALPNProtocols] }),
  });
  socket.on('error', () => {});
  socket.resume();
  return new Promise((resolve) => {
    socket.once('close', () => resolve('closed'));
    setTimeout(() => resolve('open'), 1500).unref();
  });
}
