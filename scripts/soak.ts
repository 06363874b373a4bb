// Soaks the executable in unwraps and says what stays behind: `npm run soak`, OCICRYPT_SOAK_CALLS=200000 for fewer.

import { type SoakReport, soak } from '../test/executable/server/soak.ts';
import { runTool } from '../tools/process.ts';

const CALLS = Number(process.env.OCICRYPT_SOAK_CALLS ?? 1_000_000);
const LIMITS = { slope: 1, lagP99: 50 } as const;

/**
 * One line of figures.
 *
 * @throws Error where the promise (P8) is not kept
 */
export async function proveSoak(calls: number): Promise<string> {
  const after: (() => unknown)[] = [];
  try {
    const report = await soak({ after: (end: () => unknown) => void after.push(end) }, calls, (done) => {
      process.stderr.write(`\r${done.toLocaleString('en-US')} calls`);
    });
    process.stderr.write('\n');
    const figures = show(report);
    const { failures, slope, descriptors, sockets, lagP99 } = report;
    const flat = descriptors[0] === descriptors[1] && sockets[0] === sockets[1];
    if (failures > 0 || !flat || slope >= LIMITS.slope || lagP99 >= LIMITS.lagP99) {
      throw new Error(`P8 is not kept: ${figures}`);
    }
    return figures;
  } finally {
    for (const end of after.reverse()) await end();
  }
}

function show({ calls, failures, callsPerSecond, slope, peakMiB, descriptors, sockets, lagP99 }: SoakReport): string {
  return [
    `${calls.toLocaleString('en-US')} unwraps, ${failures} failures, ${Math.round(callsPerSecond)} a second`,
    `resident memory ${slope.toFixed(2)} MiB for 100,000 calls, ${Math.ceil(peakMiB)} MiB at the most`,
    `descriptors ${descriptors.join(' to ')}, sockets ${sockets.join(' to ')}`,
    `the loop is late by ${lagP99.toFixed(1)} ms (p99)`,
  ].join('; ');
}

if (import.meta.main) {
  runTool('node', ['scripts/build.ts']);
  process.stdout.write(`${await proveSoak(CALLS)}\n`);
}
