// What a decoder refuses is never taken for a layer, even if nothing keeps its output open and whatever the image names.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { executable, succeed } from '../end-to-end/workspace.ts';
import { blobPath, writeImage } from '../fixtures/images.ts';
import { runClient } from '../real-clients/process.ts';
import { pull } from './clients.ts';
import { streamProcessors } from './configuration.ts';
import { createLab, type Lab } from './lab.ts';
import { CHOSEN } from './software.ts';

/** The status may be missed or seen. */
const TURNS = 5;

let lab: Lab;
const cleanups: (() => unknown)[] = [];
before(async () => {
  lab = await createLab({ after: (cleanup) => void cleanups.push(cleanup) }, []);
  await pushForged();
});
after(async () => {
  for (const cleanup of cleanups.reverse()) await cleanup();
});

for (const containerd of CHOSEN) {
  test(`containerd ${containerd}: no layer is taken for an empty one`, async (t) => {
    const decoder = streamProcessors({ path: executable(), args: ['decoder'] });
    const node = await lab.start(t, { containerd, files: { '/etc/containerd/conf.d/ocicrypt.toml': decoder } });
    const image = `${lab.registry.host}/forged:1`;
    const first = await pull(node, 'CRI', image);
    assert.ok(first.exitCode !== 0 && first.text.includes('ocicrypt-kms: not-allowed: '), first.text);
    await node.write('/run/none', '');
    const hidden = await node.run(['sh', '-c', 'mount --bind /run/none "$(realpath /bin/sh)"']);
    assert.equal(hidden.exitCode, 0, hidden.stderr);
    for (let turn = 0; turn < TURNS; turn++) {
      const { exitCode, text } = await pull(node, 'CRI', image);
      assert.notEqual(exitCode, 0, 'the layers were taken for empty ones');
      assert.match(text, /wrong diff id|ocicrypt-kms: not-allowed: /);
    }
  });
}

/** Its config says that every layer is nothing, which is what a decoder without a key writes. */
async function pushForged(): Promise<void> {
  const directory = join(lab.directory, 'forged');
  const { reference } = await writeImage(directory, { layers: [{}, {}] });
  const put = async (value: unknown) => {
    const text = JSON.stringify(value);
    const digest = `sha256:${createHash('sha256').update(text).digest('hex')}`;
    await writeFile(blobPath(directory, digest), text);
    return { digest, size: text.length };
  };
  const read = async (path: string) => JSON.parse(await readFile(path, 'utf8'));
  const index = await read(join(directory, 'index.json'));
  const manifest = await read(blobPath(directory, index.manifests[0].digest));
  const config = await read(blobPath(directory, manifest.config.digest));
  const nothing = `sha256:${createHash('sha256').digest('hex')}`;
  config.rootfs.diff_ids = config.rootfs.diff_ids.map(() => nothing);
  Object.assign(manifest.config, await put(config));
  Object.assign(index.manifests[0], await put(manifest));
  await writeFile(join(directory, 'index.json'), JSON.stringify(index));
  const words = ['--recipient', lab.key.uri, `--ca=${lab.registry.authority}`];
  await succeed(runClient([executable(), 'encrypt', reference, lab.registry.reference('forged:1'), ...words]));
}
