// Runs a real Kubernetes on this machine: the webhook before its API server, the chart in it, encrypted images in its pods.
// `-- NAME…` runs some of the files. All of it is fetched by name, and built once.

import { globSync } from 'node:fs';
import { whyNoNode } from '../test/nodes/node.ts';
import { PROJECT, runTool } from '../tools/process.ts';

const files = globSync('test/cluster/*.cluster.ts', { cwd: PROJECT }).toSorted();
const nameOf = (file: string) => /([^/]+)\.cluster\.ts$/.exec(file)?.[1] ?? '';
const names = process.argv.slice(2);
const chosen = files.filter((file) => names.length === 0 || names.includes(nameOf(file)));
if (chosen.length < Math.max(names.length, 1)) throw new Error(`there are ${files.map(nameOf).join(', ')}`);
// The agents run in the image of the release, on a node; the other files ask for neither.
const hasNode = chosen.some((file) => nameOf(file) === 'chart');
const complaint = hasNode ? await whyNoNode() : undefined;
if (complaint !== undefined) {
  process.stderr.write(`${complaint}\n`);
  process.exitCode = 1;
} else {
  const target = process.arch === 'arm64' ? 'linux-arm64' : 'linux-x64';
  runTool('node', hasNode ? ['scripts/release.ts', target] : ['scripts/build.ts']);
  // On two cores that do nothing else, the first run builds for up to half an hour.
  runTool('node', ['--test', '--test-concurrency=1', '--test-timeout=2400000', ...chosen]);
}
