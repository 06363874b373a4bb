// Connections by `node:net` and `node:tls`, which both runtimes have.

import { connect as connectPlain, isIP, type Socket } from 'node:net';
import { type ConnectionOptions, connect as connectTls, createSecureContext, type SecureContext } from 'node:tls';
import { wipe } from '../bytes.ts';
import { trustingContext } from './client-context.ts';
import type { Connection, ConnectionListener, Dialer, Trust } from './connection.ts';
import { identityCheck } from './server-identity.ts';

/** @returns a dialer, which makes one thing of all roots that it is given once */
export function createNodeDialer(): Dialer {
  const contexts = new WeakMap<Trust, SecureContext>();

  /** Parsing the roots costs milliseconds, and every connection would do it again. */
  function contextOf(trust: Trust): SecureContext {
    const context = contexts.get(trust) ?? makeContext(trust);
    contexts.set(trust, context);
    return context;
  }

  /** `rejectUnauthorized` is explicit, because NODE_TLS_REJECT_UNAUTHORIZED=0 changes its default. */
  function optionsFor(host: string, trust: Trust): ConnectionOptions {
    const name = trust.serverName ?? host;
    return {
      rejectUnauthorized: true,
      secureContext: contextOf(trust),
      checkServerIdentity: (_, certificate) => identityCheck(trust.serverName)(host, certificate),
      ALPNProtocols: ['http/1.1'],
      // RFC 6066 section 3: an address is no name.
      ...(isIP(name) === 0 ? { servername: name } : {}),
    };
  }

  return {
    reach: (host, port, signal) => opened(connectPlain({ host, port }), 'connect', signal),
    reachSecurely: (host, port, trust, signal) =>
      opened(connectTls({ host, port, ...optionsFor(host, trust) }), 'secureConnect', signal),
    secure(connection, host, trust, signal) {
      if (!(connection instanceof NodeConnection)) throw new TypeError('a connection of another dialer');
      return opened(
        connectTls({ socket: connection.release(), host, ...optionsFor(host, trust) }),
        'secureConnect',
        signal,
      );
    },
  };
}

function makeContext({ ca, own }: Trust): SecureContext {
  return own === undefined ? trustingContext(ca) : createSecureContext({ ca: [...ca], ...own, minVersion: 'TLSv1.2' });
}

/** Waits for a socket. @param event by which it says that it may be used */
function opened(socket: Socket, event: 'connect' | 'secureConnect', signal: AbortSignal): Promise<Connection> {
  const { promise, resolve, reject } = Promise.withResolvers<Connection>();
  const abort = () => fail(new Error('ended by its signal'));
  const fail = (error: Error) => {
    socket.destroy();
    reject(error);
  };
  const cut = () => fail(Object.assign(new Error('the connection ended'), { code: 'ECONNRESET' }));
  const ready = () => {
    signal.removeEventListener('abort', abort);
    for (const [name, heard] of [
      ['error', fail],
      ['close', cut],
    ] as const)
      socket.off(name, heard);
    resolve(new NodeConnection(socket));
  };
  // What comes after the end of all this does not matter, but must not be thrown.
  socket.on('error', fail).on('close', cut).once(event, ready);
  if (signal.aborted) abort();
  else signal.addEventListener('abort', abort);
  return promise.finally(() => signal.removeEventListener('abort', abort));
}

class NodeConnection implements Connection {
  readonly #socket: Socket;
  #listener: ConnectionListener | undefined;
  #error: Error | undefined;

  constructor(socket: Socket) {
    this.#socket = socket.setNoDelay(true);
    socket.on('error', (error) => {
      this.#error = error;
    });
    socket.on('data', this.#received);
    // After all data, unlike 'close'.
    socket.on('end', this.#ended);
    socket.on('close', this.#ended);
  }

  send(bytes: Uint8Array): void {
    this.#socket.write(bytes, () => wipe(bytes));
  }

  get isSending(): boolean {
    return this.#socket.writableLength > 0;
  }

  hear(listener: ConnectionListener): void {
    this.#listener = listener;
    if (this.#socket.destroyed) queueMicrotask(this.#ended);
  }

  hold(isHeld: boolean): void {
    if (isHeld) this.#socket.ref();
    else this.#socket.unref();
  }

  destroy(): void {
    this.#listener = undefined;
    this.#socket.destroy();
  }

  /** The socket, of which this hears nothing any more. */
  release(): Socket {
    this.#listener = undefined;
    this.#socket.off('data', this.#received).off('end', this.#ended).off('close', this.#ended);
    return this.#socket;
  }

  readonly #received = (bytes: Buffer) => this.#listener?.received(bytes);

  readonly #ended = () => {
    const listener = this.#listener;
    this.destroy();
    listener?.ended(this.#error);
  };
}
