// The checks that are not tests: the lockfile, types, style, dead code, and the shape of the package.

import { runTool } from '../tools/process.ts';

// The lockfile must list the tools of every platform: npm drops those of others when it installs into a folder that has
// node_modules already, and from then on `npm ci` fails. `npm install --package-lock-only` adds them.
runTool('npm', ['ci', '--dry-run', '--offline', '--ignore-scripts', '--loglevel=error']);
runTool('tsc', ['-p', 'tsconfig.json']);
runTool('biome', ['ci']);
runTool('knip', []);
runTool('publint', ['--strict']);
