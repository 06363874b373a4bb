// The notes of a release: what changed, and for each executable what it needs and where it was tried.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { PROJECT } from '../../tools/process.ts';
import type { Product } from '../../tools/release/contents.ts';
import { executableName, type Target } from '../../tools/release/targets.ts';

/** @returns the section of the version in CHANGELOG.md, or of what is not released yet, and the table */
export function releaseNotes({ version }: Product, targets: readonly Target[]): string {
  const changes = readFileSync(join(PROJECT, 'CHANGELOG.md'), 'utf8');
  const sections = changes.split(/^## /m).slice(1);
  const section = sections.find((text) => text.startsWith(`[${version}]`)) ?? sections[0] ?? '';
  const rows = targets.map((target) => `| \`${executableName(target)}\` | ${target.needs} | ${target.tried} |`);
  return `${section.replace(/^.*\n/, '').trim()}

## Executables

| file | needs | tried |
|---|---|---|
${rows.join('\n')}

How to check what you have downloaded: docs/verify-release.md.
`;
}
