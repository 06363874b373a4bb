// Layers that containerd unpacks into images of EROFS, several at once: through our decoder, as into directories.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { executable } from '../end-to-end/workspace.ts';
import { fetchFromDebian } from '../real-clients/debian.ts';
import { pull } from './clients.ts';
import { streamProcessors } from './configuration.ts';
import { type ImageKind, imageName } from './images.ts';
import { createLab } from './lab.ts';
import { CHOSEN, isFirst } from './software.ts';

const KINDS = ['gzip', 'zstd', '30 layers'] as const satisfies readonly ImageKind[];
const MAKER = '/opt/mkfs.erofs';

/** Its options of 2.1, and how many layers are unpacked at once from 2.2 on. */
function configuration(containerd: string): string {
  const architecture = process.arch === 'x64' ? 'amd64' : process.arch;
  return `version = 3
[plugins."io.containerd.service.v1.diff-service"]
default = ["erofs", "walking"]
[plugins."io.containerd.transfer.v1.local"]
${containerd.startsWith('2.1.') ? '' : 'max_concurrent_unpacks = 4'}
[[plugins."io.containerd.transfer.v1.local".unpack_config]]
platform = "linux/${architecture}"
snapshotter = "erofs"
differ = "erofs"
`;
}

/** Debian's of a release whose C library the machine may lack: started by its own. */
async function makerScript(): Promise<string> {
  const root = await fetchFromDebian(['erofs-utils', 'libc6'], 'trixie');
  return `#!/bin/sh
libraries=$(echo ${root}/usr/lib/*-linux-gnu*)
exec "$libraries"/ld-linux-*.so.* --library-path "$libraries" ${root}/usr/bin/mkfs.erofs "$@"
`;
}

for (const containerd of CHOSEN.filter((one) => !isFirst(one) && !one.startsWith('2.0.'))) {
  test(`containerd ${containerd}`, async (t) => {
    const lab = await createLab(t, KINDS);
    const decoder = streamProcessors({ path: executable(), args: ['decoder', `--key=${lab.key.file}`] });
    const node = await lab.start(t, {
      containerd,
      files: {
        '/etc/containerd/conf.d/ocicrypt.toml': decoder,
        '/etc/containerd/conf.d/erofs.toml': configuration(containerd),
      },
      programs: { 'mkfs.erofs': MAKER },
    });
    await node.write(MAKER, await makerScript(), 0o755);
    // It looks for the program when it starts.
    await node.kill('containerd');
    await node.startService();
    for (const kind of KINDS) {
      const image = imageName(lab.registry, kind);
      const words = [
        'ctr',
        'images',
        'pull',
        '--snapshotter=erofs',
        '--hosts-dir=/etc/containerd/certs.d',
        image,
      ] as const;
      const { exitCode, stdout, stderr } = await node.run(words);
      assert.equal(exitCode, 0, `${kind}: ${new TextDecoder().decode(stdout)}${stderr}${await node.log()}`);
      const run = await node.run([
        'ctr',
        'run',
        '--rm',
        '--snapshotter=erofs',
        '--net-host',
        image,
        `run-${KINDS.indexOf(kind)}`,
      ]);
      assert.match(new TextDecoder().decode(run.stdout), /^hello$/m, run.stderr);
    }
    // And into directories, several at once.
    await node.write(
      '/etc/containerd/conf.d/erofs.toml',
      'version = 3\n[plugins."io.containerd.transfer.v1.local"]\nmax_concurrent_unpacks = 4\n',
    );
    await node.kill('containerd');
    await node.startService();
    const { exitCode, text } = await pull(node, 'CRI', imageName(lab.registry, '30 layers'));
    assert.equal(exitCode, 0, text);
  });
}
