// A server with one key in a process of its own, and what can be seen of it from outside.

import { existsSync, readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import type { Address } from '../../../src/base/address.ts';
import { createKeyfile } from '../../../src/kms/keyfile/key.ts';
import { wide } from '../../fixtures/seed.ts';
import { EXECUTABLE, type Program, type Served, SOURCES, serve } from '../../fixtures/serve.ts';

const SHIPPED = { name: 'the executable', program: EXECUTABLE, memoryMiB: { once: 200, again: 300 } } as const;
// It begins higher, and a stream costs it more (docs/decisions.md).
const ON_NODE = { name: 'Node', program: SOURCES, memoryMiB: { once: 350, again: 600 } } as const;

/** What every promise of the server is proved on: what is shipped, and, beyond `npm test`, the same sources on Node. */
export const PROGRAMS = wide ? [SHIPPED, ON_NODE] : [SHIPPED];

export type Subject = Served & {
  readonly directory: string;
  /** Of its unix socket. */
  readonly path: string;
  readonly target: Address;
  /** The socket of its status page. */
  readonly status: string;
  /** Its metrics, as Prometheus reads them. */
  readonly metrics: () => Promise<string>;
  /** The sum of all samples of one metric whose labels match. */
  readonly sample: (name: string, labels?: RegExp) => Promise<number>;
  /** Resolves when such a sum is `value`. @throws Error if it is not for half a minute */
  readonly reaches: (name: string, value: number, labels?: RegExp) => Promise<void>;
};

/** Milliseconds. */
const REACHED_WITHIN = 30_000;

type SubjectOptions = {
  /** In place of a key file. */
  readonly keys?: readonly string[];
  readonly words?: readonly string[];
  readonly shell?: string;
};

/** Starts it on a unix socket, with its status page on another; it ends with the test. */
export async function startSubject(
  t: Pick<TestContext, 'after'>,
  program: Program,
  { keys, words = [], shell }: SubjectOptions = {},
): Promise<Subject> {
  const directory = await mkdtemp(join(tmpdir(), 'served-'));
  t.after(() => rm(directory, { recursive: true, force: true }));
  const path = join(directory, 's');
  const status = join(directory, 'status');
  const key = join(directory, 'key');
  createKeyfile(key);
  const served = await serve(
    t,
    [`--listen=unix://${path}`, `--status=unix://${status}`, ...(keys ?? [`--key=${key}`]), ...words],
    { program, ...(shell === undefined ? {} : { shell }) },
  );
  const metrics = async () => (await readStatus(status, '/metrics')).body;
  const sample = async (name: string, labels = /(?:)/) => {
    const samples = (await metrics()).matchAll(new RegExp(`^${name}(\\{[^}]*\\})? (\\S+)$`, 'gm'));
    return [...samples]
      .filter(([, found = '']) => labels.test(found))
      .reduce((sum, [, , value]) => sum + Number(value), 0);
  };
  return {
    ...served,
    ...{ directory, path, status, metrics, sample },
    target: { kind: 'unix', path },
    async reaches(name, value, labels) {
      let last = Number.NaN;
      for (const until = performance.now() + REACHED_WITHIN; performance.now() < until; await pause(10)) {
        last = await sample(name, labels);
        if (last === value) return;
      }
      throw new Error(`${name} is ${last} and not ${value}`);
    },
  };
}

export const pause = (milliseconds: number) => new Promise<void>((resolve) => setTimeout(resolve, milliseconds));

/** One page of a status listener on a unix socket. */
export function readStatus(
  socketPath: string,
  path: string,
): Promise<{ readonly status: number; readonly body: string }> {
  return new Promise((resolve, reject) => {
    const outgoing = request({ socketPath, path, agent: false }, (response) => {
      let body = '';
      response.on('data', (chunk: Buffer) => {
        body += chunk.toString();
      });
      response.on('end', () => resolve({ status: response.statusCode ?? 0, body }));
    });
    outgoing.on('error', reject);
    outgoing.end();
  });
}

/** The most memory that a process has had, in MiB; NaN where there is no /proc. */
export function peakMemoryMiB(pid: number | undefined): number {
  const file = `/proc/${pid}/status`;
  if (!existsSync(file)) return Number.NaN;
  return Number(/^VmHWM:\s+(\d+) kB$/m.exec(readFileSync(file, 'utf8'))?.[1]) / 1024;
}
