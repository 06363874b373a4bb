// Proves the promises at their full counts, into docs/promises.md: all, those that are named (`npm run prove -- P5 P31`), or
// the rows of them in which a text stands (`npm run prove -- P17 'rewrap of an image in a registry'`).

import { spawn } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { ERROR_STATUS } from '../src/base/errors.ts';
import { runExecutable } from '../test/fixtures/executable.ts';
import { createMalformed, MALFORMED_SETUP, type Outcomes, sendMalformed } from '../test/fixtures/malformed.ts';
import { type KeyDirectory, makeKeyDirectory, providerOf } from '../test/fixtures/provider.ts';
import { createRandom, SEED } from '../test/fixtures/seed.ts';
import type { Vector } from '../test/fixtures/vectors/shape.ts';
import { CONTAINERDS } from '../test/nodes/software.ts';
import { PROJECT, runTool } from '../tools/process.ts';
import { MUTANTS } from './mutants/run.ts';
import { type Proof, proveAll } from './promises.ts';
import { GOOGLE_PROOFS } from './prove-google.ts';
import { SERVER_PROMISES } from './prove-server.ts';
import { proveSoak } from './soak.ts';

const LIBRARY_REQUESTS = count('OCICRYPT_PROVE_LIBRARY', 1_000_000);
const EXECUTABLE_REQUESTS = count('OCICRYPT_PROVE_EXECUTABLE', 2000);
const REQUESTS = count('OCICRYPT_PROVE_REQUESTS', 100_000);
const PACKETS = count('OCICRYPT_PROVE_PACKETS', 10_000);
const PLAINTEXTS = count('OCICRYPT_PROVE_PLAINTEXTS', 100_000);
const SOAK = count('OCICRYPT_PROVE_SOAK', 1_000_000);
/** Of manifests, layouts and archives together. */
const READINGS = count('OCICRYPT_PROVE_READINGS', 1_000_000);
/** Of each change of each kind of image: 200 in all. */
const KILLS = count('OCICRYPT_PROVE_KILLS', 34);

