// Connections by the sockets of Bun itself: `node:tls` takes 7 ms more of a process that lives for 20.
// https://bun.com/docs/runtime/networking/tcp

import type { X509Certificate } from 'node:crypto';
import { wipe } from '../bytes.ts';
import type { Connection, ConnectionListener, Dialer, Trust } from './connection.ts';
import { checkIdentity } from './server-identity.ts';

type BunSocket = {
  /** Returns how many bytes were taken; the others when it is drained. */
  write(bytes: Uint8Array): number;
  terminate(): void;
  ref(): void;
  unref(): void;
  getPeerX509Certificate(): X509Certificate | undefined;
  upgradeTLS(options: {
    readonly tls: BunTls;
    readonly socket: BunHandlers;
  }): readonly [raw: BunSocket, tls: BunSocket];
};

type BunTls = {
  readonly ca: readonly (Buffer | string)[];
  readonly cert?: string;
  readonly key?: Buffer;
  readonly serverName: string;
  readonly rejectUnauthorized: true;
};

type BunHandlers = {
  readonly open: (socket: BunSocket) => void;
  readonly handshake?: (socket: BunSocket, isTrusted: boolean, error: Error | null) => void;
  readonly data: (socket: BunSocket, bytes: Uint8Array) => void;
  readonly drain: (socket: BunSocket) => void;
  readonly end: (socket: BunSocket) => void;
  readonly close: (socket: BunSocket, error?: Error) => void;
  readonly error: (socket: BunSocket, error: Error) => void;
  readonly connectError: (socket: BunSocket, error: Error) => void;
};

type Bun = {
  readonly connect: (options: {
    readonly hostname: string;
    readonly port: number;
    readonly tls?: BunTls;
    readonly socket: BunHandlers;
  }) => Promise<BunSocket>;
};

/** @returns undefined if this is not Bun */
export function createBunDialer(): Dialer | undefined {
  const bun: unknown = Reflect.get(globalThis, 'Bun');
  if (!isBun(bun)) return undefined;
  return {
    reach(host, port, signal) {
      const connection = new BunConnection();
      return connection.open(signal, undefined, (socket) => bun.connect({ hostname: host, port, socket }));
    },
    reachSecurely(host, port, trust, signal) {
      const connection = new BunConnection();
      const tls = tlsOptions(host, trust);
      return connection.open(signal, checkOf(host, trust), (socket) =>
        bun.connect({ hostname: host, port, tls, socket }),
      );
    },
    secure(connection, host, trust, signal) {
      if (!(connection instanceof BunConnection)) throw new TypeError('a connection of another dialer');
      return connection.secure(signal, tlsOptions(host, trust), checkOf(host, trust));
    },
  };
}

function isBun(value: unknown): value is Bun {
  return typeof value === 'object' && value !== null && 'connect' in value;
}

/** `rejectUnauthorized` is explicit, because NODE_TLS_REJECT_UNAUTHORIZED=0 changes its default. */
function tlsOptions(host: string, { ca, own, serverName }: Trust): BunTls {
  return { ca, ...own, serverName: serverName ?? host, rejectUnauthorized: true };
}

type Check = (certificate: X509Certificate | undefined) => Error | undefined;

function checkOf(host: string, { serverName }: Trust): Check {
  return (certificate) => checkIdentity(serverName ?? host, certificate);
}

class BunConnection implements Connection {
  #socket: BunSocket | undefined;
  #listener: ConnectionListener | undefined;
  /** What the socket has not taken yet. */
  #waiting: Uint8Array[] = [];
  #hasEnded = false;
  #error: Error | undefined;
  /** Tells who opens it that this is not possible. */
  #fail: (error: Error) => void = () => {};

  /**
   * Opens it, by a function that is told what to do when something happens on the socket.
   *
   * @param check of the other side's certificate if there is to be TLS; Bun itself has checked all but what it takes
   * for a name
   */
  open(
    signal: AbortSignal,
    check: Check | undefined,
    connect: (handlers: BunHandlers) => unknown,
  ): Promise<Connection> {
    const { promise, resolve, reject } = Promise.withResolvers<Connection>();
    this.#fail = (error) => {
      // First, because to destroy it is another way to fail.
      reject(error);
      this.destroy();
    };
    const abort = () => this.#fail(new Error('ended by its signal'));
    if (signal.aborted) abort();
    else {
      signal.addEventListener('abort', abort);
      const connecting = connect(this.#handlers(check, resolve));
      if (connecting instanceof Promise) connecting.catch((error: Error) => this.#fail(error));
    }
    return promise.finally(() => {
      signal.removeEventListener('abort', abort);
      this.#fail = () => {};
    });
  }

  /** A connection with TLS over this one. */
  secure(signal: AbortSignal, tls: BunTls, check: Check): Promise<Connection> {
    const raw = this.#socket;
    this.#listener = undefined;
    const secured = new BunConnection();
    return secured.open(signal, check, (socket) => {
      if (raw === undefined || this.#hasEnded) throw new Error('the connection ended');
      secured.#socket = raw.upgradeTLS({ tls, socket })[1];
    });
  }

  send(bytes: Uint8Array): void {
    this.#waiting.push(bytes);
    if (this.#waiting.length === 1) this.#flush();
  }

  get isSending(): boolean {
    return this.#waiting.length > 0;
  }

  hear(listener: ConnectionListener): void {
    this.#listener = listener;
    if (this.#hasEnded) queueMicrotask(() => this.#end());
  }

  hold(isHeld: boolean): void {
    if (isHeld) this.#socket?.ref();
    else this.#socket?.unref();
  }

  destroy(): void {
    this.#listener = undefined;
    this.#hasEnded = true;
    wipe(...this.#waiting.splice(0));
    this.#socket?.terminate();
  }

  #handlers(check: Check | undefined, resolve: (connection: Connection) => void): BunHandlers {
    return {
      open: (socket) => {
        this.#socket = socket;
        // Perhaps no caller waits for it any more.
        if (this.#hasEnded) socket.terminate();
        else if (check === undefined) resolve(this);
      },
      handshake: (socket, isTrusted, error) => {
        const refusal = isTrusted && error === null ? check?.(socket.getPeerX509Certificate()) : (error ?? undefined);
        if (refusal !== undefined || !isTrusted) this.#fail(refusal ?? new Error('no trust'));
        else resolve(this);
      },
      data: (_, bytes) => this.#listener?.received(bytes),
      drain: () => this.#flush(),
      end: () => this.#end(),
      close: (_, error) => {
        this.#error ??= error;
        this.#end();
      },
      error: (_, error) => {
        this.#error ??= error;
      },
      connectError: (_, error) => this.#fail(error),
    };
  }

  #flush(): void {
    for (let bytes = this.#waiting[0]; bytes !== undefined; bytes = this.#waiting[0]) {
      const sent = Math.max(0, this.#socket?.write(bytes) ?? 0);
      wipe(bytes.subarray(0, sent));
      if (sent < bytes.length) {
        this.#waiting[0] = bytes.subarray(sent);
        return;
      }
      this.#waiting.shift();
    }
  }

  #end(): void {
    const listener = this.#listener;
    this.destroy();
    this.#fail(this.#error ?? Object.assign(new Error('the connection ended'), { code: 'ECONNRESET' }));
    listener?.ended(this.#error);
  }
}
