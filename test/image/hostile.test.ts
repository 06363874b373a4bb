// Images that somebody made to do harm: each ends in one clear error before anything is written.

import assert from 'node:assert/strict';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import fc from 'fast-check';
import type { ErrorCode } from '../../src/base/errors.ts';
import { OcicryptError } from '../../src/base/errors.ts';
import { decodeEncryption, encodeEncryption } from '../../src/image/model/annotations.ts';
import { decodePublicOptions } from '../../src/image/model/layer-options.ts';
import { MEDIA_TYPES, parseManifest } from '../../src/image/model/manifest.ts';
import { openLayout } from '../../src/image/transports/layout.ts';
import { absentEntriesOf, readImageTree } from '../../src/image/tree.ts';
import { verifyImage } from '../../src/image/verify.ts';
import { sample, seeded } from '../fixtures/seed.ts';
import { digestOf, rejects, scratch } from './harness.ts';

const OTHER = `sha256:${'a'.repeat(64)}`;
const LAYER = 'application/vnd.oci.image.layer.v1.tar+gzip';

test('manifests that are too large, of two kinds, or that name what cannot be are refused', async (t) => {
  const config = { mediaType: MEDIA_TYPES.config, digest: OTHER, size: 2 };
  const layer = { mediaType: LAYER, digest: OTHER, size: 2 };
  const manifest = { schemaVersion: 2, mediaType: MEDIA_TYPES.manifest, config, layers: [layer] };
  const bad = [
    { ...manifest, manifests: [] },
    { ...manifest, mediaType: MEDIA_TYPES.index },
    { ...manifest, schemaVersion: 1 },
    { ...manifest, layers: [{ ...layer, digest: 'sha256:../../../etc/passwd' }] },
    { ...manifest, layers: [{ ...layer, digest: `sha512:${'a'.repeat(128)}` }] },
    { ...manifest, layers: [{ ...layer, digest: `sha256:${'A'.repeat(64)}` }] },
    { ...manifest, layers: [{ ...layer, size: -1 }] },
    { ...manifest, layers: [{ ...layer, size: 1.5 }] },
    { ...manifest, layers: [{ ...layer, size: '2' }] },
    { ...manifest, layers: [{ ...layer, size: 1e300 }] },
    { ...manifest, layers: [{ ...layer, mediaType: 'x\r\ny/z' }] },
    { ...manifest, layers: [{ ...layer, annotations: { a: 1 } }] },
    { ...manifest, layers: Array.from({ length: 1001 }, () => layer) },
    { ...manifest, layers: 'none' },
    { ...manifest, config: null },
    { ...manifest, padding: 'x'.repeat(5 * 1024 * 1024) },
    [],
    'text',
  ];
  for (const document of bad) await rejects('bad-input', readImageTree(await layoutOf(t, document)));
});

test('an index that names itself, nests without end or lies about a size is refused', async (t) => {
  const self = {
    schemaVersion: 2,
    mediaType: MEDIA_TYPES.index,
    manifests: [{ mediaType: MEDIA_TYPES.index, digest: OTHER, size: 300 }],
  };
  const named = await layoutOf(t, self, { digest: OTHER });
  await rejects('integrity', readImageTree(named));
  await rejects('integrity', readImageTree(await layoutOf(t, self, { size: 1 })));
  // That it is not there is no fault of the index: it may be sparse.
  const missing = await layoutOf(t, self);
  assert.deepEqual(
    absentEntriesOf(await readImageTree(missing)).map(({ digest }) => digest),
    [OTHER],
  );
  assert.equal((await verifyImage(missing, { allowAbsent: true })).ok, false);

  const directory = await scratch(t);
  let inner: object = { schemaVersion: 2, mediaType: MEDIA_TYPES.index, manifests: [] };
  for (let depth = 0; depth < 6; depth++) {
    inner = {
      schemaVersion: 2,
      mediaType: MEDIA_TYPES.index,
      manifests: [await put(directory, inner, MEDIA_TYPES.index)],
    };
  }
  await rejects('bad-input', readImageTree(await layoutOf(t, inner, {}, directory)));
});

