// Changes one thing at a time in the code that guards keys, and runs the tests of that code: a change that no test
// notices is a test that is missing. `npm run test:mutants -- src/provider/policy.ts` tries the changes of that file.

import { spawn } from 'node:child_process';
import { cpSync, globSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { parseSync, Visitor } from 'oxc-parser';
import { createRandom, SEED } from '../test/fixtures/seed.ts';
import { PROJECT } from '../tools/process.ts';

/** What guards keys, and the tests that are to notice a change there. */
const GUARDED: readonly { readonly code: string; readonly tests: string }[] = [
  { code: 'src/base/{combine,secret-file}.ts', tests: 'test/base/{combine,secret-file}.test.ts' },
  {
    code: 'src/kms/{kek,sharing,store,key-rate,outage,processor-turns,token-cache}.ts',
    tests: 'test/{kms/{kek,sharing,store,token-cache},server/limits}.test.ts',
  },
  { code: 'src/provider/*.ts', tests: 'test/provider/*.test.ts' },
  {
    code: 'src/image/verify*.ts',
    tests: 'test/image/{keys,tamper,verify-hostile,post-quantum,model/digest-tag}.test.ts',
  },
  { code: 'src/image/cipher/*.ts', tests: 'test/image/{cipher/*,tamper}.test.ts' },
];

const WORKERS = 2;
/** A change that makes the tests hang is noticed. */
const PATIENCE_MILLISECONDS = 60_000;

type Mutant = {
  readonly file: string;
  readonly start: number;
  readonly end: number;
  readonly replacement: string;
  readonly tests: readonly string[];
};

const OPERATORS: Readonly<Record<string, string>> = {
  '===': '!==',
  '!==': '===',
  '<': '<=',
  '<=': '<',
  '>': '>=',
  '>=': '>',
  '+': '-',
  '-': '+',
  '&&': '||',
  '||': '&&',
  '&': '|',
  '|': '&',
};

/** All changes of a file: conditions, operators, numbers and truth values turned round, calls for their effect left out. */
function mutantsOf(file: string, tests: readonly string[]): readonly Mutant[] {
  const text = readFileSync(join(PROJECT, file), 'utf8');
  const found: Mutant[] = [];
  type Place = { readonly start: number; readonly end: number };
  const replace = ({ start, end }: Place, replacement: string) => found.push({ file, start, end, replacement, tests });
  const turn = ({ left, right, operator }: { left: Place; right: Place; operator: string }) => {
    const other = OPERATORS[operator];
    const at = text.indexOf(operator, left.end);
    if (other !== undefined && at < right.start) replace({ start: at, end: at + operator.length }, other);
  };
  new Visitor({
    BinaryExpression: turn,
    LogicalExpression: turn,
    IfStatement({ test }) {
      replace(test, 'true');
      replace(test, 'false');
    },
    ConditionalExpression({ test }) {
      replace(test, 'true');
      replace(test, 'false');
    },
    UnaryExpression(node) {
      if (node.operator === '!') replace({ start: node.start, end: node.start + 1 }, '');
    },
    Literal(node) {
      if (typeof node.value === 'boolean') replace(node, String(!node.value));
      if (typeof node.value === 'number') replace(node, String(node.value + 1));
    },
    ExpressionStatement({ start, end, expression }) {
      const call = expression.type === 'AwaitExpression' ? expression.argument : expression;
      if (call.type === 'CallExpression') replace({ start, end }, ';');
    },
  }).visit(parseSync(file, text).program);
  return found;
}

/** Whether the tests of a copy of the project pass: file by file, so that the first failure ends it. */
async function pass(copy: string, tests: readonly string[]): Promise<boolean> {
  for (const file of tests) {
    const child = spawn(process.execPath, [file], { cwd: copy, stdio: 'ignore', detached: true });
    const timer = setTimeout(() => process.kill(-(child.pid ?? 0), 'SIGKILL'), PATIENCE_MILLISECONDS);
    const status = await new Promise((resolve) => child.once('close', resolve));
    clearTimeout(timer);
    if (status !== 0) return false;
  }
  return true;
}

/** The tests that are most likely to notice a change of a file first: those that are named after it. */
function likeliestFirst(tests: readonly string[], file: string): readonly string[] {
  const name = basename(file, '.ts');
  const isNamesake = (test: string) => Number(basename(test).startsWith(name));
  return tests.toSorted((one, other) => isNamesake(other) - isNamesake(one));
}

function makeCopy(): string {
  const copy = mkdtempSync(join(tmpdir(), 'mutants-'));
  for (const name of ['src', 'test', 'scripts', 'tools', 'docs', 'package.json', 'tsconfig.json'])
    cpSync(join(PROJECT, name), join(copy, name), { recursive: true });
  symlinkSync(join(PROJECT, 'node_modules'), join(copy, 'node_modules'));
  return copy;
}

function placeOf({ file, start, end, replacement }: Mutant): string {
  const text = readFileSync(join(PROJECT, file), 'utf8');
  const line = text.slice(0, start).split('\n').length;
  return `${file}:${line}: ${text.slice(start, end)} → ${replacement === '' || replacement === ';' ? '(left out)' : replacement}`;
}

/**
 * Tries changes at random places and shows those that no test notices.
 *
 * @param wanted files, or none for all that is guarded
 * @param count how many changes are tried
 * @returns how many were tried and noticed
 */
export async function tryMutants(
  wanted: readonly string[],
  count: number,
): Promise<{ readonly tried: number; readonly noticed: number }> {
  const all = GUARDED.flatMap(({ code, tests }) =>
    globSync(code, { cwd: PROJECT })
      .filter((file) => wanted.length === 0 || wanted.includes(file))
      .flatMap((file) => mutantsOf(file, likeliestFirst(globSync(tests, { cwd: PROJECT }).sort(), file))),
  );
  const random = createRandom();
  const chosen = new Set<Mutant>();
  while (chosen.size < Math.min(count, all.length)) {
    const one = all[random(all.length)];
    if (one !== undefined) chosen.add(one);
  }
  process.stdout.write(`${chosen.size} of ${all.length} changes, OCICRYPT_TEST_SEED=${SEED}\n`);
  const queue = [...chosen].toSorted((one, other) => one.file.localeCompare(other.file));
  let noticed = 0;
  const work = async () => {
    const copy = makeCopy();
    const sound = new Set<string>();
    try {
      for (let one = queue.shift(); one !== undefined; one = queue.shift()) {
        const group = one.tests.toSorted().join();
        if (!sound.has(group) && !(await pass(copy, one.tests)))
          throw new Error(`the tests fail without a change: ${group}`);
        sound.add(group);
        const original = readFileSync(join(PROJECT, one.file), 'utf8');
        writeFileSync(join(copy, one.file), original.slice(0, one.start) + one.replacement + original.slice(one.end));
        if (await pass(copy, one.tests)) process.stdout.write(`not noticed: ${placeOf(one)}\n`);
        else noticed++;
        writeFileSync(join(copy, one.file), original);
      }
    } finally {
      rmSync(copy, { recursive: true, force: true });
    }
  };
  await Promise.all(Array.from({ length: WORKERS }, work));
  process.stdout.write(`${noticed} of ${chosen.size} noticed\n`);
  return { tried: chosen.size, noticed };
}

if (import.meta.main) await tryMutants(process.argv.slice(2), Number(process.env.OCICRYPT_TEST_RUNS ?? Infinity));
