// An image of which one byte was changed, anywhere: it is refused before its output is there, and no error holds a MAC.

import assert from 'node:assert/strict';
import { cp, mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import fc from 'fast-check';
import { OcicryptError } from '../../src/base/errors.ts';
import { decryptImage } from '../../src/image/decrypt.ts';
import { encryptImage } from '../../src/image/encrypt.ts';
import { openLayout } from '../../src/image/transports/layout.ts';
import { blobPath, type Image, readImages, writeIndex } from '../fixtures/images.ts';
import { sample, seeded } from '../fixtures/seed.ts';
import { digestOf, scratch } from './harness.ts';
import { packetKeys, v2Recipient } from './packet-recipients.ts';

const A = 'gcpkms://projects/p/locations/global/keyRings/r/cryptoKeys/a';
const PREFIX = 'org.opencontainers.image.enc.';
const ALPHABET = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=,';

test(seeded('any byte of a layer, a manifest or an index'), async (t) => {
  const { directory, images, refused } = await prepare(t);
  const index: { readonly manifests: readonly { readonly digest: string }[] } = JSON.parse(
    await readFile(join(directory, 'enc/index.json'), 'utf8'),
  );
  const digests = [
    ...index.manifests.map(({ digest }) => digest),
    ...images.flatMap(({ digest, config, layers }) => [digest, config.digest, ...layers.map((layer) => layer.digest)]),
  ];
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom(...digests),
      fc.nat(),
      fc.integer({ min: 1, max: 255 }),
      async (digest, at, change) => {
        const path = blobPath(join(directory, 'enc'), digest);
        const before = await readFile(path);
        const changed = Buffer.from(before);
        changed[at % changed.length] = (changed[at % changed.length] ?? 0) ^ change;
        await writeFile(path, changed);
        try {
          await refused('enc', ['integrity']);
        } finally {
          await writeFile(path, before);
        }
      },
    ),
    sample(60),
  );
});

test(seeded('any character of an annotation, in a manifest whose digest is right'), async (t) => {
  const { directory, images, refused } = await prepare(t);
  const [image] = images;
  assert.ok(image);
  const text = await readFile(blobPath(join(directory, 'enc'), image.digest), 'utf8');
  const targets = image.layers.flatMap(({ annotations = {} }, layer) =>
    Object.keys(annotations).flatMap((name) => (name.startsWith(PREFIX) ? [{ layer, name }] : [])),
  );
  await fc.assert(
    fc.asyncProperty(fc.constantFrom(...targets), fc.nat(), fc.nat(), async ({ layer, name }, at, choice) => {
      const manifest = JSON.parse(text);
      const { annotations } = manifest.layers[layer];
      const value: string = annotations[name];
      const position = at % value.length;
      const others = ALPHABET.replace(value[position] ?? '', '');
      annotations[name] = `${value.slice(0, position)}${others[choice % others.length]}${value.slice(position + 1)}`;
      // A line break after the public options makes no others of them.
      fc.pre(Buffer.from(annotations[name], 'base64').toString().trim() !== Buffer.from(value, 'base64').toString());
      await replaceManifest(directory, JSON.stringify(manifest));
      await refused('changed', ['integrity', 'bad-input']);
    }),
    sample(60),
  );
});

async function prepare(t: TestContext) {
  const directory = await scratch(t);
  const made = await writeIndex(join(directory, 'plain'), [{ layers: [{ size: 2000 }, { size: 10 }] }]);
  const source = openLayout(made.directory, 'latest', made.reference);
  await encryptImage(source, openLayout(join(directory, 'enc'), 'latest', 'oci:enc'), {
    recipients: [v2Recipient([A])],
  });
  const images: readonly Image[] = await readImages(join(directory, 'enc'));
  const macs = images.flatMap(({ layers }) =>
    layers.map(({ annotations }) => {
      const options = JSON.parse(Buffer.from(annotations?.[`${PREFIX}pubopts`] ?? '', 'base64').toString());
      return Buffer.from(options.hmac, 'base64');
    }),
  );
  const refused = async (name: string, codes: readonly string[]) => {
    await rm(join(directory, 'back'), { recursive: true, force: true });
    const back = openLayout(join(directory, 'back'), 'latest', 'oci:back');
    const error = await decryptImage(openLayout(join(directory, name), 'latest', name), back, {
      keys: packetKeys([A]),
    }).then(
      () => assert.fail('was decrypted'),
      (reason: unknown) => reason,
    );
    await back.close();
    assert.ok(error instanceof OcicryptError && codes.includes(error.code), String(error));
    for (const mac of macs) {
      for (const spelling of ['hex', 'base64', 'base64url'] as const) {
        assert.ok(!`${error.stack}${error.hint}`.includes(mac.toString(spelling)));
      }
    }
    await assert.rejects(readFile(join(directory, 'back/index.json')), { code: 'ENOENT' });
  };
  return { directory, images, refused };
}

/** A layout `changed` whose only image is another manifest over the same blobs. */
async function replaceManifest(directory: string, text: string): Promise<void> {
  const to = join(directory, 'changed');
  await rm(to, { recursive: true, force: true });
  await mkdir(to);
  await cp(join(directory, 'enc'), to, { recursive: true });
  const digest = digestOf(Buffer.from(text));
  await writeFile(blobPath(to, digest), text);
  const mediaType = 'application/vnd.oci.image.manifest.v1+json';
  const annotations = { 'org.opencontainers.image.ref.name': 'latest' };
  const manifests = [{ mediaType, digest, size: Buffer.byteLength(text), annotations }];
  await writeFile(join(to, 'index.json'), JSON.stringify({ schemaVersion: 2, manifests }));
}
