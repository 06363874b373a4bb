// The HTTP client against servers that misbehave byte by byte.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { copyFile, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer as createPlainServer } from 'node:http';
import { type AddressInfo, connect, createServer as createTcpServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { createServer as createTlsServer, type TlsOptions } from 'node:tls';
import { OcicryptError } from '../../../src/base/errors.ts';
import { createHttpClient, parseRetryAfter } from '../../../src/base/http/client.ts';
import type { HttpClient, HttpRequest } from '../../../src/base/http/contract.ts';
import { chooseProxy } from '../../../src/base/http/proxy.ts';
import { readRoots } from '../../../src/base/http/roots.ts';
import { type CertificateFiles, createCertificateAuthority } from '../../fixtures/certificates.ts';

let directory: string;
let ca: string;
let server: CertificateFiles;
let elsewhere: CertificateFiles;
let expired: CertificateFiles;
const closers: (() => void)[] = [];
const rawSockets = new Map<number | undefined, Socket>();

before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'http-'));
  const authority = await createCertificateAuthority(directory);
  ca = authority.certificate;
  server = await authority.issue('server');
  elsewhere = await authority.issue('elsewhere', { names: ['elsewhere.test'] });
  expired = await authority.issue('expired', { expired: true });
});

after(async () => {
  for (const close of closers) close();
  await rm(directory, { recursive: true, force: true });
});

describe('an exchange', () => {
  test('carries method, path, headers and body both ways', async () => {
    const heard: string[] = [];
    const url = await startRaw((socket, request) => {
      heard.push(request);
      socket.end('HTTP/1.1 201 Created\r\nX-One: a\r\nX-One: b\r\nContent-Length: 5\r\n\r\nhello');
    });
    const answer = await trusting().request(
      post(`${url}/a/b?c=d`, { headers: { 'x-test': 'yes' }, body: bytes('body!') }),
    );
    assert.equal(answer.status, 201);
    assert.equal(answer.headers['x-one'], 'a, b');
    assert.equal(text(answer.body), 'hello');
    assert.match(heard.join(''), /^POST \/a\/b\?c=d HTTP\/1.1\r\n/);
    assert.match(heard.join(''), /\r\nx-test: yes\r\n/i);
    assert.match(heard.join(''), /\r\ncontent-length: 5\r\n/i);
    assert.match(heard.join(''), /\r\n\r\nbody!$/);
  });

  test('answers with the status of an error and its body', async () => {
    const url = await startRaw((socket) =>
      socket.end('HTTP/1.1 503 No\r\nRetry-After: 7\r\nContent-Length: 2\r\n\r\nno'),
    );
    const answer = await trusting().request(post(url));
    assert.deepEqual([answer.status, parseRetryAfter(answer.headers), text(answer.body)], [503, 7000, 'no']);
  });

  test('reads chunked, close-delimited and empty bodies', async () => {
    for (const [head, body] of [
      ['Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n', 'abc'],
      ['Connection: close\r\n\r\nabc', 'abc'],
      ['Content-Length: 0\r\n\r\n', ''],
    ] as const) {
      const url = await startRaw((socket) => socket.end(`HTTP/1.1 200 OK\r\n${head}`));
      assert.equal(text((await trusting().request(post(url))).body), body);
    }
  });

  test('uses one connection for one request after another', async () => {
    const sockets = new Set<Socket>();
    const url = await startRaw((socket) => {
      sockets.add(socket);
      socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok');
    });
    const client = trusting();
    for (let request = 0; request < 5; request++) await client.request(post(url, { body: bytes('x') }));
    assert.equal(sockets.size, 1);
    client.close();
  });

  test('opens its connection while its headers are waited for, which fail as they do', async () => {
    const opened = Promise.withResolvers<void>();
    const heard: string[] = [];
    let connections = 0;
    const listener = createTcpServer((socket) => {
      connections++;
      opened.resolve();
      socket.on('data', (request) => {
        heard.push(request.toString());
        socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok');
      });
    });
    const url = `http://127.0.0.1:${(await listen(listener)).port}`;
    const client = trusting();
    const noToken = new OcicryptError('unauthenticated', 'no token');
    const late = (then: () => Record<string, string>) => async () => {
      await opened.promise;
      return then();
    };
    const refused = client.request(
      post(url, {
        headers: late(() => {
          throw noToken;
        }),
      }),
    );
    await assert.rejects(refused, (error) => error === noToken);
    assert.deepEqual(heard, []);
    const answer = await client.request(post(url, { headers: late(() => ({ 'x-late': 'yes' })) }));
    assert.deepEqual([answer.status, heard.length], [200, 1]);
    const before = connections;
    assert.match(heard.join(''), /\r\nx-late: yes\r\n/);
    const unsent = client.request(post(url, { headers: late(() => ({ 'x-late': 'a\nb' })) }));
    await assert.rejects(unsent, /cannot be sent/);
    // There is one that waits.
    assert.deepEqual([heard.length, connections], [1, before]);
    client.close();
    listener.close();
    await assert.rejects(
      client.request(post(url, { headers: () => Promise.reject(noToken) })),
      (error) => error === noToken,
    );
  });

  test('gives up the connection that it is opening if its headers fail', async () => {
    const reached = Promise.withResolvers<Socket>();
    // It never answers the handshake.
    const listener = createTcpServer((socket) => reached.resolve(socket.on('error', () => {}).resume()));
    const url = `https://127.0.0.1:${(await listen(listener)).port}`;
    const noToken = new OcicryptError('unauthenticated', 'no token');
    const headers = () => reached.promise.then(() => Promise.reject(noToken));
    await assert.rejects(trusting().request(post(url, { headers })), (error) => error === noToken);
    const socket = await reached.promise;
    if (!socket.destroyed) await once(socket, 'close');
  });

  test('never decodes a body', async () => {
    const url = await startRaw((socket) =>
      socket.end('HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nabcd'),
    );
    assert.equal(text((await trusting().request(post(url))).body), 'abcd');
  });
});

