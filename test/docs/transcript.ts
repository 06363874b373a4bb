// Runs the `bash` blocks of a document in one shell, in order, and compares what they print with the `text` blocks after them.

import assert from 'node:assert/strict';
import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { DIST, executable } from '../end-to-end/workspace.ts';
import { type Environment, runClient } from '../real-clients/process.ts';
import { ensureTools, type ToolName } from '../real-clients/tools.ts';

/** The checkout. */
export const PROJECT = fileURLToPath(new URL('../..', import.meta.url));

/** A fenced block: its language, its lines, and the line of the document that it starts on. */
export type Block = { readonly language: string; readonly text: string; readonly line: number };

/** Reads a document of the checkout, as `docs/walkthrough.md`. */
export function readDocument(name: string): Promise<string> {
  return readFile(join(PROJECT, name), 'utf8');
}

/** The fenced blocks of a document, in order. */
export function blocksOf(document: string): readonly Block[] {
  return [...document.matchAll(/^```([a-z]*)\n(.*?)^```$/gms)].map(({ 1: language = '', 2: text = '', index }) => ({
    ...{ language, text, line: document.slice(0, index).split('\n').length },
  }));
}

/** A directory in which a document can be followed: a home of its own, the examples, and the clients on PATH. */
export type Playground = { readonly directory: string; readonly home: string; readonly environment: Environment };

/** Makes one, removed when the test ends; `names` are the clients that the document needs. */
export async function createPlayground(t: TestContext, names: readonly ToolName[]): Promise<Playground> {
  const directory = await mkdtemp(join(tmpdir(), 'docs-'));
  t.after(() => rm(directory, { recursive: true, force: true }));
  const [home, bin] = [join(directory, 'home'), join(directory, 'bin')];
  executable();
  await mkdir(bin);
  const tools = await ensureTools();
  for (const name of names) {
    const tool = tools[name];
    assert.ok('argv' in tool);
    const words = tool.argv.map((word) => `'${word}'`).join(' ');
    await writeFile(join(bin, name), `#!/bin/sh\nexec ${words} "$@"\n`, { mode: 0o755 });
  }
  // skopeo wants a policy for signatures; packages of it come with this one.
  await mkdir(join(home, '.config/containers'), { recursive: true });
  await writeFile(join(home, '.config/containers/policy.json'), '{"default":[{"type":"insecureAcceptAnything"}]}');
  await cp(join(PROJECT, 'examples'), join(directory, 'examples'), { recursive: true });
  const environment = { PATH: `${bin}:${DIST}:${process.env.PATH}`, HOME: home, TMPDIR: directory };
  return { directory, home, environment };
}

/**
 * Runs every `bash` block; any command that fails ends it, as the reader would stop there. A `text` block that follows
 * a `bash` block is what the latter prints, line by line among others, where `…` stands for anything.
 *
 * @returns what each `bash` block printed
 */
export async function runTranscript(
  document: string,
  { directory, environment }: Playground,
  extra: Environment = {},
): Promise<readonly string[]> {
  const blocks = blocksOf(document);
  const scripts = blocks.filter(({ language }) => language === 'bash');
  const mark = (index: number) => `@@ block ${index} @@`;
  const script = scripts.map(({ text }, index) => `echo '${mark(index)}'\n${text}`).join('\n');
  await writeFile(join(directory, 'transcript.sh'), `set -euo pipefail\nexec 2>&1\n${script}\n`);
  const { exitCode, stdout } = await runClient(['bash', join(directory, 'transcript.sh')], {
    ...{ cwd: directory, env: { ...environment, ...extra } },
  });
  const output = Buffer.from(stdout).toString();
  const outputs = scripts.map((_, index) => between(output, `${mark(index)}\n`, mark(index + 1)));
  const last = outputs.findLastIndex((text) => text !== undefined);
  assert.equal(exitCode, 0, `the block at line ${scripts[last]?.line} failed: ${outputs[last]}`);
  for (const [index, block] of blocks.entries()) {
    const before = blocks[index - 1];
    if (block.language !== 'text' || before?.language !== 'bash') continue;
    assertPrinted(outputs[scripts.indexOf(before)] ?? '', block);
  }
  return outputs.map((text) => text ?? '');
}

/** A port that nothing listens on now. */
export async function findFreePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  assert.ok(typeof address === 'object' && address !== null);
  await new Promise((resolve) => server.close(resolve));
  return address.port;
}

function between(text: string, start: string, end: string): string | undefined {
  const from = text.indexOf(start);
  if (from < 0) return undefined;
  const to = text.indexOf(end, from + start.length);
  return text.slice(from + start.length, to < 0 ? undefined : to);
}

/** Each line of the block is printed, in their order. */
function assertPrinted(output: string, { text, line }: Block): void {
  const printed = output.split('\n').map((one) => one.trim());
  let from = 0;
  for (const [offset, wanted] of text.trimEnd().split('\n').entries()) {
    const pattern = new RegExp(`^${wanted.trim().split('…').map(escapePattern).join('.*')}$`);
    const found = printed.findIndex((one, index) => index >= from && pattern.test(one));
    assert.ok(found >= 0, `line ${line + 1 + offset} was not printed: ${wanted}\nbut:\n${output}`);
    from = found + 1;
  }
}

function escapePattern(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
}
