// Stands before a registry on this machine, in plain HTTP, and counts what is asked of it.
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { createServer, request as plainRequest } from 'node:http';
import { request as tlsRequest } from 'node:https';

export type CountingProxy = {
  /** `127.0.0.1:PORT` */
  readonly host: string;
  /** How often each method was used since the last time this was called. */
  readonly counts: () => Readonly<Record<string, number>>;
  readonly stop: () => void;
};

/** @param upstream `HOST:PORT` @param authority the PEM file of its authority, if it has TLS */
export async function startCountingProxy(upstream: string, authority?: string): Promise<CountingProxy> {
  const ca = authority === undefined ? undefined : await readFile(authority);
  let counts: Record<string, number> = {};
  const server = createServer((request, response) => {
    const { method = '', url = '/', headers } = request;
    counts[method] = (counts[method] ?? 0) + 1;
    // The host that was asked and the lack of TLS, from which registries make the addresses that they answer.
    const options = {
      method,
      headers: { ...headers, 'x-forwarded-proto': 'http' },
      ...(ca === undefined ? {} : { ca }),
    };
    const address = `${ca === undefined ? 'http' : 'https'}://${upstream}${url}`;
    const onward = (ca === undefined ? plainRequest : tlsRequest)(address, options, (answer) => {
      response.writeHead(answer.statusCode ?? 502, answer.headers);
      answer.pipe(response);
    });
    onward.on('error', () => response.destroy());
    request.pipe(onward);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  return {
    host: `127.0.0.1:${typeof address === 'object' && address !== null ? address.port : 0}`,
    counts: () => {
      const before = counts;
      counts = {};
      return before;
    },
    stop: () => {
      server.closeAllConnections();
      server.close();
    },
  };
}
