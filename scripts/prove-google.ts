// Proves P10: ten thousand unwraps with Google keys while the service goes wrong in every way that there is.

import { DEFAULT_LIMITS } from '../src/provider/attempts.ts';
import { type FaultPlan, type FaultReport, unwrapUnderFaults } from '../test/kms/gcpkms/faults.ts';
import { startWorld } from '../test/kms/gcpkms/world.ts';
import type { Proof } from './promises.ts';

type Case = { readonly what: string; readonly plan: FaultPlan; readonly unwraps: number; readonly atLeast: number };

const UNWRAPS = Number(process.env.OCICRYPT_PROVE_FAULTS ?? 10_000);
/** How long after its deadline a call may still end. */
const GRACE_MILLISECONDS = 250;

const CASES: readonly Case[] = [
  {
    what: 'Google KMS: a fifth of the unwraps meets one fault or two in a row, of every kind that may pass',
    plan: { kind: 'unwraps', rate: 0.2 },
    unwraps: UNWRAPS,
    atLeast: 0.999,
  },
  {
    what: 'Google KMS: a fifth of all exchanges meets such a fault, retries among them',
    plan: { kind: 'exchanges', rate: 0.2 },
    unwraps: UNWRAPS,
    atLeast: 0.999,
  },
  {
    what: 'Google KMS: every exchange meets a fault, lasting ones and answers to other requests among them',
    plan: { kind: 'all' },
    unwraps: Math.ceil(UNWRAPS / 5),
    atLeast: 0,
  },
];

/** The rows of P10 in docs/promises.md. */
export const GOOGLE_PROOFS: readonly Proof[] = CASES.map((one) => ({
  promise: 'P10',
  what: one.what,
  prove: () => proveCase(one),
}));

async function proveCase(one: Case): Promise<string> {
  const world = await startWorld();
  try {
    const { unwraps, plan } = one;
    const report = await unwrapUnderFaults(world, { unwraps, plan, limits: DEFAULT_LIMITS, parallel: 40 });
    check(one, report);
    process.stderr.write(`P10: ${show(unwraps, report)}\n`);
    return show(unwraps, report);
  } finally {
    await world.close();
  }
}

function check({ unwraps, atLeast, what }: Case, report: FaultReport): void {
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
