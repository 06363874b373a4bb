// Time and chance for what waits, so that a test can bring its own.

export interface Clock {
  /** Milliseconds; they only go forward. */
  now(): number;
  /** From 0 up to 1. */
  random(): number;
  /** Calls `run` once so many milliseconds have passed; the function that is returned prevents it. */
  after(milliseconds: number, run: () => void): () => void;
}

export const SYSTEM_CLOCK: Clock = {
  now: () => performance.now(),
  random: () => Math.random(),
  after(milliseconds, run) {
    const timer = setTimeout(run, milliseconds);
    return () => clearTimeout(timer);
  },
};