/** Promise, what was done, test files, their environment, and what else the names of the tests have in them. */
const TESTS: readonly (readonly [string, string, readonly string[], Readonly<Record<string, string>>, string?])[] = [
  ['P2', 'every code has one exit status and one gRPC status', ['test/base/errors.test.ts'], {}],
  [
    'P3',
    'every vector through the library and through the executable',
    ['test/provider/vectors.test.ts', 'test/executable/vectors.test.ts'],
    {},
  ],
  [
    'P3',
    `${number(REQUESTS)} damaged requests are understood as by a reader that is made of docs/protocol.md and docs/keys.md alone`,
    ['test/docs/protocol-reader.test.ts'],
    { OCICRYPT_TEST_RUNS: String(REQUESTS) },
  ],
  [
    'P3',
    `a second provider, in Go, made of docs/ alone: ${number(PACKETS)} packets of each are opened by the other, ${number(PACKETS)} changed ones and as many under a right MAC end alike`,
    ['test/docs/second.test.ts'],
    { OCICRYPT_TEST_RUNS: String(PACKETS) },
  ],
  ['P4', 'a request over the limit is refused before it is parsed', ['test/provider/protocol.test.ts'], {}],
  ...SERVER_PROMISES,
  [
    'P12',
    'Google KMS: CRC-32C on every field both ways; v2 wraps have a context, and name version and algorithm',
    ['test/kms/gcpkms/promises.test.ts'],
    {},
  ],
  [
    'P13',
    `${number(PLAINTEXTS)} plaintexts that are no layer-key record, answered by a key service: 0 released`,
    ['test/provider/unwrap.test.ts'],
    { OCICRYPT_TEST_RUNS: String(PLAINTEXTS) },
  ],
  [
    'P14',
    'a listening trap on every endpoint that a denied packet or caller names: 0 connections, 0 bytes',
    ['test/executable/trap.test.ts'],
    {},
  ],
  [
    'P15',
    'one text for what cannot be unwrapped; each missed deadline names the key',
    ['test/provider/unwrap.test.ts', 'test/provider/wrap.test.ts'],
    {},
  ],
  ...[
    ['oci', 'a layout'],
    ['oci-archive', 'an archive'],
    ['docker', 'a registry'],
  ].flatMap(([transport, place]) =>
    ['encrypt', 'rewrap'].map(
      (operation) =>
        [
          'P17',
          `${operation} of an image in ${place}, killed ${number(KILLS)} times at random moments, and before each thing that lasts, goes to a registry or comes from there: the old image or the new one, whole; a second run completes`,
          ['test/executable/crash.test.ts'],
          { OCICRYPT_TEST_RUNS: String(KILLS) },
          ` ${operation} of ${transport}:`,
        ] as const,
    ),
  ),
  [
    'P21',
    'files of keys, tokens and passphrases that others may read or that others own: each mode, owner and kind of file',
    ['test/base/secret-file.test.ts'],
    {},
  ],
  ['P22', 'canary keys in output, logs, audit, argv, environ, and memory', ['test/executable/secrecy.test.ts'], {}],
  [
    'P24',
    'the audit log fails closed: full, blocked, missing, a link',
    ['test/provider/handle.test.ts', 'test/executable/audit.test.ts'],
    {},
  ],
  [
    'P27',
    'Google KMS: wrapped with the primary version over ten rotations, every older one unwraps',
    ['test/kms/gcpkms/promises.test.ts'],
    {},
  ],
  [
    'P28',
    'Google KMS: 1,000 unwraps while the key changes its version 10 times: 0 errors, 0 wrong keys',
    ['test/kms/gcpkms/promises.test.ts'],
    {},
  ],
  [
    'P29',
    'what npm installs: packages of a Google key, install scripts, integrity of each',
    ['test/release/package.test.ts'],
    {},
  ],
  ['P30', 'each promise has a row here, and each row its tests', ['test/docs/promises.test.ts'], {}],
  ...['manifests and indexes', 'layouts', 'archives'].map(
    (kind) =>
      [
        'P31',
        `mutated ${kind}: what verify passes is read alike by Go's encoding/json, containers/image and, of archives, containerd's importer`,
        ['test/emulators/go-readers.emulator.ts'],
        { OCICRYPT_TEST_RUNS: String(READINGS) },
        ` reads ${kind} `,
      ] as const,
  ),
  [
    'P32',
    'secrets of every form in the place of each option, variable and word: 0 in output, errors, logs and what callers of a server read',
    ['test/executable/names.test.ts'],
    {},
  ],
  [
    'P33',
    'every source of credentials: slow once, one 503 at renewal, one 429, one silence',
    [
      'test/kms/awskms/credentials.test.ts',
      'test/kms/azurekms/credentials.test.ts',
      'test/kms/gcpkms/sources.test.ts',
      'test/kms/hashivault/credentials.test.ts',
    ],
    {},
  ],
  [
    'P34',
    "containerd 1.6 to 2.4, by kubelet's calls, ctr and nerdctl: every kind of image is pulled and runs; who pulls reads why a pull failed",
    ['decoder', 'failures'].map((name) => `test/nodes/${name}.nodes.ts`),
    { OCICRYPT_NODES: CONTAINERDS.join() },
  ],
];

const PROOFS: readonly Proof[] = [
  { promise: 'P1', what: 'malformed requests through the library', prove: () => withKeys(proveLibrary) },
  {
    promise: 'P1, P2',
    what: 'malformed requests through the executable: closed exit status, one line, nothing on standard output',
    prove: () => withKeys(proveExecutable),
  },
  { promise: 'P3', what: 'published one-fault vectors', prove: async () => proveVectors() },
  ...GOOGLE_PROOFS,
  {
    promise: 'P8',
    what: 'unwraps through the executable, one in ten with a connection of its own',
    prove: () => proveSoak(SOAK),
  },
  ...TESTS.map(
    ([promise, what, files, environment, part = '']): Proof => ({
      promise,
      what,
      prove: () => proveTests(promise, files, environment, part),
    }),
  ),
  MUTANTS,
];

const words = process.argv.slice(2);
// `--no-build`: the executable in dist is the one to prove.
if (!words.includes('--no-build')) runTool('node', ['scripts/build.ts']);
await proveAll(
  PROOFS,
  words.filter((word) => !word.startsWith('--')),
);

async function withKeys(prove: (keys: KeyDirectory) => Promise<string>): Promise<string> {
  const keys = makeKeyDirectory();
  try {
    return await prove(keys);
  } finally {
    keys.remove();
  }
}

