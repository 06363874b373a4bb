// Runs the tools that this project has pinned.

import { spawnSync } from 'node:child_process';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const PROJECT = dirname(dirname(fileURLToPath(import.meta.url)));

/** Where a pinned tool's command is; npm is the machine's own. */
export function toolPath(name: string): string {
  if (name === 'npm') return name;
  return name === 'node' ? process.execPath : join(PROJECT, 'node_modules/.bin', name);
}

/** Runs a tool in the project's directory with its output shown; a failure ends this process with the tool's status. */
export function runTool(name: string, words: readonly string[], environment: NodeJS.ProcessEnv = {}): void {
  const { status, error } = spawnSync(toolPath(name), words, {
    cwd: PROJECT,
    stdio: 'inherit',
    // Scripts start tools by name: they are to find the pinned Node, not the machine's.
    env: { ...process.env, PATH: `${dirname(process.execPath)}:${process.env.PATH}`, ...environment },
  });
  if (error) process.stderr.write(`cannot run ${name}: ${error.message}\n`);
  if (status !== 0) process.exit(status ?? 1);
}
