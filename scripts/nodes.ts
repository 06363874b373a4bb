// Runs encrypted images on real nodes: `npm run test:nodes` on every containerd, `-- debian` on those that need no compiler,
// `-- VERSION…` on some. All of them are fetched by name; those that come as Go modules take minutes to build, once. CRI-O is
// in no registry: the one in PATH or of `--crio=PROGRAM` is run beside them, or alone by `-- crio`.

import { existsSync, globSync } from 'node:fs';
import { delimiter, join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { whyNoNode } from '../test/nodes/node.ts';
import { CONTAINERDS } from '../test/nodes/software.ts';
import { PROJECT, runTool } from '../tools/process.ts';

const CRIO_TEST = 'test/nodes/crio.nodes.ts';

const { values, positionals } = parseArgs({ allowPositionals: true, options: { crio: { type: 'string' } } });
const words = positionals.filter((word) => word !== 'crio');
const isCrioWanted = words.length < positionals.length || values.crio !== undefined;
const isCrioAlone = words.length === 0 && isCrioWanted;
const isSmall = words.length === 1 && words[0] === 'debian';
const names: readonly string[] = words.length === 0 ? CONTAINERDS : words;
const places = (process.env.PATH ?? '').split(delimiter).map((directory) => join(directory, 'crio'));
const crio = values.crio === undefined ? places.find((path) => existsSync(path)) : resolve(values.crio);

const complaint = await whyNoNode();
if (complaint !== undefined) {
  process.stderr.write(`${complaint}\n`);
  // Without the right to make a namespace there is nothing to test: said, and a failure where it would not be read.
  process.exitCode = process.env.CI === 'true' ? 1 : 0;
} else if (isCrioWanted && (crio === undefined || !existsSync(crio))) {
  process.stderr.write(`there is no CRI-O ${crio ?? 'in PATH'}: name one by --crio=PROGRAM\n`);
  process.exitCode = 1;
} else {
  if (crio === undefined) process.stdout.write('CRI-O is left out: none is in PATH, or named by --crio=PROGRAM\n');
  // A systemd of its own wants a control group, which fewer machines give than namespaces.
  const exclude = [...(isSmall ? ['test/nodes/service.nodes.ts'] : []), ...(crio === undefined ? [CRIO_TEST] : [])];
  const files = isCrioAlone ? [CRIO_TEST] : globSync('test/nodes/*.nodes.ts', { cwd: PROJECT, exclude }).toSorted();
  runTool('node', ['scripts/build.ts']);
  const environment = isSmall || isCrioAlone ? {} : { OCICRYPT_NODES: names.join(',') };
  runTool('node', ['--test', '--test-concurrency=2', '--test-timeout=1200000', ...files], {
    ...environment,
    ...(crio === undefined ? {} : { OCICRYPT_CRIO: crio }),
  });
}