test('an image is refused where index.json says of what it names that it is of another type', async (t) => {
  // containers/image takes the type of a child from there, whatever its own index says.
  const directory = await scratch(t);
  const config = { mediaType: MEDIA_TYPES.config, digest: OTHER, size: 2 };
  const manifest = { schemaVersion: 2, config, layers: [] };
  const child = {
    ...(await put(directory, manifest, MEDIA_TYPES.manifest)),
    platform: { os: 'linux', architecture: 'x' },
  };
  const root = await put(directory, { schemaVersion: 2, manifests: [child] }, MEDIA_TYPES.index);
  const annotations = { 'org.opencontainers.image.ref.name': 'latest' };
  for (const [mediaType, readable] of [
    [MEDIA_TYPES.manifest, true],
    [MEDIA_TYPES.dockerManifest, false],
    ['application/x', false],
  ] as const) {
    const manifests = [
      { ...child, mediaType },
      { ...root, annotations },
    ];
    await writeFile(join(directory, 'index.json'), JSON.stringify({ schemaVersion: 2, manifests }));
    const tree = readImageTree(openLayout(directory, 'latest', 'oci:x'));
    if (readable) assert.equal((await tree).kind, 'index');
    else await rejects('bad-input', tree);
  }
});

test('junk in the annotations of an encrypted layer is refused within bounds', () => {
  const options = Buffer.from(
    `{"cipher":"AES_256_CTR_HMAC_SHA256","hmac":"${Buffer.alloc(32).toString('base64')}","cipheroptions":{}}`,
  );
  const good = encodeEncryption(options, [{ scheme: 'provider.x', packet: Buffer.from('{}') }]);
  assert.equal(decodeEncryption(good, 'layer').keys.length, 1);
  const keys = 'org.opencontainers.image.enc.keys.provider.x';
  const pubopts = 'org.opencontainers.image.enc.pubopts';
  const cases: readonly (readonly [string, string | undefined])[] = [
    [keys, undefined],
    [keys, ''],
    [keys, 'e30=,'],
    [keys, 'e30'],
    [keys, 'e30= '],
    [keys, '%%%%'],
    [keys, Array.from({ length: 10_000 }, () => 'e30=').join(',')],
    [keys, Buffer.alloc(1024 * 1024).toString('base64')],
    [pubopts, undefined],
    [pubopts, 'e30='],
    [pubopts, 'AAAA'.repeat(1_000_000)],
  ];
  for (const [name, value] of cases) {
    const annotations = new Map(good);
    if (value === undefined) annotations.delete(name);
    else annotations.set(name, value);
    assert.throws(
      () => decodeEncryption(annotations, 'layer'),
      { code: 'bad-input' },
      `${name} ${value?.slice(0, 20)}`,
    );
  }
  const withNonce = options.toString().replace('{}', '{"nonce":"AAAA"}');
  const otherCipher = options.toString().replace('AES_256', 'AES_128');
  const shortMac = options.toString().replace(/"hmac":"[^"]*"/, '"hmac":"AAAA"');
  const otherCase = withNonce.replace('cipheroptions', 'CipherOptions');
  for (const text of [withNonce, otherCase, otherCipher, shortMac]) {
    assert.throws(() => decodePublicOptions(Buffer.from(text), 'layer'), { code: 'bad-input' });
  }
});

test(seeded('no bytes make the parser do anything but parse or refuse'), () => {
  const json = fc.json({ maxDepth: 6 }).map((text) => Buffer.from(text));
  const type = fc.constantFrom(...Object.values(MEDIA_TYPES));
  fc.assert(
    fc.property(fc.oneof(json, fc.uint8Array()), type, (bytes, mediaType) => {
      try {
        parseManifest(bytes, mediaType, 'manifest');
      } catch (error) {
        const codes: readonly ErrorCode[] = ['bad-input'];
        assert.ok(error instanceof OcicryptError && codes.includes(error.code));
      }
    }),
    sample(2000),
  );
});

async function layoutOf(t: TestContext, document: unknown, lie: object = {}, directory?: string) {
  const path = directory ?? (await scratch(t));
  const mediaType =
    typeof document === 'object' && document !== null && 'config' in document
      ? MEDIA_TYPES.manifest
      : MEDIA_TYPES.index;
  const descriptor = { ...(await put(path, document, mediaType)), ...lie };
  if ('digest' in lie) await put(path, document, mediaType, OTHER);
  await writeFile(join(path, 'index.json'), JSON.stringify({ schemaVersion: 2, manifests: [descriptor] }));
  return openLayout(path, undefined, `oci:${path}`);
}

async function put(directory: string, document: unknown, mediaType: string, as?: string) {
  const bytes = Buffer.from(JSON.stringify(document));
  const digest = as ?? digestOf(bytes);
  await mkdir(join(directory, 'blobs/sha256'), { recursive: true });
  await writeFile(join(directory, 'blobs/sha256', digest.slice('sha256:'.length)), bytes);
  return { mediaType, digest, size: bytes.length };
}
