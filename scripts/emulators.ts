// Runs the backends and the executable against programs that others wrote, and the primitives against vectors that others
// collected. All of it is fetched by name, and built where it comes as source: minutes the first time, and Python, Go and Cargo.

import { globSync } from 'node:fs';
import { PROJECT, runTool } from '../tools/process.ts';

/**
 * Run when they are named: Vault's engine alone takes longer than everything else, and OpenBao's is a fork of it; the chart
 * takes two versions of Helm, its dashboard Prometheus's engine; syft, the scanner, is larger than any of these.
 */
const ON_DEMAND = ['chart', 'dashboard', 'scanners', 'vault'];

const files = globSync('test/emulators/*.{emulator,vectors}.ts', { cwd: PROJECT }).sort();
const nameOf = (file: string) => /([^/]+)\.(?:emulator|vectors)\.ts$/.exec(file)?.[1] ?? '';
const names = process.argv.slice(2);
const chosen = files.filter((file) =>
  names.length === 0 ? !ON_DEMAND.includes(nameOf(file)) : names.includes(nameOf(file)),
);
if (chosen.length < Math.max(names.length, 1)) throw new Error(`there are ${files.map(nameOf).join(', ')}`);
runTool('node', ['scripts/build.ts']);
runTool('node', ['--test', '--test-concurrency=1', '--test-timeout=1200000', ...chosen]);
