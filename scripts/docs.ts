// Writes the documents that are made from the table of options, and the units of deploy/; a test compares them. With
// `reference`, the reference of the library, into dist/reference; with `kustomize`, the base of
// deploy/kustomize, which takes Go: npm run test:emulators -- chart compares that.

import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { renderBase } from '../test/peers/charts.ts';
import { generatedDocuments } from '../tools/documents.ts';
import { PROJECT, runTool } from '../tools/process.ts';

if (process.argv[2] === 'reference') {
  // Fetched and no dependency: it needs a TypeScript of its own, and both take 46 MB.
  const packages = ['typedoc@0.28.20', 'typescript@6.0.3'].map((name) => `--package=${name}`);
  const words = ['--entryPoints', 'src/index.ts', '--out', 'dist/reference', '--readme', 'docs/library.md'];
  const strict = ['--excludeExternals', '--treatWarningsAsErrors', '--treatValidationWarningsAsErrors'];
  // What a clone has for a remote, if any, says nothing about where the sources are.
  const { homepage } = JSON.parse(readFileSync(join(PROJECT, 'package.json'), 'utf8'));
  const template = `${homepage.replace('#readme', '')}/blob/main/src/{path}#L{line}`;
  const sources = ['--disableGit', '--sourceLinkTemplate', template];
  runTool('npm', ['exec', '--yes', ...packages, '--', 'typedoc', ...words, ...sources, ...strict]);
} else if (process.argv[2] === 'kustomize') {
  writeFileSync(join(PROJECT, 'deploy/kustomize/base/chart.yaml'), await renderBase());
} else {
  for (const [file, content] of generatedDocuments()) writeFileSync(join(PROJECT, file), content);
}
