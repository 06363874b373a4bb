// Runs proofs one after the other and keeps docs/promises.md: what was proved last, when, and with which seed.

import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { SEED } from '../test/fixtures/seed.ts';
import { PROJECT } from '../tools/process.ts';

/** A row of the document. */
export type Proof = {
  /** Its number, as its tests begin. */
  readonly promise: string;
  readonly what: string;
  /** Gives one line of figures. @throws Error if the promise is not kept */
  readonly prove: () => Promise<string>;
};

const DOCUMENT = join(PROJECT, 'docs/promises.md');

/**
 * Runs the proofs of the promises that are named, or all of them. Each row is written as soon as it is proved; the rows
 * of other promises stay. A proof that fails ends none of the others.
 *
 * @param words numbers of promises; any other is a text that stands in what is done
 * @throws Error after the last proof, if a promise was not kept, or if one that is named does not exist
 */
export async function proveAll(proofs: readonly Proof[], words: readonly string[]): Promise<void> {
  const numbers = words.filter((word) => /^P\d+$/.test(word));
  const texts = words.filter((word) => !numbers.includes(word));
  const isNamed = ({ promise, what }: Proof) =>
    (numbers.length === 0 || promise.split(', ').some((one) => numbers.includes(one))) &&
    texts.every((text) => what.includes(text));
  const known = new Set(proofs.flatMap(({ promise }) => promise.split(', ')));
  const strangers = numbers.filter((name) => !known.has(name));
  if (strangers.length > 0) throw new Error(`there is no proof of ${strangers.join(', ')}`);
  if (!proofs.some(isNamed)) throw new Error(`no proof has ${texts.join(' and ')} in what it does`);
  const rows = readRows();
  const failed: unknown[] = [];
  for (const proof of proofs.filter(isNamed)) {
    const day = today();
    try {
      rows.set(keyOf(proof), showRow(proof, await proof.prove(), day));
    } catch (error) {
      failed.push(error);
      process.stderr.write(`${String(error)}\n`);
      rows.set(keyOf(proof), showRow(proof, '**not kept**', day));
    }
    writeFileSync(DOCUMENT, show(proofs, rows));
  }
  if (failed.length > 0) throw new AggregateError(failed, `${failed.length} proofs failed`);
}

/** Writes the row of a promise that another command has proved. @throws Error if the document has no row of it */
export function recordProof(proof: Proof, figures: string): void {
  const row = readRows().get(keyOf(proof));
  if (row === undefined) throw new Error(`docs/promises.md has no row of ${proof.promise}`);
  const text = readFileSync(DOCUMENT, 'utf8');
  writeFileSync(
    DOCUMENT,
    text.replace(row, () => showRow(proof, figures, today())),
  );
}

function showRow({ promise, what }: Proof, figures: string, day: string): string {
  return `| ${promise} | ${what} | ${figures} | ${day}, ${SEED} |`;
}

/** The day of a proof, as rows have it. */
export function today(): string {
  return new Date().toISOString().slice(0, 10);
}

function keyOf({ promise, what }: Pick<Proof, 'promise' | 'what'>): string {
  return `${promise} | ${what}`;
}

function readRows(): Map<string, string> {
  const rows = new Map<string, string>();
  for (const line of readFileSync(DOCUMENT, 'utf8').split('\n')) {
    const [, promise = '', what = ''] = /^\| (P\d[^|]*) \| ([^|]+) \|/.exec(line) ?? [];
    if (promise !== '') rows.set(keyOf({ promise, what }), line);
  }
  return rows;
}

function show(proofs: readonly Proof[], rows: ReadonlyMap<string, string>): string {
  const lines = proofs.map(
    (proof) => rows.get(keyOf(proof)) ?? `| ${proof.promise} | ${proof.what} | not proved yet at its full count | |`,
  );
  return `# Promises

What ocicrypt-kms promises, and the figures of the last proof of each. Made by \`npm run prove\`; do not edit.
Each promise is a test whose name begins with its number; \`npm test\` runs a sample of the random ones. A row says when it was
proved and with which seed: \`OCICRYPT_TEST_SEED=SEED npm run prove -- P10\` repeats it. A failing test has the seed in its name.

| promise | what was done | figures | proved, seed |
|---|---|---|---|
${lines.join('\n')}
`;
}
