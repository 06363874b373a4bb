// What HTTP/1.1 needs of a connection, and how one is opened, whichever runtime does it.

import type { readClientCertificate } from './roots.ts';

/** Who hears what comes over a connection. */
export interface ConnectionListener {
  /** Bytes that are the listener's own from now on. */
  received(bytes: Uint8Array): void;
  /** Nothing comes any more. Called once. @param error where the connection did not end in order */
  ended(error: Error | undefined): void;
}

/** Bytes both ways; over TLS they are sent only after the other side has proved who it is. */
export interface Connection {
  /** Sends bytes, which are the connection's own from now on: it wipes them once they are sent. */
  send(bytes: Uint8Array): void;
  /** Whether bytes are not sent yet, which an answer may come before. */
  readonly isSending: boolean;
  /** Says who hears of it from now on. */
  hear(listener: ConnectionListener): void;
  /** Whether it keeps the process running, as it does at first. */
  hold(isHeld: boolean): void;
  /** Ends it at once, without telling its user. */
  destroy(): void;
}

/** Whom TLS trusts, and who we are. */
export type Trust = {
  readonly ca: readonly (Buffer | string)[];
  readonly own: ReturnType<typeof readClientCertificate> | undefined;
  /** The name that certificates must carry, if it is not that of the host. */
  readonly serverName: string | undefined;
};

/** Opens connections by what one runtime has. All of them throw the runtime's error, which has its code. */
export interface Dialer {
  /** A connection over which a host has been reached, and no more. */
  reach(host: string, port: number, signal: AbortSignal): Promise<Connection>;
  /** The same with TLS: the host has a certificate that is trusted and names it. */
  reachSecurely(host: string, port: number, trust: Trust, signal: AbortSignal): Promise<Connection>;
  /** TLS over a connection of this dialer that leads to `host` by now, and is of no use beside. */
  secure(connection: Connection, host: string, trust: Trust, signal: AbortSignal): Promise<Connection>;
}
