// Metrics and health over HTTP/1, on a listener of their own.

import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { type Address, formatAddress, isLoopback } from '../base/address.ts';
import { OcicryptError } from '../base/errors.ts';
import { setting } from '../base/setting.ts';
import { type Acceptor, checkTarget, type ListenerOptions, openListener } from './listener.ts';
import { METRICS_TYPE } from './metrics.ts';
import { Slots } from './slots.ts';
import type { TlsFiles } from './tls.ts';
import { checkSocketPlace, listenOnUnixSocket } from './unix-socket.ts';

export type StatusPageOptions = {
  readonly metrics: () => string;
  readonly isReady: () => Promise<boolean>;
  readonly isDraining: () => boolean;
};

export interface StatusPage {
  readonly address: string;
  /** Reads the certificates again if they have changed; returns whether it did. @throws OcicryptError the old ones stay */
  reload(): boolean;
  close(): void;
}

export type StatusTarget = {
  readonly address: Address;
  /** Those of the server itself, for an address with TLS. */
  readonly tls?: TlsFiles | undefined;
  /** Whether everyone who can connect may read it, from whatever interface. */
  readonly insecure: boolean;
};

/**
 * Finds out all that speaks against a status page there, short of listening.
 *
 * @throws OcicryptError `configuration`
 */
export function checkStatusTarget(target: StatusTarget): void {
  const { address, insecure } = target;
  if (address.kind === 'unix') checkSocketPlace(address.path, OWN);
  if (address.kind === 'tls') checkTarget(address, tlsListener(target));
  if (address.kind !== 'tcp' || isLoopback(address.host) || insecure) return;
  throw new OcicryptError('configuration', `metrics are not served in clear on ${formatAddress(address)}`, {
    hint: `use tls://HOST:PORT, tcp://127.0.0.1:PORT or unix:///PATH, or add ${setting('status.insecure')}`,
  });
}

/**
 * Serves `/metrics`, `/livez` and `/readyz`, without any secret: on a unix socket, on the loopback, over TLS to clients
 * that show a certificate, and to others only if the operator says so.
 *
 * @throws OcicryptError `configuration`
 */
export async function startStatusPage(target: StatusTarget, options: StatusPageOptions): Promise<StatusPage> {
  checkStatusTarget(target);
  const { address } = target;
  // Each connection is for one request. None is busy in the sense of its place: the oldest gives way.
  const slots = new Slots(SLOTS);
  const server = createServer((request, response) => {
    slots.limit(request.socket, ANSWER_MILLISECONDS);
    response.once('finish', () => slots.limit(request.socket, LEAVE_MILLISECONDS));
    void answer(request, options).then(([status, type, body]) => send(response, status, type, body));
  });
  server.maxRequestsPerSocket = 1;
  if (address.kind === 'tls') {
    const acceptor: Acceptor = {
      begin(socket) {
        // A socket without a listener for its errors ends the process.
        socket.on('error', () => socket.destroy());
        slots.take(socket, REQUEST_MILLISECONDS);
      },
      accept(socket, _peer, begun) {
        socket.on('error', () => socket.destroy());
        if (begun !== undefined) slots.enter(socket, begun);
        server.emit('connection', socket);
      },
    };
    const listener = await openListener(address, acceptor, tlsListener(target));
    return { ...listener, close: () => closeAll(listener, slots) };
  }
  server.on('connection', (connection) => slots.take(connection, REQUEST_MILLISECONDS));
  const socket =
    address.kind === 'unix'
      ? await listenOnUnixSocket(server, address.path, OWN)
      : await listen(server, address.host, address.port, formatAddress(address));
  const bound = server.address();
  const port = typeof bound === 'object' && bound !== null ? bound.port : 0;
  return {
    address: formatAddress(address.kind === 'unix' ? address : { ...address, port }),
    reload: () => false,
    close: () => closeAll(socket, slots),
  };
}

function closeAll(listener: { readonly close: () => void }, slots: Slots): void {
  listener.close();
  slots.destroy();
}

/** Only this user reads a unix socket. */
const OWN = { mode: 0o600, group: undefined };

function tlsListener(target: StatusTarget): ListenerOptions {
  return { access: OWN, tls: tlsOf(target), insecurePlaintext: false, protocol: 'http/1.1' };
}

function tlsOf({ tls, insecure }: StatusTarget): TlsFiles | undefined {
  if (tls === undefined || insecure) return tls && { ...tls, clientAuthority: undefined };
  if (tls.clientAuthority !== undefined) return tls;
  throw new OcicryptError('configuration', 'metrics are not served to clients without a certificate', {
    hint: `give ${setting('tls.clientAuthority')}=FILE, or add ${setting('status.insecure')}`,
  });
}

/** Connections that are open at the same time. */
const SLOTS = 16;
/** Milliseconds from the start of a connection to the end of its request's head, on to its answer, and to its end. */
const REQUEST_MILLISECONDS = 2_000;
const ANSWER_MILLISECONDS = 15_000;
const LEAVE_MILLISECONDS = 1_000;

type Answer = readonly [status: number, type: string, body: string];

/** Texts from a fixed list: nothing of a request, a key or an error comes back. */
async function answer(request: IncomingMessage, options: StatusPageOptions): Promise<Answer> {
  if (request.method !== 'GET') return [405, 'text/plain', 'only GET\n'];
  switch (request.url) {
    case '/metrics':
      return [200, METRICS_TYPE, options.metrics()];
    case '/livez':
      return [200, 'text/plain', 'alive\n'];
    case '/readyz':
      if (options.isDraining()) return [503, 'text/plain', 'draining\n'];
      return (await options.isReady()) ? [200, 'text/plain', 'ready\n'] : [503, 'text/plain', 'not ready\n'];
    default:
      return [404, 'text/plain', 'not found\n'];
  }
}

function send(response: ServerResponse, status: number, type: string, body: string): void {
  response.writeHead(status, { 'content-type': type, 'cache-control': 'no-store' });
  response.end(body);
}

function listen(server: Server, host: string, port: number, shown: string): Promise<{ readonly close: () => void }> {
  return new Promise((resolve, reject) => {
    server.once('listening', () => resolve({ close: () => server.close() }));
    server.once('error', (cause: NodeJS.ErrnoException) =>
      reject(new OcicryptError('configuration', `cannot listen on ${shown} (${cause.code})`, { cause })),
    );
    server.listen(port, host);
  });
}
