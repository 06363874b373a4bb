// Runs the tests: all of them on Node against the built executable, and those of the library on Bun too.

import { globSync } from 'node:fs';
import { PROJECT, runTool } from './process.ts';

runTool('node', ['scripts/build.ts']);

const all = globSync('test/**/*.test.ts', { cwd: PROJECT }).sort();
runTool('node', [
  '--test',
  '--test-reporter=dot',
  '--test-reporter-destination=stdout',
  '--test-reporter=./scripts/summary-reporter.ts',
  '--test-reporter-destination=stdout',
  ...all,
]);

// What starts clients or the executable does not depend on the runtime that the tests run on.
const PROCESS_TESTS = /^test\/(?:end-to-end|clients|docs|executable)\//;
runTool('bun', [
  'test',
  '--timeout=60000',
  ...all.filter((file) => !PROCESS_TESTS.test(file)).map((file) => `./${file}`),
]);
