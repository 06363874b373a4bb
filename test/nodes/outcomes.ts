// What is asserted of a pull and of our own commands on a node, and how tests wait for what happens there.
import assert from 'node:assert/strict';
import { setTimeout as pause } from 'node:timers/promises';
import type { ErrorCode } from '../../src/base/errors.ts';
import { executable } from '../end-to-end/workspace.ts';
import { assertJsonOutput } from '../fixtures/json-output.ts';
import type { Outcome } from './clients.ts';
import type { Node } from './node.ts';

const PATIENCE = 30_000;

export function assertPulled({ exitCode, text }: Outcome): void {
  assert.equal(exitCode, 0, text);
}

/** Demands that a pull failed, and that one line of ours says so, with this code and key. */
export function assertRefused({ exitCode, text }: Outcome, code: ErrorCode, key: string): void {
  assert.notEqual(exitCode, 0, 'the pull should have failed');
  const line = text.split(/\n|\\n/).find((one) => one.includes(`ocicrypt-kms: ${code}: `));
  assert.ok(line?.includes(key), `${code} of ${key} is not in: ${text}`);
}

/** Runs `ocicrypt-kms node`, and answers what it says on both of its outputs. */
export async function runOurs(node: Node, ...words: readonly string[]): Promise<Outcome> {
  const { exitCode, stdout, stderr } = await node.run([executable(), 'node', ...words]);
  const said = new TextDecoder().decode(stdout);
  assertJsonOutput(['node', ...words], said);
  return { exitCode, text: `${said}${stderr}` };
}

export async function succeedOurs(node: Node, ...words: readonly string[]): Promise<string> {
  const { exitCode, text } = await runOurs(node, ...words);
  assert.equal(exitCode, 0, text);
  return text;
}

export async function until(holds: () => boolean): Promise<void> {
  for (const end = Date.now() + PATIENCE; !holds(); await pause(20)) assert.ok(Date.now() < end);
}

/** Waits for a socket of the node. */
export async function appears(node: Node, path: string): Promise<void> {
  const script = 'i=0; until [ -S "$1" ]; do i=$((i + 1)); [ $i -lt 100 ] || exit 1; sleep 0.05; done';
  assert.equal((await node.run(['sh', '-c', script, 'sh', path])).exitCode, 0);
}
