// `npm run test:mutants -- src/provider/policy.ts` tries changes of that file, and without a name of all code that guards
// keys: a change that no test notices is a test that is missing. OCICRYPT_TEST_RUNS=20 tries so many of each file.

import { MUTANTS, tryChanges } from './mutants/run.ts';
import { sumScores } from './mutants/scores.ts';
import { recordProof } from './promises.ts';

await tryChanges(process.argv.slice(2), Number(process.env.OCICRYPT_TEST_RUNS ?? Infinity));
recordProof(MUTANTS, sumScores());
