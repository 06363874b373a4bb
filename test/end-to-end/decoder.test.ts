// `ocicrypt-kms decoder` as containerd starts it: the layer on standard input, the payload on descriptor 3.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { blobPath, type Compression, type Descriptor, type Image, writeImage } from '../fixtures/images.ts';
import { decoderPayload } from '../real-clients/ctd-decoder.ts';
import { runClient } from '../real-clients/process.ts';
import { createImageWorkspace, type ImageWorkspace } from './image-workspace.ts';
import { executable, readImage } from './workspace.ts';

const cleanups: (() => unknown)[] = [];
after(async () => {
  for (const cleanup of cleanups.reverse()) await cleanup();
});
const t = { after: (cleanup: () => unknown) => void cleanups.push(cleanup) };
let workspace: ImageWorkspace;
/** More than is held back until the HMAC is right. */
const SIZE = 3 * 1024 * 1024;
const COMPRESSIONS: readonly Compression[] = ['none', 'gzip', 'zstd'];

before(async () => {
  workspace = await createImageWorkspace(t);
});

async function encrypt(
  name: string,
  layers: Parameters<typeof writeImage>[1],
): Promise<{ image: Image; plain: Image }> {
  const { images, reference } = await writeImage(workspace.path(`${name}-plain`), layers);
  await workspace.ours('encrypt', reference, workspace.oci(name), '--recipient', workspace.key.uri);
  return { image: await readImage(workspace.path(name)), plain: images[0] };
}

function decode(name: string, descriptor: Descriptor, ...words: readonly string[]) {
  return runClient([executable(), 'decoder', ...words], {
    stdin: createReadStream(blobPath(workspace.path(name), descriptor.digest)),
    descriptor3: decoderPayload(descriptor, null),
    env: { STREAM_PROCESSOR_MEDIATYPE: descriptor.mediaType },
    cwd: '/',
  });
}

describe('with a payload', () => {
  test('layers of every compression and size come out as their plain tar', async () => {
    const layers = COMPRESSIONS.flatMap((compression) => [{ compression }, { compression, size: SIZE }]);
    const { image, plain } = await encrypt('all', { layers });
    for (const [index, layer] of image.layers.entries()) {
      const { exitCode, stdout, stderr } = await decode('all', layer, `--key=${workspace.key.file}`);
      assert.deepEqual([exitCode, stderr], [0, '']);
      assert.equal(
        `sha256:${createHash('sha256').update(stdout).digest('hex')}`,
        plain.diffIds[index],
        layer.mediaType,
      );
    }
  });

  test('a key that is not allowed is named, and nothing comes out', async () => {
    const { image } = await encrypt('refused', { layers: [{ size: SIZE }] });
    const [layer] = image.layers;
    assert.ok(layer);
    const refused = await decode('refused', layer);
    assert.deepEqual([refused.exitCode, refused.stdout.length], [77, 0]);
    assert.ok(
      refused.stderr.startsWith('ocicrypt-kms: not-allowed: ') && refused.stderr.includes(workspace.key.thumbprint),
    );
  });
});
