// Runs the backends against services that others wrote, which are fetched and built: minutes the first time, and Go.

import { globSync } from 'node:fs';
import { PROJECT, runTool } from './process.ts';

const files = globSync('test/emulators/*.emulator.ts', { cwd: PROJECT }).sort();
runTool('node', ['--test', '--test-concurrency=1', '--test-timeout=1200000', ...files]);
