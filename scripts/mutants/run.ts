// Changes one thing at a time in the code that guards keys, and runs the tests of that code.

import { globSync } from 'node:fs';
import { createRandom, SEED } from '../../test/fixtures/seed.ts';
import { PROJECT } from '../../tools/process.ts';
import type { Proof } from '../promises.ts';
import { changesOf, showChange } from './changes.ts';
import { isEquivalent } from './equivalent.ts';
import { recordScore, type Score, sumScores } from './scores.ts';
import { Trial } from './trial.ts';

/** What guards keys, and the tests that are to notice a change there. A file of types alone has no change. */
const GUARDED: readonly { readonly code: string; readonly tests: string }[] = [
  {
    code: 'src/base/{aes-gcm,combine,error-report,secret-file}.ts',
    tests: 'test/base/{combine,error-report,primitives,secret-file}.test.ts',
  },
  {
    code: 'src/kms/{kek,sharing,store,key-rate,outage,processor-turns,token-cache}.ts',
    tests: 'test/{kms/{kek,key-rate,outage,own,processor-turns,sharing,store,token-cache},server/limits}.test.ts',
  },
  { code: 'src/provider/*.ts', tests: 'test/provider/*.test.ts' },
  {
    code: 'src/image/verify*.ts',
    tests: 'test/image/{hostile,keys,post-quantum,transform,verify-hostile,model/digest-tag}.test.ts',
  },
  { code: 'src/image/cipher/*.ts', tests: 'test/image/{cipher/*,tamper}.test.ts' },
];

/** The row of docs/promises.md that all files together have. */
export const MUTANTS: Proof = {
  promise: 'P35',
  what: 'one change at a time in the code that guards keys: conditions, operators, numbers and calls left out are noticed by its tests',
  prove: async () => {
    await tryChanges([], Infinity);
    return sumScores();
  },
};

/**
 * Tries changes and shows those that no test notices. The score of each file is written once it is known.
 *
 * @param wanted files, or none for all that is guarded
 * @param most how many changes of each file are tried, at random places
 * @throws Error if a file is not guarded, or if a test fails without a change
 */
export async function tryChanges(wanted: readonly string[], most: number): Promise<void> {
  const guarded = GUARDED.flatMap(({ code, tests }) =>
    globSync(code, { cwd: PROJECT })
      .filter((file) => changesOf(file).length > 0)
      .sort()
      .map((file) => ({ file, tests: globSync(tests, { cwd: PROJECT }).sort() })),
  );
  const strangers = wanted.filter((name) => !guarded.some(({ file }) => file === name));
  if (strangers.length > 0) throw new Error(`not among the files that guard keys: ${strangers.join(', ')}`);
  process.stdout.write(`OCICRYPT_TEST_SEED=${SEED}\n`);
  const trial = new Trial();
  try {
    for (const { file, tests } of guarded)
      if (wanted.length === 0 || wanted.includes(file)) recordScore(await tryFile(trial, file, tests, most));
  } finally {
    trial.remove();
  }
}

async function tryFile(trial: Trial, file: string, tests: readonly string[], most: number): Promise<Score> {
  const all = changesOf(file);
  const some = shuffle(all).slice(0, most);
  let [noticed, equivalent] = [0, 0];
  for (const change of some) {
    const [isNoticed, isListed] = [await trial.isNoticed(change, tests), isEquivalent(change)];
    if (isNoticed && isListed) process.stdout.write(`noticed, though it is listed: ${showChange(change)}\n`);
    if (isNoticed) noticed++;
    else if (isListed) equivalent++;
    else process.stdout.write(`not noticed: ${showChange(change)}\n`);
  }
  await trial.checkSound();
  process.stdout.write(
    `${file}: ${some.length} of ${all.length} tried, ${noticed} noticed, ${equivalent} without a difference\n`,
  );
  return { file, changes: all.length, tried: some.length, noticed, equivalent };
}

function shuffle<Item>(items: readonly Item[]): readonly Item[] {
  const random = createRandom();
  const left = [...items];
  return items.flatMap(() => left.splice(random(left.length), 1));
}
