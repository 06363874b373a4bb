// Listens for callers: unix sockets, TLS, plain TCP on the loopback, and sockets that systemd hands over.

import { createServer as createPlainServer, type Server, type Socket } from 'node:net';
import { createServer as createTlsServer, type TLSSocket } from 'node:tls';
import { type Address, formatAddress, isLoopback, type NetworkAddress } from '../base/address.ts';
import { OcicryptError } from '../base/errors.ts';
import { setting } from '../base/setting.ts';
import { clientNames } from './client-names.ts';
import type { Connections } from './connections.ts';
import { readTlsOptions, type TlsFiles, tlsFilesState } from './tls.ts';
import { checkSocketPlace, listenOnUnixSocket, type SocketAccess } from './unix-socket.ts';

/** Where to listen: an address, a unix socket for ttrpc, or a listening descriptor that systemd made. */
export type ListenTarget =
  | Address
  | { readonly kind: 'ttrpc'; readonly path: string }
  | { readonly kind: 'inherited'; readonly descriptor: number };

export type ListenerOptions = {
  readonly access: SocketAccess;
  readonly tls: TlsFiles | undefined;
  /** Whether plain TCP may be used, on the loopback. */
  readonly insecurePlaintext: boolean;
  /** What is spoken over TLS: `h2` alone if it is left out; who names no protocol speaks `http/1.1`. */
  readonly protocol?: 'h2' | 'http/1.1';
};

/** Where connections go that a listener takes. */
export type Acceptor = Pick<Connections, 'accept' | 'begin'>;

/** A socket that takes connections. */
export interface Listener {
  /** As {@link formatAddress} writes it, with the port that was chosen. */
  readonly address: string;
  /** Reads the certificates again where they have changed; returns whether it did. @throws OcicryptError the old ones stay */
  reload(): boolean;
  /** Takes no more connections; a unix socket of ours is removed. */
  close(): void;
}

/** As an operator writes it. */
export function formatTarget(target: Exclude<ListenTarget, { readonly kind: 'inherited' }>): string {
  return target.kind === 'ttrpc' ? `ttrpc://${target.path}` : formatAddress(target);
}

/** Descriptors are handed over from 3 on: sd_listen_fds(3). */
const FIRST_INHERITED = 3;

/** The sockets that systemd made for this process, taken out of `environment` so that they are taken once only. */
export function inheritedTargets(environment: NodeJS.ProcessEnv): readonly ListenTarget[] {
  const { LISTEN_PID: pid, LISTEN_FDS: count } = environment;
  if (pid !== String(process.pid) || count === undefined || !/^\d{1,3}$/.test(count)) return [];
  delete environment.LISTEN_PID;
  delete environment.LISTEN_FDS;
  delete environment.LISTEN_FDNAMES;
  return Array.from({ length: Number(count) }, (_, index) => ({
    kind: 'inherited',
    descriptor: FIRST_INHERITED + index,
  }));
}

/**
 * Finds out all that speaks against listening on `target`, short of listening. What kind of socket an inherited one is, only
 * listening on it tells.
 *
 * @throws OcicryptError `configuration`
 */
export function checkTarget(target: ListenTarget, options: ListenerOptions): void {
  if (target.kind === 'tls') certificateFiles(options);
  if (target.kind === 'tcp') checkPlaintext(target.host, options);
  if (target.kind === 'unix' || target.kind === 'ttrpc') checkSocketPlace(target.path, options.access);
}

/**
 * Listens on `target` and hands connections to `connections`.
 *
 * @throws OcicryptError `configuration`
 */
export async function openListener(
  target: ListenTarget,
  connections: Acceptor,
  options: ListenerOptions,
): Promise<Listener> {
  checkTarget(target, options);
  if (target.kind === 'tls') return openTlsListener(target, connections, options);
  if (target.kind === 'inherited') return openInheritedListener(target.descriptor, connections, options);
  const server = createPlainServer({ noDelay: true });
  if (target.kind === 'unix' || target.kind === 'ttrpc') {
    const address = formatTarget(target);
    server.on('connection', (socket) => connections.accept(socket, { caller: address }));
    const { close } = await listenOnUnixSocket(server, target.path, options.access);
    return { ...plainListener(server, address), close };
  }
  server.on('connection', (socket) => acceptPlain(socket, connections));
  await listenOnPort(server, target);
  return plainListener(server, formatAddress({ ...target, port: portOf(server) }));
}

async function openTlsListener(
  target: NetworkAddress,
  connections: Acceptor,
  options: ListenerOptions,
): Promise<Listener> {
  const listener = createTlsListener(connections, options);
  await listenOnPort(listener.server, target);
  return listener.at(formatAddress({ ...target, port: portOf(listener.server) }));
}