async function proveLibrary(directory: KeyDirectory): Promise<string> {
  const next = createMalformed(createRandom());
  const provider = providerOf(MALFORMED_SETUP, directory);
  const outcomes: Outcomes = { counts: new Map(), slowest: 0 };
  // The first calls load and compile code.
  for (let warm = 0; warm < 1000; warm++) await sendMalformed(provider, next(), { counts: new Map(), slowest: 0 });
  for (let sent = 0; sent < LIBRARY_REQUESTS; sent++) {
    await sendMalformed(provider, next(), outcomes);
    if (sent % 100_000 === 99_999) process.stderr.write(`${number(sent + 1)} requests through the library\n`);
  }
  return `${number(LIBRARY_REQUESTS)} requests, 0 crashes, 0 hangs, slowest ${Math.ceil(outcomes.slowest)} ms; ${showCounts(outcomes.counts)}`;
}

async function proveExecutable(directory: KeyDirectory): Promise<string> {
  const next = createMalformed(createRandom(SEED + 1));
  const words = [
    'keyprovider',
    `--key=${directory.file('first')}`,
    '--gcp-endpoint=https://127.0.0.1:1',
    '--adc=/proc/nonexistent/adc.json',
    '--timeout=3s',
  ];
  const closed = new Set<number | null>([0, ...Object.values(ERROR_STATUS).map(({ exit }) => exit)]);
  const counts = new Map<number | null, number>();
  let slowest = 0;
  for (let sent = 0; sent < EXECUTABLE_REQUESTS; sent++) {
    const request = next();
    const { status, stdout, stderr, milliseconds } = await runExecutable(words, { input: request });
    const clean = status === 0 || (stdout.length === 0 && /^ocicrypt-kms: [a-z-]+: \P{Cc}+\n$/u.test(stderr));
    if (!closed.has(status) || status === ERROR_STATUS.internal.exit || !clean) {
      throw new Error(`status ${status}: ${stderr}: ${request.toString('base64')}`);
    }
    counts.set(status, (counts.get(status) ?? 0) + 1);
    slowest = Math.max(slowest, milliseconds);
  }
  return `${number(EXECUTABLE_REQUESTS)} requests, 0 crashes, 0 hangs, slowest ${Math.ceil(slowest)} ms with its start; ${showCounts(counts, 'exit ')}`;
}

function proveVectors(): string {
  const directory = join(PROJECT, 'test/vectors/packets');
  const counts = new Map<string, number>();
  for (const file of readdirSync(directory)) {
    const { expect }: Vector = JSON.parse(readFileSync(join(directory, file), 'utf8'));
    counts.set(expect, (counts.get(expect) ?? 0) + 1);
  }
  const faults = [...counts].filter(([code]) => code !== 'ok').reduce((sum, [, some]) => sum + some, 0);
  return `${faults} with a fault, ${counts.get('ok')} without; ${showCounts(counts)}`;
}

/** Runs the tests whose names begin with the promise, and returns how many passed and what they said. */
async function proveTests(
  promise: string,
  files: readonly string[],
  environment: Readonly<Record<string, string>>,
  part: string,
): Promise<string> {
  const pattern = `^(?:P\\d+ )*${promise}\\b.*${part}`;
  const words = ['--test', '--test-reporter=tap', `--test-name-pattern=${pattern}`, ...files];
  const child = spawn(process.execPath, words, {
    cwd: PROJECT,
    env: { ...process.env, OCICRYPT_PROVE: '1', OCICRYPT_TEST_SEED: String(SEED), ...environment },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let output = '';
  child.stdout.on('data', (chunk: Buffer) => {
    output += chunk.toString();
  });
  const status = await new Promise((resolve) => child.on('close', resolve));
  const read = (name: string) => Number(new RegExp(`^# ${name} (\\d+)$`, 'm').exec(output)?.[1] ?? 0);
  if (status !== 0 || read('pass') === 0) throw new Error(`${promise} is not kept:\n${output}`);
  process.stderr.write(`${promise}: ${read('pass')} tests passed\n`);
  const said = [...output.matchAll(/^ *# (after 1000 operations: .*|killed .*|figures: .*)$/gm)].map(([, line = '']) =>
    line
      .replace('figures: ', '')
      .replaceAll(/[\\{}"]/g, '')
      .replaceAll(/: ?/g, ' ')
      .replaceAll(/,(?=[a-z])/g, ', '),
  );
  return [`${read('pass')} tests, 0 failures`, ...said].join('; ');
}

function showCounts(counts: ReadonlyMap<string | number | null, number>, prefix = ''): string {
  return [...counts]
    .sort(([, a], [, b]) => b - a)
    .map(([name, some]) => `${prefix}${name} ${number(some)}`)
    .join(', ');
}

function number(value: number): string {
  return value.toLocaleString('en-US');
}

function count(variable: string, usual: number): number {
  return Number(process.env[variable] ?? usual);
}
