// Runs a real Kubernetes on this machine: our admission webhook before its API server, our chart in it, and encrypted images
// in pods of its node. `-- NAME…` runs some of the files. All of it is fetched by name; it takes half an hour to build, once.

import { globSync } from 'node:fs';
import { whyNoNode } from '../test/nodes/node.ts';
import { PROJECT, runTool } from '../tools/process.ts';

const files = globSync('test/cluster/*.cluster.ts', { cwd: PROJECT }).toSorted();
const nameOf = (file: string) => /([^/]+)\.cluster\.ts$/.exec(file)?.[1] ?? '';
const names = process.argv.slice(2);
const chosen = files.filter((file) => names.length === 0 || names.includes(nameOf(file)));
if (chosen.length < Math.max(names.length, 1)) throw new Error(`there are ${files.map(nameOf).join(', ')}`);
// The agent of nodes runs in the image of the release, on a node; the webhook asks for neither.
const hasNode = chosen.some((file) => nameOf(file) === 'chart');
const complaint = hasNode ? await whyNoNode() : undefined;
if (complaint !== undefined) {
  process.stderr.write(`${complaint}\n`);
  process.exitCode = 1;
} else {
  const target = process.arch === 'arm64' ? 'linux-arm64' : 'linux-x64';
  runTool('node', hasNode ? ['scripts/release.ts', target] : ['scripts/build.ts']);
  runTool('node', ['--test', '--test-concurrency=1', '--test-timeout=2400000', ...chosen]);
}
