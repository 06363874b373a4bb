// Runs tests against a copy of the project, in which one thing at a time is changed.

import { spawn } from 'node:child_process';
import {
  chmodSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { SEED } from '../../test/fixtures/seed.ts';
import { PROJECT } from '../../tools/process.ts';
import { type Change, changedSource, sourceOf } from './changes.ts';

/** A test that takes so many times as long as without the change hangs, and so has noticed. */
const PATIENCE = 8;
const LEAST_PATIENCE_MILLISECONDS = 10_000;
/** For a test without a change, on a machine that has other work. */
const SOUND_PATIENCE_MILLISECONDS = 300_000;

/** Half-open, in the text of a file. */
type Range = { readonly startOffset: number; readonly endOffset: number; readonly count: number };

type Coverage = {
  readonly result: readonly {
    readonly url: string;
    readonly functions: readonly { readonly ranges: readonly Range[] }[];
  }[];
};

/** A test file as it is without a change: how long it takes, and which lines of the code it reaches. */
type Sound = { readonly milliseconds: number; readonly reaches: (file: string, offset: number) => boolean };

/** A copy of the project, for one change at a time. */
export class Trial {
  readonly #copy = mkdtempSync(join(tmpdir(), 'mutants-'));
  readonly #sound = new Map<string, Sound>();
  /** How often each has failed since it was last seen to pass. */
  readonly #failures = new Map<string, number>();

  constructor() {
    for (const name of ['src', 'test', 'scripts', 'tools', 'docs', 'package.json', 'tsconfig.json'])
      cpSync(join(PROJECT, name), this.#path(name), { recursive: true });
    // Clients that tests have fetched are in the second.
    mkdirSync(join(PROJECT, '.cache'), { recursive: true });
    for (const name of ['node_modules', '.cache']) symlinkSync(join(PROJECT, name), this.#path(name));
    // Tests that were ended leave files behind; some start programs as another user, who must come in.
    chmodSync(this.#copy, 0o755);
    this.#makeShared('tmp');
  }

  /**
   * Whether a test fails if the change is made. Only those that reach the place are run, first those that are fast and have
   * noticed other changes, and the first failure ends it.
   *
   * @throws Error if a test fails without the change
   */
  async isNoticed(change: Change, tests: readonly string[]): Promise<boolean> {
    for (const test of tests) await this.#know(test);
    const cost = (test: string) => this.#sound.get(test)?.milliseconds ?? 0;
    const price = (test: string) => cost(test) / (1 + (this.#failures.get(test) ?? 0));
    const reaching = tests
      .filter((test) => this.#sound.get(test)?.reaches(change.file, change.reached))
      .toSorted((one, other) => price(one) - price(other));
    writeFileSync(this.#path(change.file), changedSource(change));
    try {
      for (const test of reaching) {
        const patience = Math.max(cost(test) * PATIENCE, LEAST_PATIENCE_MILLISECONDS);
        if (!(await this.#fails(test, patience, { NODE_COMPILE_CACHE: this.#path('compiled') }))) continue;
        this.#failures.set(test, 1 + (this.#failures.get(test) ?? 0));
        return true;
      }
      return false;
    } finally {
      writeFileSync(this.#path(change.file), sourceOf(change.file));
    }
  }

  /** Runs the tests that failed once more without a change. @throws Error if one fails: then its failures say nothing */
  async checkSound(): Promise<void> {
    for (const test of this.#failures.keys())
      if (await this.#fails(test, SOUND_PATIENCE_MILLISECONDS)) throw unsound(test);
    this.#failures.clear();
  }

  remove(): void {
    rmSync(this.#copy, { recursive: true, force: true });
  }

  async #know(test: string): Promise<void> {
    if (this.#sound.has(test)) return;
    const directory = this.#makeShared('coverage');
    const start = performance.now();
    if (await this.#fails(test, SOUND_PATIENCE_MILLISECONDS, { NODE_V8_COVERAGE: directory })) throw unsound(test);
    const milliseconds = performance.now() - start;
    const reports = readdirSync(directory).map(
      (name): Coverage => JSON.parse(readFileSync(join(directory, name), 'utf8')),
    );
    rmSync(directory, { recursive: true });
    const reaches = (file: string, offset: number) => {
      const url = pathToFileURL(this.#path(file)).href;
      return reports.some(({ result }) =>
        // A test may import it once more, with a query.
        result.some((script) => script.url.split('?')[0] === url && isReached(script, offset)),
      );
    };
    this.#sound.set(test, { milliseconds, reaches });
  }

  /** Whether it fails twice: once may be an accident of a machine that has other work. */
  async #fails(test: string, patience: number, environment?: NodeJS.ProcessEnv): Promise<boolean> {
    return !(await this.#passes(test, patience, environment)) && !(await this.#passes(test, patience, environment));
  }

  async #passes(test: string, patience: number, environment: NodeJS.ProcessEnv = {}): Promise<boolean> {
    const { OCICRYPT_TEST_RUNS, ...inherited } = process.env;
    const child = spawn(process.execPath, ['--test-reporter=tap', test], {
      cwd: this.#copy,
      stdio: ['ignore', 'pipe', 'ignore'],
      detached: true,
      env: { ...inherited, OCICRYPT_TEST_SEED: String(SEED), TMPDIR: this.#path('tmp'), ...environment },
    });
    const end = () => {
      try {
        process.kill(-(child.pid ?? 0), 'SIGKILL');
      } catch {
        // It has ended by itself.
      }
    };
    const timer = setTimeout(end, patience);
    let failed = false;
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      if (!/^ *not ok /m.test(text)) return;
      failed = true;
      end();
    });
    const status = await new Promise((resolve) => child.once('close', resolve));
    clearTimeout(timer);
    return status === 0 && !failed;
  }

  /** A directory that other users may write to as well. */
  #makeShared(name: string): string {
    const path = this.#path(name);
    mkdirSync(path);
    chmodSync(path, 0o1777);
    return path;
  }

  #path(name: string): string {
    return join(this.#copy, name);
  }
}

function unsound(test: string): Error {
  return new Error(`${test} fails without a change`);
}

/** Ranges nest: the smallest one around the place tells how often it was reached. */
function isReached({ functions }: Coverage['result'][number], offset: number): boolean {
  let smallest: Range | undefined;
  for (const { ranges } of functions)
    for (const range of ranges) {
      if (range.startOffset > offset || range.endOffset <= offset) continue;
      const size = range.endOffset - range.startOffset;
      if (smallest === undefined || size <= smallest.endOffset - smallest.startOffset) smallest = range;
    }
  return smallest !== undefined && smallest.count > 0;
}
