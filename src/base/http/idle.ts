// Connections that wait for another request to the same place.

import type { Connection } from './connection.ts';
import type { HttpResponse } from './contract.ts';

/** Shorter than services, and what is on the way to them, wait for another request. */
const LONGEST = 50_000;
/** Before the other side ends it: a request must not meet its end. */
const RESERVE_MILLISECONDS = 1000;

type Idle = { readonly connection: Connection; readonly until: number };

/** By route, which is what a connection leads to, and how. */
export class IdleConnections {
  readonly #routes = new Map<string, Set<Idle>>();

  /** The connection that was used last, for one who destroys it or brings it back. */
  take(route: string): Connection | undefined {
    const waiting = this.#routes.get(route) ?? [];
    for (const idle of [...waiting].reverse()) {
      this.#forget(route, idle);
      if (performance.now() < idle.until) {
        idle.connection.hold(true);
        return idle.connection;
      }
      idle.connection.destroy();
    }
    return undefined;
  }

  has(route: string): boolean {
    return this.#routes.has(route);
  }

  /** Keeps a connection until somebody wants it; it does not keep the process running. @param answer its last, if it had one */
  keep(route: string, connection: Connection, answer?: HttpResponse): void {
    const [, seconds] = /(?:^|[\s,])timeout=(\d{1,6})/i.exec(answer?.headers['keep-alive'] ?? '') ?? [];
    const time = seconds === undefined ? LONGEST : Math.min(LONGEST, Number(seconds) * 1000 - RESERVE_MILLISECONDS);
    const idle = { connection, until: performance.now() + time };
    const end = () => {
      this.#forget(route, idle);
      connection.destroy();
    };
    // Whatever comes now is the answer to nothing.
    connection.hear({ received: end, ended: end });
    connection.hold(false);
    const waiting = this.#routes.get(route) ?? new Set();
    waiting.add(idle);
    this.#routes.set(route, waiting);
  }

  /** Ends all that wait. */
  close(): void {
    for (const waiting of this.#routes.values()) for (const { connection } of waiting) connection.destroy();
    this.#routes.clear();
  }

  #forget(route: string, idle: Idle): void {
    const waiting = this.#routes.get(route);
    waiting?.delete(idle);
    if (waiting?.size === 0) this.#routes.delete(route);
  }
}
