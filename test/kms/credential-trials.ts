/**
 * What every source of credentials is tried with, whatever the cloud: it is slow, it fails in passing, it throttles, and it
 * says nothing, once each and for good. A source is a row; it says how to break itself and who it is in an error.
 */
import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import { describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { withDeadline } from '../../src/base/deadline.ts';
import { asOcicryptError, type ErrorCode, OcicryptError } from '../../src/base/errors.ts';
import { spellSettings } from '../../src/base/setting.ts';
import { optionOf } from '../../src/cli/options/names.ts';
import type { Kek } from '../../src/kms/kek.ts';
import { type Limits, withAttempts } from '../../src/provider/attempts.ts';
import type { Fault, WireServer } from '../fakes/wire.ts';

/** What a source does wrong. */
export type Trouble = 'silent' | 'slow' | 'throttled' | 'unavailable';

export type CredentialSource = {
  readonly name: string;
  /** A key whose credentials come from there and were not asked for yet. */
  readonly open: (lifetime: 'ending' | 'long') => Promise<Kek>;
  /** The next exchange with the source, or all of them until `mend`. */
  readonly break: (trouble: Trouble, times: 'always' | 'once') => Promise<void> | void;
  readonly mend: () => Promise<void> | void;
  /** What a missed deadline is waiting for. */
  readonly waitingFor: RegExp;
  /** Troubles that it cannot have: a program answers no status. */
  readonly not?: readonly Trouble[];
  /**
   * Of a source whose silence takes the whole call, as a program's does, which is not started again while it runs: waits
   * until the trouble has been met. A busy machine may need longer to start a program than any time fixed here.
   */
  readonly met?: () => Promise<void>;
};

// The documents are for users of the command.
spellSettings(optionOf);

const ATTEMPT = 1500;
/** Shorter than an attempt, as the one of a source that answers at last is. */
export const SLOW_MILLISECONDS = 250;
const LIMITS: Limits = { total: 20_000, attempt: ATTEMPT, attempts: 3, stagger: 300 };

/** Uses the key once, as the provider does. */
export function useOnce(kek: Kek, limits: Limits = LIMITS, caller?: AbortSignal): Promise<unknown> {
  return withDeadline(limits.total, caller, 'wrap', (signal) =>
    withAttempts(limits, signal, 'key', (attempt) => kek.wrap(new Uint8Array(32), {}, attempt)),
  );
}

/** P33: the next call works, and the one that failed named what it had waited for. */
export function trySource(source: CredentialSource): void {
  // One after the other, whatever other sources do meanwhile.
  describe(`P33 ${source.name}`, { concurrency: 1 }, () => tryTroubles(source));
}

function tryTroubles(source: CredentialSource): void {
  for (const trouble of ['slow', 'unavailable', 'throttled', 'silent'] as const) {
    if (source.not?.includes(trouble)) continue;
    test(`that is ${trouble} once does no harm`, async () => {
      const kek = await source.open('long');
      await source.break(trouble, 'once');
      if (source.met !== undefined && trouble === 'silent') await giveUp(kek, source.met);
      await useOnce(kek);
      await source.mend();
    });
  }

  test('that says nothing is named, and the next call works', async () => {
    const kek = await source.open('long');
    await source.break('silent', 'always');
    const error = await useOnce(kek, { ...LIMITS, total: 1500, attempt: 700 }).then(() => undefined, asOcicryptError);
    await source.mend();
    assert.equal(error?.code, 'deadline-exceeded');
    assert.match(error?.message ?? '', source.waitingFor);
    await useOnce(kek);
  });

  if (source.not?.includes('unavailable')) return;
  test('that is not there at renewal leaves what is good still', async () => {
    const kek = await source.open('ending');
    await useOnce(kek);
    await source.break('unavailable', 'always');
    await useOnce(kek);
    await source.mend();
    await useOnce(kek);
  });
}

/** A call whose caller goes away as soon as it has met the trouble. */
async function giveUp(kek: Kek, met: () => Promise<void>): Promise<void> {
  const caller = new AbortController();
  const call = assert.rejects(useOnce(kek, LIMITS, caller.signal), { code: 'deadline-exceeded' });
  await met();
  caller.abort();
  await call;
}

/** Waits until a file is empty: so a program says that it has been started. */
export async function untilEmpty(file: string): Promise<void> {
  while ((await readFile(file)).length > 0) await sleep(20);
}

/** A source behind a server. @param path of the requests that break */
export function trySourceAt(
  server: () => WireServer | undefined,
  path: RegExp,
  source: Pick<CredentialSource, 'name' | 'open' | 'waitingFor'>,
): void {
  const faults: Readonly<Record<Trouble, Fault>> = {
    slow: { kind: 'latency', milliseconds: SLOW_MILLISECONDS },
    unavailable: { kind: 'answer', status: 503, body: '' },
    throttled: { kind: 'answer', status: 429, body: '' },
    silent: { kind: 'silent' },
  };
  trySource({
    ...source,
    break(trouble, times) {
      let left = times === 'once' ? 1 : Number.POSITIVE_INFINITY;
      server()?.setFault((request) => (path.test(request.path) && left-- > 0 ? faults[trouble] : undefined));
    },
    mend: () => server()?.setFault(undefined),
  });
}

/** One way in which a source is set up wrong, and what an operator reads then. */
export type CredentialFault = {
  readonly source: string;
  readonly fault: string;
  readonly code: ErrorCode;
  /** The key with that fault in its credentials. */
  readonly open: () => Promise<Kek>;
  readonly retryable?: boolean;
};

/** A row of the table as the document has it. */
export type FaultRow = { readonly source: string; readonly fault: string; readonly error: OcicryptError };

const BEGIN = '<!-- made by WRITE_DOCS=1 node --test from the faults that the tests make -->';
const END = '<!-- end -->';

/** Holds the table in a document against what the product says; WRITE_DOCS=1 writes it. */
export async function compareFaultTable(file: string, rows: readonly FaultRow[], names: ReadonlyMap<string, string>) {
  const shown = (text: string) =>
    [...names].reduce((line, [value, name]) => line.replaceAll(value, name), text).replaceAll('|', '\\|');
  const table = [
    '| source | fault | error | what to do |',
    '|---|---|---|---|',
    ...rows.map(
      ({ source, fault, error }) =>
        `| ${source} | ${fault} | \`${error.code}\`: ${shown(error.message)} | ${shown(error.hint ?? '')} |`,
    ),
  ].join('\n');
  const document = await readFile(file, 'utf8');
  const [start, end] = [document.indexOf(BEGIN), document.indexOf(END)];
  assert.ok(start >= 0 && end > start, `${file} has a place for the table`);
  const expected = `${document.slice(0, start)}${BEGIN}\n\n${table}\n\n${document.slice(end)}`;
  if (process.env.WRITE_DOCS === '1') await writeFile(file, expected);
  else assert.equal(document, expected, 'the table is what the product says; WRITE_DOCS=1 writes it');
}

/** The error of a fault: its code, a line and a hint of its own, and nothing of what must not be told. */
export async function readFault({ open, code, retryable = false }: CredentialFault): Promise<OcicryptError> {
  const kek = await open();
  const error = await useOnce(kek, { ...LIMITS, attempts: 1 }).then(() => undefined, asOcicryptError);
  assert.ok(error instanceof OcicryptError, 'it fails');
  assert.deepEqual([error.code, error.retryable], [code, retryable], `${error.message} (${error.hint})`);
  assert.ok(error.hint !== undefined && error.hint !== '', error.message);
  return error;
}
