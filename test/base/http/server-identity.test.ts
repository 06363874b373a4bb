// A certificate with a common name and no alternative name is refused by everything that speaks TLS here.
import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createSecureServer } from 'node:http2';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { asOcicryptError } from '../../../src/base/errors.ts';
import { createHttpClient } from '../../../src/base/http/client.ts';
import { checkIdentity } from '../../../src/base/http/server-identity.ts';
import { createHttpStreams } from '../../../src/base/http/stream.ts';
import { callOnce } from '../../../src/client/grpc-client.ts';
import { createCertificateAuthority } from '../../fixtures/certificates.ts';
import { startProxy } from '../../fixtures/proxy.ts';

const directory = mkdtempSync(join(tmpdir(), 'identity-'));
after(() => rmSync(directory, { recursive: true, force: true }));
let authority: string;
/** Ports of servers whose certificates have a common name alone, and an alternative name too. */
const ports = { common: 0, alternative: 0 };
const requests: string[] = [];
const closers: (() => void)[] = [];
after(() => {
  for (const close of closers) close();
});

before(async () => {
  const issuer = await createCertificateAuthority(directory);
  authority = issuer.certificate;
  for (const [name, names] of [
    ['common', []],
    ['alternative', ['localhost', 'service.test']],
  ] as const) {
    const files = await issuer.issue(name, { commonName: 'localhost', names });
    const tls = { cert: readFileSync(files.certificate), key: readFileSync(files.privateKey), allowHTTP1: true };
    const server = createSecureServer(tls, (request, response) => {
      requests.push(`${name} ${request.headers.authorization}`);
      response.end('{}');
    });
    server.listen(0, 'localhost');
    await once(server, 'listening');
    closers.push(() => server.close());
    const address = server.address();
    assert.ok(typeof address === 'object' && address !== null);
    ports[name] = address.port;
  }
});

type Name = keyof typeof ports;
const signal = () => AbortSignal.timeout(10_000);
const headers = { authorization: 'Bearer secret' };

async function askHttp(name: Name, environment: NodeJS.ProcessEnv = {}, host = 'localhost'): Promise<number> {
  const client = createHttpClient({ environment, caFiles: [authority] });
  const url = `https://${host}:${ports[name]}/`;
  return (await client.request({ method: 'GET', url, headers, signal: signal() })).status;
}

async function askStreams(name: Name): Promise<number> {
  const streams = createHttpStreams({ environment: {}, caFiles: [authority] });
  const url = new URL(`https://localhost:${ports[name]}/`);
  const exchange = await streams.open({ method: 'GET', url, headers, signal: signal() });
  const answer = await exchange.answer();
  answer.discard();
  return answer.status;
}

async function askServer(name: Name): Promise<number> {
  const target = { kind: 'tls', host: 'localhost', port: ports[name] } as const;
  const call = { method: '/a/b', message: new Uint8Array(1), timeout: 5000, maximumReply: 100, signal: signal() };
  // The server is none of gRPC, which it says where it is spoken to at all.
  const error = await callOnce(target, { authority }, call).then(() => undefined, asOcicryptError);
  if (error?.message.startsWith('no gRPC answer')) return 200;
  throw error;
}

describe('a certificate without an alternative name is refused, before anything is sent', () => {
  for (const [who, ask] of Object.entries({ 'key services': askHttp, registries: askStreams, 'a server': askServer })) {
    test(`by the client of ${who}`, async () => {
      assert.equal(await ask('alternative'), 200);
      const before = requests.length;
      const error = await ask('common').then(() => assert.fail('it was asked'), asOcicryptError);
      assert.equal(error.code, 'unavailable');
      assert.equal(requests.length, before);
    });
  }
  test('and through a proxy', async (t) => {
    const proxy = await startProxy(t, {
      [`service.test:${ports.alternative}`]: ports.alternative,
      [`service.test:${ports.common}`]: ports.common,
    });
    assert.equal(await askHttp('alternative', { HTTPS_PROXY: proxy }, 'service.test'), 200);
    const error = await askHttp('common', { HTTPS_PROXY: proxy }, 'service.test').then(
      () => assert.fail('it was asked'),
      asOcicryptError,
    );
    assert.equal(error.code, 'unavailable');
    assert.match(error.hint ?? '', /alternative name/);
  });
});

test('names and addresses are compared whole, and a wildcard is one label', async () => {
  const issuer = await createCertificateAuthority(join(directory, 'names'));
  const names = ['a.test', '*.b.test', 'f*.c.test', '*.test', '127.0.0.1', '::1'];
  const { certificate } = await issuer.issue('named', { commonName: 'common.name.test', names });
  const named = new X509Certificate(readFileSync(certificate));
  for (const host of ['a.test', 'A.TEST', 'a.test.', 'x.b.test', '127.0.0.1', '::1'])
    assert.equal(checkIdentity(host, named), undefined, host);
  for (const host of [
    ...['y.x.b.test', '.b.test', 'b.test', 'foo.c.test', 'q.test', 'test', 'common.name.test', 'a.test..', 'xa.test'],
    ...['127.0.0.2', '127.0.0', '::2', '::', '', 'a.test\0', '*.b.test'],
  ]) {
    const error = checkIdentity(host, named);
    assert.ok(error !== undefined && 'code' in error && error.code === 'ERR_TLS_CERT_ALTNAME_INVALID', host);
  }
  assert.notEqual(checkIdentity('a.test', undefined), undefined);
});
