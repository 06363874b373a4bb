// A registry that speaks the real protocol, over TLS unless it is told otherwise, and misbehaves on demand: loopback, in memory.
import { createHash, randomUUID } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { createServer as createPlainServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { createServer } from 'node:https';
import { join } from 'node:path';
import { createCertificateAuthority } from '../../../fixtures/certificates.ts';
import type { Lifetime } from '../../harness.ts';

/** Answers a request itself (true) or leaves it to the registry. */
export type Fault = (request: IncomingMessage, response: ServerResponse, path: string) => boolean | Promise<boolean>;

export type FakeRegistry = {
  /** `127.0.0.1:PORT` */
  readonly host: string;
  readonly authority: string;
  readonly blobs: Map<string, Buffer>;
  /** Method, path and `authorization` of every request, in order. */
  readonly requests: { readonly method: string; readonly path: string; readonly authorization: string | undefined }[];
  /** What comes before the registry's own answer. */
  fault: Fault | undefined;
};

/** Starts one that stops with the test. */
export async function startFakeRegistry(t: Lifetime, directory: string, { tls = true } = {}): Promise<FakeRegistry> {
  const { certificate: authority, issue } = await createCertificateAuthority(join(directory, randomUUID()));
  const { certificate, privateKey } = await issue('server', { usage: 'server', names: ['127.0.0.1', 'registry.test'] });
  const manifests = new Map<string, { readonly type: string; readonly bytes: Buffer }>();
  const uploads = new Map<string, Buffer>();
  const fake: FakeRegistry = { host: '', authority, blobs: new Map(), requests: [], fault: undefined };

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { pathname: path, searchParams } = new URL(request.url ?? '/', 'https://fake');
    const method = request.method ?? '';
    fake.requests.push({ method, path, authorization: request.headers.authorization });
    if (fake.fault !== undefined && (await fake.fault(request, response, path))) return;
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk);
    const body = Buffer.concat(chunks);
    const digest = /\/blobs\/(sha256:\w+)$/.exec(path)?.[1];
    const session = /\/blobs\/uploads\/([\w-]+)$/.exec(path)?.[1];
    const reference = /\/manifests\/(.+)$/.exec(path)?.[1];
    const end = (status: number, headers: Record<string, string> = {}, content: Buffer = Buffer.alloc(0)) => {
      response.writeHead(status, { 'content-length': String(content.length), ...headers });
      response.end(method === 'HEAD' ? undefined : content);
    };
    if (digest !== undefined) {
      const blob = fake.blobs.get(digest);
      return blob === undefined ? end(404) : end(200, {}, blob);
    }
    if (path.endsWith('/blobs/uploads/')) {
      const id = randomUUID();
      uploads.set(id, Buffer.alloc(0));
      return end(202, { location: `${path}${id}` });
    }
    if (session !== undefined) {
      const before = uploads.get(session);
      if (before === undefined) return end(404);
      const all = Buffer.concat([before, body]);
      uploads.set(session, all);
      if (method === 'PATCH') return end(202, { location: path });
      const named = searchParams.get('digest') ?? '';
      if (named !== `sha256:${createHash('sha256').update(all).digest('hex')}`) return end(400);
      fake.blobs.set(named, all);
      return end(201);
    }
    if (reference !== undefined && method === 'PUT') {
      const manifest = { type: request.headers['content-type'] ?? '', bytes: body };
      manifests.set(reference, manifest);
      manifests.set(`sha256:${createHash('sha256').update(body).digest('hex')}`, manifest);
      return end(201);
    }
    const manifest = manifests.get(reference ?? '');
    return manifest === undefined ? end(404) : end(200, { 'content-type': manifest.type }, manifest.bytes);
  }

  const listen = (request: IncomingMessage, response: ServerResponse) => {
    answer(request, response).catch(() => response.destroy());
  };
  const server = tls
    ? createServer({ cert: await readFile(certificate), key: await readFile(privateKey) }, listen)
    : createPlainServer(listen);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  const address = server.address();
  const port = typeof address === 'object' && address !== null ? address.port : 0;
  return Object.assign(fake, { host: `127.0.0.1:${port}` });
}
