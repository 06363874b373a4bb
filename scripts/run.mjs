// Runs a script of this project on its pinned Node, installing the dependencies first where that is needed.
// Plain JavaScript, because the machine's own Node may be older than the one that understands TypeScript.

import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const project = dirname(dirname(fileURLToPath(import.meta.url)));
const [script, ...words] = process.argv.slice(2);

if (!isInstalled()) run('npm', ['ci', '--loglevel=error']);
run(join(project, 'node_modules/node/bin/node'), [join(project, script), ...words]);

/** npm leaves a copy of the lockfile behind, less the entry of the project itself. */
function isInstalled() {
  const installed = join(project, 'node_modules/.package-lock.json');
  if (!existsSync(installed) || !existsSync(join(project, 'node_modules/node/bin/node'))) return false;
  const has = JSON.parse(readFileSync(installed, 'utf8')).packages;
  const wants = JSON.parse(readFileSync(join(project, 'package-lock.json'), 'utf8')).packages;
  return Object.entries(wants).every(
    ([path, { version, optional }]) => path === '' || optional || has[path]?.version === version,
  );
}

function run(command, args) {
  const { status, error } = spawnSync(command, args, { cwd: project, stdio: 'inherit' });
  if (error) process.stderr.write(`cannot run ${command}: ${error.message}\n`);
  if (status !== 0) process.exit(status ?? 1);
}
