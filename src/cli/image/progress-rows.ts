// How progress is written: what fits a terminal of any size, and what a line in a log says.

import { formatSize, shortDigest } from '../text.ts';

export type BlobProgress = {
  readonly operation: string;
  readonly digest: string;
  readonly size: number;
  readonly bytes: number;
  /** When it began, and when it was last heard of, in milliseconds. */
  readonly started: number;
  readonly seen: number;
};

export type ProgressState = {
  readonly blobs: readonly BlobProgress[];
  /** The bytes of all blobs together, as far as that is known. */
  readonly expected: number | undefined;
  readonly seconds: number;
};

/** With the total, so many rows at the most. */
const BLOB_ROWS = 16;
/** From here on there is room for sizes and the kind of digest. */
const WIDE_COLUMNS = 72;

/** A row for each blob that is shown, and the total: none wider than the terminal, and one fewer than it is high. */
export function progressRows(
  state: ProgressState,
  { rows, columns }: { readonly rows: number; readonly columns: number },
): readonly string[] {
  const isWide = columns >= WIDE_COLUMNS;
  const blobs = shownOf(state.blobs, Math.max(0, Math.min(BLOB_ROWS, rows - 2)));
  return [...blobs.map((blob) => blobRow(blob, isWide)), totalRow(state, isWide)].map((row) => row.slice(0, columns));
}

/** The total as a line that stands alone. */
export function sayTotal(state: ProgressState): string {
  const operation = state.blobs.findLast(({ operation }) => operation !== 'copy')?.operation ?? 'copy';
  const { done, percent, speed, left } = totalOf(state);
  return `${operation}: ${[done, percent, speed, left].filter((part) => part !== '').join(', ')}`;
}

/** What is under way, and the last of what is done. */
function shownOf(blobs: readonly BlobProgress[], most: number): readonly BlobProgress[] {
  let surplus = blobs.length - most;
  const shown = blobs.filter(({ bytes, size }) => bytes < size || surplus-- <= 0);
  return shown.slice(Math.max(0, shown.length - most));
}

function blobRow({ operation, digest, size, bytes, started, seen }: BlobProgress, isWide: boolean): string {
  const short = shortDigest(digest);
  const percent = `${showPercent(bytes, size).padStart(3)} %`;
  const speed = showRate(bytes, (seen - started) / 1000);
  if (isWide) return `${operation.padEnd(8)} ${short} ${formatSize(size).padStart(10)} ${percent}  ${speed}`.trimEnd();
  return `${operation.padEnd(7)} ${short.replace('sha256:', '')} ${percent} ${speed}`.trimEnd();
}

function totalRow(state: ProgressState, isWide: boolean): string {
  const { done, percent, speed, left } = totalOf(state);
  if (isWide) return ['total  ', done, percent, speed, left].filter((part) => part !== '').join('  ');
  return `total ${[state.expected === undefined ? done : `${percent} of ${formatSize(state.expected)}`, left]
    .filter((part) => part !== '')
    .join(', ')}`;
}

function totalOf({ blobs, expected, seconds }: ProgressState) {
  const bytes = blobs.reduce((sum, blob) => sum + blob.bytes, 0);
  const speed = showRate(bytes, seconds);
  if (expected === undefined) return { done: formatSize(bytes), percent: '', speed, left: '' };
  const isUnderWay = bytes > 0 && bytes < expected && seconds > 0;
  return {
    done: `${formatSize(bytes)} of ${formatSize(expected)}`,
    percent: `${showPercent(bytes, expected)} %`,
    speed,
    left: isUnderWay ? `${showTime(((expected - bytes) * seconds) / bytes)} left` : '',
  };
}

function showPercent(bytes: number, size: number): string {
  return String(size === 0 ? 100 : Math.min(100, Math.floor((bytes / size) * 100)));
}

function showRate(bytes: number, seconds: number): string {
  return seconds <= 0 ? '' : `${formatSize(Math.round(bytes / seconds))}/s`;
}

/** `0:07`, `12:30`, `1:05:00`; beyond four days nothing is certain. */
function showTime(seconds: number): string {
  const whole = Math.min(Math.ceil(seconds), 100 * 3600 - 1);
  const two = (number: number) => String(number).padStart(2, '0');
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  return hours > 0 ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
}
