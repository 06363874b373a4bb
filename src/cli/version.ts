// The version of the package, which a test holds against package.json, and what was built when and for what.

import type { CommandContext } from './command.ts';
import { readSideFile } from './side-files.ts';
import { asciiJson } from './text.ts';

export const VERSION = '0.1.0';

/** Prints the version; as JSON, also what a report of a fault must name. */
export async function runVersion({ settings, terminal }: CommandContext): Promise<void> {
  if (!settings.switch('json')) return terminal.write(`ocicrypt-kms ${VERSION}\n`);
  const { bun, node } = process.versions;
  const runtime = bun === undefined ? `node ${node}` : `bun ${bun}`;
  const target = `${process.platform}-${process.arch}`;
  terminal.write(`${asciiJson({ version: VERSION, runtime, target, ...readBuild() })}\n`);
}

/** What the build knew: the commit, its date and the platform; a source that was not built knows none of it. */
function readBuild(): object {
  return JSON.parse(readSideFile('build.json') ?? '{}');
}
