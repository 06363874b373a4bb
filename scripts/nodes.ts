// Runs encrypted images on real nodes: `npm run test:nodes` on every containerd, `-- debian` on those that need no compiler,
// `-- VERSION…` on some. All of them are fetched by name; those that come as Go modules take minutes to build, once.

import { globSync } from 'node:fs';
import { whyNoNode } from '../test/nodes/node.ts';
import { CONTAINERDS } from '../test/nodes/software.ts';
import { PROJECT, runTool } from '../tools/process.ts';

const words = process.argv.slice(2);
const isSmall = words.length === 1 && words[0] === 'debian';
const names: readonly string[] = words.length === 0 ? CONTAINERDS : words;
const complaint = await whyNoNode();
if (complaint !== undefined) {
  process.stderr.write(`${complaint}\n`);
  // Without the right to make a namespace there is nothing to test: said, and a failure where it would not be read.
  process.exitCode = process.env.CI === 'true' ? 1 : 0;
} else {
  // A systemd of its own wants a control group, which fewer machines give than namespaces.
  const exclude = isSmall ? ['test/nodes/service.nodes.ts'] : [];
  const files = globSync('test/nodes/*.nodes.ts', { cwd: PROJECT, exclude }).toSorted();
  runTool('node', ['scripts/build.ts']);
  const environment = isSmall ? {} : { OCICRYPT_NODES: names.join(',') };
  runTool('node', ['--test', '--test-concurrency=2', '--test-timeout=1200000', ...files], environment);
}
