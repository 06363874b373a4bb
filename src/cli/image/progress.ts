// The progress of long work on a terminal: one line a blob and the total, redrawn in place, and nothing without a terminal.

import type { Terminal } from '../terminal.ts';
import { formatSize, shortDigest } from '../text.ts';

/** How far one blob is. */
export type ProgressEvent = {
  readonly operation: string;
  readonly digest: string;
  readonly size: number;
  readonly bytes: number;
};

export interface Progress {
  update(event: ProgressEvent): void;
  /** Draws the last state. */
  end(): void;
}

/** Undefined if standard error is no terminal. */
export function startProgress(terminal: Terminal): Progress | undefined {
  return terminal.draw === undefined ? undefined : new DrawnProgress(terminal.draw);
}

const INTERVAL_MILLISECONDS = 100;
/** With the total, what fits on any terminal: lines that have scrolled away cannot be drawn again. */
const LINES = 16;

type Line = ProgressEvent & { readonly started: number; readonly seen: number };

class DrawnProgress implements Progress {
  readonly #draw: (text: string) => void;
  readonly #lines = new Map<string, Line>();
  readonly #started = performance.now();
  #drawn = 0;
  #last = 0;

  constructor(draw: (text: string) => void) {
    this.#draw = draw;
  }

  update(event: ProgressEvent): void {
    const now = performance.now();
    const before = this.#lines.get(event.digest);
    // A transfer that was broken off begins again.
    const started = before === undefined || event.bytes < before.bytes ? now : before.started;
    this.#lines.set(event.digest, { ...event, started, seen: now });
    if (now - this.#last < INTERVAL_MILLISECONDS) return;
    this.#last = now;
    this.#redraw();
  }

  end(): void {
    if (this.#lines.size > 0) this.#redraw();
  }

  #redraw(): void {
    const all = [...this.#lines.values()];
    const seconds = (performance.now() - this.#started) / 1000;
    const lines = [...shownOf(all).map(show), showTotal(all, seconds)];
    const up = this.#drawn === 0 ? '' : `\x1b[${this.#drawn}A`;
    // Lines are cut at the edge of a narrow terminal, not broken: a broken one would count twice.
    this.#draw(`\x1b[?7l${up}${lines.map((line) => `\x1b[2K${line}\n`).join('')}\x1b[?7h`);
    this.#drawn = lines.length;
  }
}

/** What is under way, and the last of what is done. */
function shownOf(lines: readonly Line[]): readonly Line[] {
  let surplus = lines.length - LINES;
  return lines.filter(({ bytes, size }) => bytes < size || surplus-- <= 0).slice(-LINES);
}

function show({ operation, digest, size, bytes, started, seen }: Line): string {
  const percent = size === 0 ? 100 : Math.floor((bytes / size) * 100);
  const speed = rate(bytes, (seen - started) / 1000);
  return `${operation.padEnd(8)} ${shortDigest(digest)} ${formatSize(size).padStart(10)} ${String(percent).padStart(3)} %  ${speed}`;
}

function showTotal(lines: readonly Line[], seconds: number): string {
  const bytes = lines.reduce((sum, line) => sum + line.bytes, 0);
  return `${'total'.padEnd(28)} ${formatSize(bytes).padStart(10)}  ${seconds.toFixed(1)} s  ${rate(bytes, seconds)}`;
}

function rate(bytes: number, seconds: number): string {
  return seconds <= 0 ? '' : `${formatSize(bytes / seconds)}/s`;
}
