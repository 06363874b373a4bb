// Asks Prometheus's own engine, built from its module, about metrics that were scraped.
import { execFile } from 'node:child_process';
import { buildGoProgram } from './fetched.ts';

/** What one process has shown, and when, in seconds. */
export type Scrape = {
  readonly at: number;
  /** What Prometheus adds, as namespace and pod. */
  readonly labels: Readonly<Record<string, string>>;
  readonly text: string;
};

export type PromSample = { readonly labels: Readonly<Record<string, string>>; readonly value: string };

/**
 * Evaluates queries, each at the same moment.
 *
 * @returns the vector of each
 * @throws Error if one cannot be parsed
 */
export async function askPrometheus(
  scrapes: readonly Scrape[],
  queries: readonly string[],
  at: number,
): Promise<readonly (readonly PromSample[])[]> {
  const program = await buildGoProgram(new URL('promql/', import.meta.url), [
    'github.com/prometheus/prometheus@v0.305.0',
  ]);
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  const child = execFile(program, { maxBuffer: 16 * 1024 * 1024 }, (error, stdout, stderr) =>
    error === null ? resolve(stdout) : reject(new Error(stderr.split('\n')[0])),
  );
  child.stdin?.end(JSON.stringify({ scrapes, queries, at }));
  return JSON.parse(await promise);
}