/** What kind of socket it is, only listening on it tells. */
async function openInheritedListener(
  descriptor: number,
  connections: Acceptor,
  options: ListenerOptions,
): Promise<Listener> {
  const address = `descriptor ${descriptor} of systemd`;
  const secured = options.tls === undefined ? undefined : createTlsListener(connections, options);
  const server = createPlainServer({ noDelay: true });
  server.on('connection', (socket) => {
    // A unix socket has no remote address; a network socket always has one.
    if (portOf(server) === 0) connections.accept(socket, { caller: `unix (${address})` });
    else if (secured !== undefined) secured.server.emit('connection', socket);
    else acceptPlain(socket, connections);
  });
  await listening(server, { fd: descriptor }, address);
  const bound = server.address();
  const host = typeof bound === 'object' && bound !== null && 'port' in bound ? bound.address : undefined;
  try {
    if (host !== undefined && secured === undefined) checkPlaintext(host, options);
  } catch (error) {
    server.close();
    throw error;
  }
  return { ...(secured?.at(address) ?? plainListener(server, address)), close: () => server.close() };
}

/** Of the names of a client, which may be many, in audit and log. */
const MAXIMUM_SHOWN = 512;

type TlsListener = { readonly server: Server; readonly at: (address: string) => Listener };

function createTlsListener(connections: Acceptor, options: ListenerOptions): TlsListener {
  const { protocol = 'h2' } = options;
  const files = certificateFiles(options);
  let state = tlsFilesState(files);
  const server = createTlsServer({
    ...readTlsOptions(files),
    ALPNProtocols: [protocol],
    noDelay: true,
  });
  /** Node has two objects for one connection, Bun one; the other end's port is the same in both. */
  const handshakes = new Map<string, Socket>();
  server.on('connection', (socket: Socket) => {
    const name = nameOf(socket);
    handshakes.set(name, socket);
    socket.once('close', () => {
      if (handshakes.get(name) === socket) handshakes.delete(name);
    });
    connections.begin(socket);
  });
  server.on('secureConnection', (socket: TLSSocket) => {
    const name = nameOf(socket);
    const begun = handshakes.get(name);
    handshakes.delete(name);
    const names = files.clientAuthority === undefined ? undefined : clientNames(socket);
    if ((socket.alpnProtocol || 'http/1.1') !== protocol || (names !== undefined && !socket.authorized)) {
      socket.destroy();
      return;
    }
    const shown = (names ?? []).join(' ').slice(0, MAXIMUM_SHOWN);
    const caller = `tls://${socket.remoteAddress ?? ''} ${shown}`.trimEnd();
    connections.accept(socket, names === undefined ? { caller } : { caller, names }, begun);
  });
  // Without this the socket of a failed handshake stays open.
  server.on('tlsClientError', (_error: Error, socket: TLSSocket) => socket.destroy());
  const reload = () => {
    const now = tlsFilesState(files);
    if (now === state) return false;
    // Remembered also where it fails, so that one bad file is reported once.
    state = now;
    server.setSecureContext(readTlsOptions(files));
    return true;
  };
  return { server, at: (address) => ({ address, reload, close: () => server.close() }) };
}

function certificateFiles({ tls }: ListenerOptions): TlsFiles {
  if (tls !== undefined) return tls;
  throw new OcicryptError('configuration', 'listening with TLS needs a certificate', {
    hint: `give ${setting('tls.certificate')}=FILE and ${setting('tls.privateKey')}=FILE`,
  });
}

function plainListener(server: Server, address: string): Listener {
  return { address, reload: () => false, close: () => server.close() };
}

function acceptPlain(socket: Socket, connections: Acceptor): void {
  connections.accept(socket, { caller: `tcp://${socket.remoteAddress ?? ''}` });
}

/** Layer keys in clear may only go where no other user can listen. */
function checkPlaintext(host: string, options: ListenerOptions): void {
  if (!isLoopback(host)) {
    throw new OcicryptError(
      'configuration',
      `refusing to listen on ${host} without TLS: layer keys would be readable`,
      {
        hint: `use tls:// with ${setting('tls.certificate')} and ${setting('tls.privateKey')}, or a unix socket`,
      },
    );
  }
  if (!options.insecurePlaintext) {
    throw new OcicryptError('configuration', `listening on ${host} without TLS lets every local user ask for keys`, {
      hint: `use a unix socket, or say ${setting('insecurePlaintext')}`,
    });
  }
}

function listenOnPort(server: Server, address: NetworkAddress): Promise<void> {
  return listening(server, { host: address.host, port: address.port }, formatAddress(address));
}

function listening(
  server: Server,
  where: { readonly fd: number } | { readonly host: string; readonly port: number },
  shown: string,
): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('listening', resolve);
    server.once('error', (cause: NodeJS.ErrnoException) =>
      reject(
        new OcicryptError('configuration', `cannot listen on ${shown} (${cause.code})`, {
          cause,
          hint:
            cause.code === 'EADDRINUSE' ? 'another server is there: stop it, or listen elsewhere' : 'check the address',
        }),
      ),
    );
    server.listen(where);
  });
}

/** 0 for unix sockets. */
function portOf(server: Server): number {
  const address = server.address();
  return typeof address === 'object' && address !== null && 'port' in address ? (address.port ?? 0) : 0;
}

function nameOf(socket: Socket): string {
  return `${socket.remoteAddress} ${socket.remotePort}`;
}
