// Runs the tests: all of them on Node against the built executable; with `bun`, those of the library on Bun; with `oldest`,
// the same on the oldest Node that is supported; with `wide`, the random ones with more cases, the server on Node, the packed
// library on every runtime, and its reference; with `coverage`, those of the library with a table of the lines and branches of
// src that they reach.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { PROJECT, runTool, toolPath } from '../tools/process.ts';

const all = globSync('test/**/*.test.ts', { cwd: PROJECT }).sort();
// What starts clients, or the server as a process, does not depend on the runtime that the tests run on.
const library = all.filter(
  (file) => !/^test\/(?:architecture|docs|end-to-end|executable|real-clients|release)\//.test(file),
);
/** Node alone tells a test of the threads that are started. */
const THREADS = 'test/image/cipher/lane.test.ts';
// Files mostly wait for one another's processes; a test that hangs must not hang the run.
const options = ['--test', '--test-concurrency=3', '--test-timeout=180000'];
// Each file is a process that loads the same sources: Node takes the types out of them and compiles them once for all.
const compiled = { NODE_COMPILE_CACHE: join(PROJECT, 'dist/compiled') };

if (process.argv[2] === 'oldest') {
  const { engines } = JSON.parse(readFileSync(join(PROJECT, 'package.json'), 'utf8'));
  const version = engines.node.replace('>=', '');
  const node = `node-${process.platform}-${process.arch}@${version}`;
  runTool('npm', ['exec', '--yes', `--package=${node}`, '--', 'node', ...options, ...library]);
} else if (process.argv[2] === 'wide') {
  // Random tests, and those of a server that also runs on Node.
  const random = all.filter((file) =>
    /\/(?:fixtures\/seed|served)\.ts'/.test(readFileSync(join(PROJECT, file), 'utf8')),
  );
  runTool('node', ['scripts/build.ts']);
  runTool('node', [...options, ...random], { ...compiled, OCICRYPT_TEST_TIMES: '5' });
  // A public symbol that the reference lacks is an error of its own.
  runTool('node', ['scripts/docs.ts', 'reference']);
  // Fetches runtimes, compilers and bundlers from npm.
  runTool('node', ['--test', '--test-timeout=900000', ...globSync('test/release/*.wide.ts', { cwd: PROJECT })]);
} else if (process.argv[2] === 'coverage') {
  runTool('node', [...options, '--experimental-test-coverage', '--test-coverage-include=src/**', ...library]);
} else if (process.argv[2] === 'release') {
  const targets = process.argv.slice(3);
  const files = globSync('test/release/*.release.ts', { cwd: PROJECT }).sort();
  runTool('node', ['scripts/release.ts', ...targets]);
  // Emulated processors and package managers take minutes on two cores.
  const environment = targets.length === 0 ? {} : { OCICRYPT_TEST_TARGETS: targets.join() };
  runTool('node', ['--test', '--test-concurrency=2', '--test-timeout=900000', ...files], environment);
} else if (process.argv[2] === 'bun') {
  await Promise.all([runOnBun(), runOnBun(), runOnBun()]);
} else {
  runTool('node', ['scripts/build.ts']);
  runTool('node', [...options, ...all], compiled);
}

/** A process for each file, as on Node: what one leaves in its environment or memory is not the next one's. */
async function runOnBun(): Promise<void> {
  for (let file = library.shift(); file !== undefined; file = library.shift()) {
    if (file === THREADS) continue;
    const child = spawn(toolPath('bun'), ['test', '--timeout=60000', `./${file}`], { cwd: PROJECT });
    const output: Buffer[] = [];
    for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk: Buffer) => output.push(chunk));
    const [status] = await once(child, 'close');
    const text = Buffer.concat(output).toString();
    process.stdout.write(status === 0 ? `${file}: ${text.trimEnd().split('\n').at(-1)}\n` : text);
    if (status !== 0) process.exitCode = 1;
  }
}
