// Tries the admission webhook before a real API server of Kubernetes, which is built from its Go modules, once.

import { globSync } from 'node:fs';
import { PROJECT, runTool } from '../tools/process.ts';

const files = globSync('test/cluster/*.cluster.ts', { cwd: PROJECT }).toSorted();
runTool('node', ['scripts/build.ts']);
// On two cores that do nothing else, the first run builds for about ten minutes.
runTool('node', ['--test', '--test-concurrency=1', '--test-timeout=2400000', ...files]);
