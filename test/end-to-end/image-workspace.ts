// What tests of the image commands need: the executable's image commands, run as users run them.

import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import { ERROR_STATUS, type ErrorCode } from '../../src/base/errors.ts';
import { assertJsonOutput } from '../fixtures/json-output.ts';
import { type Environment, runClient } from '../real-clients/process.ts';
import { type KeyProvider, writeOcicryptConfig } from '../real-clients/skopeo.ts';
import { createWorkspace, executable, type LocalKey, type Workspace } from './workspace.ts';

/** How a command ended; `digest` is what it printed, where that is a digest. */
export type CommandResult = {
  readonly exitCode: number;
  readonly stdout: string;
  readonly stderr: string;
  readonly digest: string;
};

export type ImageWorkspace = Workspace & {
  /** A key of this test's. */
  readonly key: LocalKey;
  /** Runs a command of the executable in this directory. */
  run(words: readonly string[], env?: Environment): Promise<CommandResult>;
  /** The same, and demands that it succeeds. */
  ours(...words: readonly string[]): Promise<CommandResult>;
  /** The same, and demands that it fails with this code, in one line that begins with it. */
  refused(code: ErrorCode, ...words: readonly string[]): Promise<CommandResult>;
  /** Tells clients of providers. */
  providers(providers: Readonly<Record<string, KeyProvider>>): Promise<Environment>;
};

/** A directory with one key in it. */
export async function createImageWorkspace(t: Pick<TestContext, 'after'>): Promise<ImageWorkspace> {
  const workspace = await createWorkspace(t);
  const key = await workspace.keygen('app.key');
  async function run(words: readonly string[], env: Environment = {}): Promise<CommandResult> {
    const result = await runClient([executable(), ...words], { cwd: workspace.directory, env });
    const stdout = new TextDecoder().decode(result.stdout);
    assertJsonOutput(words, stdout);
    return { ...result, stdout, digest: stdout.trim() };
  }
  return {
    ...workspace,
    key,
    run,
    async ours(...words) {
      const result = await run(words);
      assert.equal(result.exitCode, 0, result.stderr);
      return result;
    },
    async refused(code, ...words) {
      const result = await run(words);
      assertRefused(result, code);
      return result;
    },
    providers: (providers) => writeOcicryptConfig(workspace.path('ocicrypt.json'), providers),
  };
}

/** Demands that a command failed with this code, in one line that begins with it. */
export function assertRefused(result: CommandResult, code: ErrorCode): void {
  assert.ok(result.stderr.startsWith(`ocicrypt-kms: ${code}: `), `${code} expected: ${result.stderr}`);
  assert.equal(result.stderr.trimEnd().split('\n').length, 1, result.stderr);
  assert.equal(result.exitCode, ERROR_STATUS[code].exit);
}
