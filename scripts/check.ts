// The checks that are not tests: types, style, dead code, and the shape of the package.

import { runTool } from './process.ts';

runTool('tsc', ['-p', 'tsconfig.json']);
runTool('biome', ['ci']);
runTool('knip', []);
runTool('publint', ['--strict']);
