// Proves P10: ten thousand unwraps with Google keys while the service goes wrong in every way that there is.

import { DEFAULT_LIMITS } from '../src/provider/attempts.ts';
import { type FaultPlan, type FaultReport, unwrapUnderFaults } from '../test/kms/google-faults.ts';
import { startWorld } from '../test/kms/google-world.ts';

type Proof = { readonly what: string; readonly plan: FaultPlan; readonly unwraps: number; readonly atLeast: number };
type Row = { readonly promise: string; readonly what: string; readonly figures: string };

const UNWRAPS = Number(process.env.OCICRYPT_PROVE_FAULTS ?? 10_000);
/** How long after its deadline a call may still end. */
const GRACE_MILLISECONDS = 250;

const PROOFS: readonly Proof[] = [
  {
    what: 'Google KMS: a fifth of the unwraps meets one fault or two in a row, of every kind that may pass',
    plan: { kind: 'unwraps', rate: 0.2 },
    unwraps: UNWRAPS,
    atLeast: 0.999,
  },
  {
    // Three attempts, each of which fails one time in five, leave 1 - 0.2³.
    what: 'Google KMS: a fifth of all exchanges meets such a fault, retries among them',
    plan: { kind: 'exchanges', rate: 0.2 },
    unwraps: UNWRAPS,
    atLeast: 0.99,
  },
  {
    what: 'Google KMS: every exchange meets a fault, lasting ones and answers to other requests among them',
    plan: { kind: 'all' },
    unwraps: Math.ceil(UNWRAPS / 5),
    atLeast: 0,
  },
];

/**
 * The rows of docs/promises.md.
 *
 * @throws Error where the promise is not kept
 */
export async function proveGoogleFaults(): Promise<readonly Row[]> {
  const rows: Row[] = [];
  for (const proof of PROOFS) {
    const world = await startWorld();
    try {
      const { unwraps, plan } = proof;
      const report = await unwrapUnderFaults(world, { unwraps, plan, limits: DEFAULT_LIMITS, parallel: 100 });
      check(proof, report);
      rows.push({ promise: 'P10', what: proof.what, figures: show(unwraps, report) });
      process.stderr.write(`P10: ${show(unwraps, report)}\n`);
    } finally {
      await world.close();
    }
  }
  return rows;
}

function check({ unwraps, atLeast, what }: Proof, report: FaultReport): void {
  const { wrongKeys, hangs, longest, succeeded } = report;
  const isLate = longest > DEFAULT_LIMITS.total + GRACE_MILLISECONDS;
  if (wrongKeys === 0 && hangs === 0 && !isLate && succeeded >= unwraps * atLeast) return;
  throw new Error(`P10 is not kept: ${what}: ${JSON.stringify(report)}`);
}

function show(unwraps: number, { succeeded, wrongKeys, hangs, longest, failures, faults }: FaultReport): string {
  const percent = ((succeeded / unwraps) * 100).toFixed(2);
  const met = Object.values(faults).reduce((sum, some) => sum + some, 0);
  const ended = Object.entries(failures).map(([code, some]) => `${code} ${some}`);
  return [
    `${number(unwraps)} unwraps, ${number(met)} faults, ${wrongKeys} wrong keys, ${hangs} hangs`,
    `slowest ${number(Math.ceil(longest))} ms of ${number(DEFAULT_LIMITS.total)}`,
    [`${percent} % succeeded`, ...ended].join(', '),
  ].join('; ');
}

function number(value: number): string {
  return value.toLocaleString('en-US');
}
