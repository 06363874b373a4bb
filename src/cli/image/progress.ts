// The progress of long work: on a terminal a row for each blob and the total, drawn in place; elsewhere a plain line now and then.

import type { Terminal, TerminalScreen } from '../terminal.ts';
import { type BlobProgress, progressRows, sayTotal } from './progress-rows.ts';

/** How far one blob is. */
export type ProgressEvent = {
  readonly operation: string;
  readonly digest: string;
  readonly size: number;
  readonly bytes: number;
};

export interface Progress {
  /** The bytes of all blobs together, once that is known. */
  expect(bytes: number): void;
  update(event: ProgressEvent): void;
  /** Draws the last state; nothing is drawn afterwards. */
  end(): void;
}

export function startProgress(terminal: Terminal): Progress {
  const { screen } = terminal;
  return screen === undefined ? new SaidProgress(terminal) : new DrawnProgress(screen);
}

const DRAW_INTERVAL_MILLISECONDS = 100;
const SAY_INTERVAL_MILLISECONDS = 10_000;

/** What is known of all blobs. */
class Tally {
  readonly #blobs = new Map<string, BlobProgress>();
  readonly #started = performance.now();
  #expected: number | undefined;

  expect(bytes: number): void {
    this.#expected = bytes;
  }

  update(event: ProgressEvent): void {
    const now = performance.now();
    // One image may encrypt the layer that another one copies.
    const name = `${event.operation} ${event.digest}`;
    const before = this.#blobs.get(name);
    // A transfer that was broken off begins again.
    const started = before === undefined || event.bytes < before.bytes ? now : before.started;
    this.#blobs.set(name, { ...event, started, seen: now });
  }

  get state() {
    const seconds = (performance.now() - this.#started) / 1000;
    return { blobs: [...this.#blobs.values()], expected: this.#expected, seconds };
  }

  get isEmpty(): boolean {
    return this.#blobs.size === 0;
  }
}

class DrawnProgress implements Progress {
  readonly #screen: TerminalScreen;
  readonly #tally = new Tally();
  #drawn = 0;
  #last = 0;
  #ended = false;

  constructor(screen: TerminalScreen) {
    this.#screen = screen;
  }

  expect(bytes: number): void {
    this.#tally.expect(bytes);
  }

  update(event: ProgressEvent): void {
    this.#tally.update(event);
    const now = performance.now();
    if (this.#ended || now - this.#last < DRAW_INTERVAL_MILLISECONDS) return;
    this.#last = now;
    this.#redraw();
  }

  end(): void {
    // What is said afterwards stands below it, and is not drawn over.
    if (!this.#ended && !this.#tally.isEmpty) this.#redraw();
    this.#ended = true;
  }

  #redraw(): void {
    const size = this.#screen.size();
    const rows = progressRows(this.#tally.state, size);
    // Rows that have scrolled away cannot be reached: the terminal may be lower than it was.
    const up = Math.min(this.#drawn, size.rows - 1);
    const back = up === 0 ? '' : `\x1b[${up}A`;
    // Rows are cut at the edge of a terminal that has become narrower, not broken: a broken one would count twice.
    this.#screen.write(`\x1b[?7l${back}${rows.map((row) => `\x1b[2K${row}\n`).join('')}\x1b[J\x1b[?7h`);
    this.#drawn = rows.length;
  }
}

/** For logs: short work says nothing. */
class SaidProgress implements Progress {
  readonly #tally = new Tally();
  readonly #timer: NodeJS.Timeout;

  constructor(terminal: Terminal) {
    this.#timer = setInterval(() => {
      if (!this.#tally.isEmpty) terminal.say(sayTotal(this.#tally.state), 'advice');
    }, SAY_INTERVAL_MILLISECONDS);
  }

  expect(bytes: number): void {
    this.#tally.expect(bytes);
  }

  update(event: ProgressEvent): void {
    this.#tally.update(event);
  }

  end(): void {
    clearInterval(this.#timer);
  }
}