describe('an answer that is not whole', () => {
  for (const [name, answer] of [
    ['shorter than announced', 'HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nabc'],
    ['in chunks without the last', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n'],
    ['cut inside a chunk', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n30\r\nabc'],
    ['cut inside its head', 'HTTP/1.1 200 OK\r\nContent-Le'],
    ['nothing', ''],
    ['not HTTP', 'SSH-2.0-OpenSSH_9.9\r\n'],
    ['of two lengths', 'HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd'],
  ] as const) {
    test(`is unavailable and worth a retry: ${name}`, async () => {
      const url = await startRaw((socket) => socket.end(answer));
      await rejects(trusting().request(post(url)), 'unavailable', true);
    });
    test(`is the same when the connection is reset: ${name}`, async () => {
      const url = await startRaw((socket) => socket.write(answer, () => setTimeout(() => reset(socket), 5)));
      await rejects(trusting().request(post(url)), 'unavailable', true);
    });
  }

  test('never grows by what follows it', async () => {
    const url = await startRaw((socket) => socket.end('HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcdef'));
    const outcome = await trusting()
      .request(post(url))
      .catch((error: unknown) => error);
    if (outcome instanceof OcicryptError) assert.equal(outcome.code, 'unavailable');
    else assert.equal(text((outcome as { body: Uint8Array }).body), 'abc');
  });

  test('is refused where it is longer than permitted', async () => {
    const url = await startRaw((socket) => {
      socket.on('error', () => {});
      socket.write(`HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n${'x'.repeat(2000)}`);
    });
    await rejects(trusting().request(post(url, { maximumBytes: 1999 })), 'unavailable', false);
    assert.equal((await trusting().request(post(url, { maximumBytes: 2000 }))).body.length, 2000);
  });
});

describe('a signal', () => {
  test('ends a request that was not sent', async () => {
    await rejects(
      trusting().request({ ...post('https://127.0.0.1:1'), signal: AbortSignal.abort() }),
      'deadline-exceeded',
      true,
    );
  });
  for (const [name, answer] of [
    ['no answer comes', ''],
    ['half an answer comes', 'HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nabc'],
  ] as const) {
    test(`ends a request where ${name}`, async () => {
      const url = await startRaw((socket) => socket.write(answer));
      const client = trusting();
      await rejects(client.request({ ...post(url), signal: AbortSignal.timeout(50) }), 'deadline-exceeded', true);
      client.close();
    });
  }
  test('ends a handshake that nobody answers', async () => {
    const silent = createTcpServer(() => {});
    const { port } = await listen(silent);
    await rejects(
      trusting().request({ ...post(`https://127.0.0.1:${port}`), signal: AbortSignal.timeout(50) }),
      'deadline-exceeded',
      true,
    );
  });
});

describe('trust', () => {
  const ok = 'HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n';

  test('is refused to an unknown issuer, with the flag that helps, even where the environment turns TLS off', async () => {
    const url = await startRaw((socket) => socket.end(ok));
    const saved = process.env.NODE_TLS_REJECT_UNAUTHORIZED;
    try {
      for (const value of [undefined, '0']) {
        if (value !== undefined) process.env.NODE_TLS_REJECT_UNAUTHORIZED = value;
        const error = await rejects(createHttpClient({ environment: {} }).request(post(url)), 'unavailable', false);
        assert.match(error.hint ?? '', /caFiles FILE/);
      }
    } finally {
      if (saved === undefined) delete process.env.NODE_TLS_REJECT_UNAUTHORIZED;
      else process.env.NODE_TLS_REJECT_UNAUTHORIZED = saved;
    }
  });
  test('of one client is not trust of another, though a connection is open', async () => {
    const url = await startRaw((socket) => socket.write(ok));
    const trusted = trusting();
    assert.equal((await trusted.request(post(url))).status, 200);
    await rejects(createHttpClient({ environment: {} }).request(post(url)), 'unavailable', false);
    assert.equal((await trusted.request(post(url))).status, 200);
    trusted.close();
  });
  test('is refused to the certificate of another host', async () => {
    const url = await startRaw((socket) => socket.end(ok), elsewhere);
    await rejects(trusting().request(post(url)), 'unavailable', false);
  });
  test('is refused to an expired certificate', async () => {
    const url = await startRaw((socket) => socket.end(ok), expired);
    await rejects(trusting().request(post(url)), 'unavailable', false);
  });
  test('is refused to TLS 1.1', async () => {
    const url = await startRaw((socket) => socket.end(ok), server, { minVersion: 'TLSv1', maxVersion: 'TLSv1.1' });
    const error = await trusting()
      .request(post(url))
      .catch((refusal: unknown) => refusal);
    assert.ok(error instanceof OcicryptError && error.code === 'unavailable');
  });
  test('comes from SSL_CERT_FILE, SSL_CERT_DIR and CA files, any one of which is enough', async () => {
    const url = await startRaw((socket) => socket.end(ok));
    const authorities = join(directory, 'authorities');
    await mkdir(authorities);
    await copyFile(ca, join(authorities, 'ca.crt'));
    await writeFile(join(authorities, 'README'), 'no certificate');
    const elsewhere = join(directory, 'missing');
    for (const environment of [
      { SSL_CERT_FILE: ca },
      { SSL_CERT_DIR: authorities },
      { SSL_CERT_FILE: ca, SSL_CERT_DIR: elsewhere },
      { SSL_CERT_DIR: `${elsewhere}:${authorities}` },
    ]) {
      assert.equal((await createHttpClient({ environment }).request(post(url))).status, 200);
    }
    assert.equal((await createHttpClient({ environment: {}, caFiles: [ca] }).request(post(url))).status, 200);
    await rejects(
      createHttpClient({ environment: { SSL_CERT_DIR: elsewhere } }).request(post(url)),
      'unavailable',
      false,
    );
  });
  test('keeps the roots of the system beside SSL_CERT_FILE, which users set for their registry', () => {
    const own = readFileSync(ca, 'latin1');
    const texts = (environment: NodeJS.ProcessEnv) => readRoots({}, environment).map(String);
    const system = texts({});
    assert.ok(system.length > 0);
    assert.equal(texts({ SSL_CERT_FILE: ca }).join(''), [...system, own].join(''));
    assert.equal(texts({ SSL_CERT_FILE: ca, SSL_CERT_DIR: join(directory, 'missing') }).join(''), own);
  });
  test('has each certificate once, however often files and directories hold it', async () => {
    const own = readFileSync(ca, 'latin1');
    const directories = join(directory, 'twice');
    await mkdir(directories);
    const [first = '', ...others] = readRoots({}, {})
      .join('')
      .matchAll(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----\n/g);
    const of = (texts: Iterable<unknown>) => [...texts].map((text) => String(text)).join('');
    const bundle = join(directory, 'bundle.pem');
    await writeFile(bundle, `${of([first, ...others])}${own}`);
    for (const name of ['a', 'b']) await writeFile(join(directories, name), `${own}${first}`);
    const added = (environment: NodeJS.ProcessEnv, more = {}) =>
      readRoots(more, environment).slice(readRoots({}, {}).length).map(String);
    assert.deepEqual(added({ SSL_CERT_FILE: bundle }), [own]);
    assert.deepEqual(added({ SSL_CERT_DIR: directories }), [own]);
    assert.deepEqual(added({ SSL_CERT_DIR: directories }, { caFiles: [ca, bundle], caDirectory: directories }), [own]);
    const both = { SSL_CERT_FILE: bundle, SSL_CERT_DIR: directories };
    assert.equal(of(readRoots({}, both)).match(/BEGIN/g)?.length, others.length + 2);
  });
  test('needs a file that holds certificates', async () => {
    const garbage = join(directory, 'garbage');
    await writeFile(garbage, 'no certificate');
    for (const file of [garbage, join(directory, 'missing'), directory]) {
      const url = 'https://127.0.0.1:1';
      await rejects(createHttpClient({ environment: {}, caFiles: [file] }).request(post(url)), 'configuration', false);
      await rejects(
        createHttpClient({ environment: { SSL_CERT_FILE: file } }).request(post(url)),
        'configuration',
        false,
      );
    }
  });
});

describe('an address', () => {
  test('needs TLS unless it is this machine or named as plain', async () => {
    for (const url of ['http://example.com', 'http://10.0.0.1/', 'ftp://localhost', 'https://u:p@localhost', 'x', '']) {
      await rejects(trusting().request(post(url)), 'configuration', false);
    }
    const plain = createPlainServer((_request, response) => response.end('plain'));
    const { port } = await listen(plain);
    for (const host of ['localhost', '127.0.0.1']) {
      assert.equal(text((await trusting().request(post(`http://${host}:${port}`))).body), 'plain');
    }
  });
  test('that refuses connections is worth a retry, one that does not exist is not', async () => {
    await rejects(trusting().request(post('https://127.0.0.1:1')), 'unavailable', true);
    await rejects(trusting().request(post('https://no-such-host.invalid')), 'unavailable');
  });
  test('that redirects is refused and the other address is never asked', async () => {
    let asked = 0;
    const trap = await startRaw(() => asked++);
    for (const status of [301, 302, 303, 307, 308]) {
      const url = await startRaw((socket) =>
        socket.end(`HTTP/1.1 ${status} Moved\r\nLocation: ${trap}\r\nContent-Length: 0\r\n\r\n`),
      );
      await rejects(
        trusting().request(post(url, { headers: { authorization: 'Bearer secret' } })),
        'unavailable',
        false,
      );
    }
    assert.equal(asked, 0);
  });
});

describe('a proxy', () => {
  test('that is not there, or has no such name, is named, and not the host behind it', async () => {
    for (const [proxy, message] of [
      ['http://127.0.0.1:1', /the proxy 127\.0\.0\.1:1 on the way to kms\.test/],
      ['http://user:canary@proxy.invalid:3128', /no host is named proxy\.invalid, the proxy on the way to kms\.test/],
    ] as const) {
      const client = createHttpClient({ environment: { HTTPS_PROXY: proxy } });
      const signal = AbortSignal.timeout(20_000);
      await assert.rejects(client.request({ method: 'GET', url: 'https://kms.test/', signal }), (error) => {
        assert.ok(error instanceof OcicryptError);
        assert.equal(error.code, 'unavailable');
        assert.match(error.message, message);
        assert.match(error.hint ?? '', /HTTPS_PROXY.*NO_PROXY/);
        assert.ok(!error.message.includes('canary'));
        return true;
      });
      client.close();
    }
  });

  test('carries TLS to hosts that NO_PROXY does not list, with its credentials', async () => {
    const heard: string[] = [];
    const url = await startRaw((socket) => socket.end('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'), elsewhere);
    const { port } = new URL(url);
    const proxy = await startProxy((head) => {
      heard.push(head);
      return Number(port);
    });
    const environment = { HTTPS_PROXY: `http://user:word@127.0.0.1:${proxy}` };
    const client = createHttpClient({ environment, caFiles: [ca] });
    const answer = await client.request(post('https://elsewhere.test/path'));
    assert.equal(text(answer.body), 'ok');
    assert.match(heard[0] ?? '', /^CONNECT elsewhere\.test:443 HTTP\/1\.1\r\n/);
    assert.match(heard[0] ?? '', /Proxy-Authorization: Basic dXNlcjp3b3Jk\r\n/i);
    client.close();
  });
  test('is told nothing of an untrusted server', async () => {
    const url = await startRaw((socket) => socket.end('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'), elsewhere);
    const proxy = await startProxy(() => Number(new URL(url).port));
    const environment = { HTTPS_PROXY: `http://127.0.0.1:${proxy}` };
    await rejects(createHttpClient({ environment }).request(post('https://elsewhere.test/')), 'unavailable', false);
    await rejects(
      createHttpClient({ environment, caFiles: [ca] }).request(post('https://other.test/')),
      'unavailable',
      false,
    );
  });
  test('that refuses is an error and not an answer of the service', async () => {
    const proxy = await startProxy(() => undefined);
    const environment = { HTTPS_PROXY: `http://127.0.0.1:${proxy}` };
    const outcome = await createHttpClient({ environment, caFiles: [ca] })
      .request(post('https://elsewhere.test/'))
      .catch((error: unknown) => error);
    assert.ok(outcome instanceof OcicryptError && outcome.code === 'unavailable');
  });
  test('that does not answer ends with the signal', async () => {
    const { port } = await listen(createTcpServer(() => {}));
    const environment = { HTTPS_PROXY: `http://127.0.0.1:${port}` };
    const request = { ...post('https://elsewhere.test/'), signal: AbortSignal.timeout(50) };
    await rejects(createHttpClient({ environment }).request(request), 'deadline-exceeded', true);
  });
  test('of the whole process is not asked for this machine, which metadata servers may be on', async () => {
    let asked = 0;
    const { port } = await listen(
      createTcpServer((socket) => {
        asked++;
        socket.destroy();
      }),
    );
    const plain = await listen(createPlainServer((_request, response) => response.end('plain')));
    const secure = await startRaw((socket) => socket.end('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'));
    const names = ['ALL_PROXY', 'HTTP_PROXY', 'HTTPS_PROXY'];
    const saved = names.map((name) => [name, process.env[name]] as const);
    try {
      for (const name of names) process.env[name] = `http://127.0.0.1:${port}`;
      const client = createHttpClient({ caFiles: [ca] });
      assert.equal(text((await client.request(post(`http://127.0.0.1:${plain.port}`))).body), 'plain');
      assert.equal(text((await client.request(post(secure))).body), 'ok');
      client.close();
    } finally {
      for (const [name, value] of saved) {
        if (value === undefined) delete process.env[name];
        else process.env[name] = value;
      }
    }
    assert.equal(asked, 0);
  });
  test('is chosen as curl and Go choose it', () => {
    const HTTPS_PROXY = 'http://proxy.test:3128';
    const proxied = (host: string, NO_PROXY: string, port = 443) =>
      chooseProxy(host, port, { HTTPS_PROXY, NO_PROXY })?.host === 'proxy.test:3128';
    assert.ok(proxied('example.com', ''));
    assert.ok(proxied('notexample.com', 'example.com'));
    assert.ok(proxied('example.com', 'example.com:8443'));
    assert.ok(proxied('11.0.0.1', '10.0.0.0/8'));
    assert.ok(proxied('example.com', '10.0.0.0/8, fd00::/8'));
    assert.ok(!proxied('example.com', '*'));
    assert.ok(!proxied('example.com', 'other.com,EXAMPLE.com'));
    assert.ok(!proxied('a.example.com', '.example.com'));
    assert.ok(!proxied('a.example.com', '*.example.com'));
    assert.ok(!proxied('a.example.com', 'example.com'));
    assert.ok(!proxied('example.com', 'example.com:8443', 8443));
    assert.ok(!proxied('10.1.2.3', '10.0.0.0/8'));
    assert.ok(!proxied('fd00::1', 'fd00::/8'));
    assert.ok(!proxied('fd00::1', 'fd00::1'));
    for (const host of ['localhost', '127.0.0.1', '127.9.9.9', '::1']) assert.ok(!proxied(host, ''));
    assert.equal(chooseProxy('example.com', 443, {}), undefined);
    assert.equal(chooseProxy('example.com', 443, { https_proxy: 'p:1', HTTPS_PROXY })?.host, 'p:1');
    assert.throws(() => chooseProxy('example.com', 443, { HTTPS_PROXY: 'socks5://p:1' }), { code: 'configuration' });
  });
});

test('Retry-After is a number of seconds or a date', () => {
  const now = Date.parse('Mon, 23 Nov 2026 10:00:00 GMT');
  assert.equal(parseRetryAfter({ 'retry-after': '0' }, now), 0);
  assert.equal(parseRetryAfter({ 'retry-after': '12' }, now), 12_000);
  assert.equal(parseRetryAfter({ 'retry-after': 'Mon, 23 Nov 2026 10:00:03 GMT' }, now), 3000);
  assert.equal(parseRetryAfter({ 'retry-after': 'Mon, 23 Nov 2026 09:00:03 GMT' }, now), 0);
  assert.equal(parseRetryAfter({ 'retry-after': '0.25' }, now), 250);
  assert.equal(parseRetryAfter({ 'retry-after': '1.5' }, now), 1500);
  for (const value of ['', 'soon', '-1', '1.5.2', '1e3', '.5']) {
    assert.equal(parseRetryAfter({ 'retry-after': value }, now), undefined, value);
  }
  assert.equal(parseRetryAfter({}, now), undefined);
});

function trusting(): HttpClient {
  return createHttpClient({ caFiles: [ca], environment: {} });
}

function post(url: string, more: Partial<HttpRequest> = {}): HttpRequest {
  return { method: 'POST', url, signal: AbortSignal.timeout(10_000), ...more };
}

/** A TLS server that hands over each request as text (once its body is there) and lets the test answer in bytes. */
async function startRaw(
  answer: (socket: Socket, request: string) => unknown,
  files: CertificateFiles = server,
  options: TlsOptions = {},
): Promise<string> {
  const tls = { cert: readFileSync(files.certificate), key: readFileSync(files.privateKey), ...options };
  const listener = createTlsServer(tls, (socket) => {
    let request = '';
    socket.on('error', () => {});
    socket.on('data', (data) => {
      request += data.toString('latin1');
      const length = Number(/content-length: (\d+)/i.exec(request)?.[1] ?? 0);
      if (!request.includes('\r\n\r\n') || request.length < request.indexOf('\r\n\r\n') + 4 + length) return;
      answer(socket, request);
      request = '';
    });
  });
  listener.on('tlsClientError', () => {});
  return `https://127.0.0.1:${(await listen(listener)).port}`;
}

/** Ends the connection under the TLS with RST and not with close_notify and FIN. */
function reset(socket: Socket): void {
  rawSockets.get(socket.remotePort)?.resetAndDestroy();
}

/** A proxy that tunnels each CONNECT to the port that `route` says, or refuses it with 403. */
async function startProxy(route: (head: string) => number | undefined): Promise<number> {
  const proxy = createTcpServer((socket) => {
    socket.on('error', () => {});
    socket.once('data', (data) => {
      const port = route(data.toString('latin1'));
      if (port === undefined) {
        socket.end('HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n');
        return;
      }
      const upstream = connect(port, '127.0.0.1', () => {
        socket.write('HTTP/1.1 200 Connection established\r\n\r\n');
        socket.pipe(upstream).pipe(socket);
      });
      upstream.on('error', () => socket.destroy());
      socket.on('close', () => upstream.destroy());
    });
  });
  return (await listen(proxy)).port;
}

async function listen(listener: Server): Promise<AddressInfo> {
  const sockets = new Set<Socket>();
  listener.on('connection', (socket: Socket) => {
    sockets.add(socket);
    rawSockets.set(socket.remotePort, socket);
    socket.on('error', () => {});
    socket.on('close', () => sockets.delete(socket));
  });
  closers.push(() => {
    listener.close();
    for (const socket of sockets) socket.destroy();
  });
  await new Promise<void>((resolve) => listener.listen(0, '127.0.0.1', resolve));
  const address = listener.address();
  assert.ok(address !== null && typeof address === 'object');
  return address;
}

async function rejects(promise: Promise<unknown>, code: string, retryable?: boolean): Promise<OcicryptError> {
  const error = await promise.then(
    () => assert.fail('it was answered'),
    (reason: unknown) => reason,
  );
  assert.ok(error instanceof OcicryptError, String(error));
  assert.equal(error.code, code, `${error.message} ${error.cause}`);
  if (retryable !== undefined) assert.equal(error.retryable, retryable, `${error.message} ${error.cause}`);
  return error;
}

function bytes(value: string): Uint8Array {
  return new TextEncoder().encode(value);
}

function text(value: Uint8Array): string {
  return new TextDecoder().decode(value);
}
