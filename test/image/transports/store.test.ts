// Places that images are in besides layouts, each against skopeo, and their names.

import assert from 'node:assert/strict';
import { readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { packTar } from 'modern-tar';
import type { ErrorCode } from '../../../src/base/errors.ts';
import { decryptImage } from '../../../src/image/decrypt.ts';
import { encryptImage } from '../../../src/image/encrypt.ts';
import { formatImageReference, parseImageReference } from '../../../src/image/model/reference.ts';
import { openImageSource, openImageStore } from '../../../src/image/transports/open.ts';
import { readImages, writeImage, writeIndex } from '../../fixtures/images.ts';
import { writeRsaKey } from '../../fixtures/keys.ts';
import { copy } from '../../real-clients/skopeo.ts';
import { realClients } from '../../real-clients/tools.ts';
import { rejects, scratch } from '../harness.ts';
import { jweKey, jweRecipient } from '../jwe-recipient.ts';

const DIGEST = `sha256:${'0123456789abcdef'.repeat(4)}`;

test('image names are taken as skopeo takes them', () => {
  const same = [
    'oci:dir',
    'oci:dir/sub:tag',
    'oci:/a/b:org/name.x:1.0'.replace(':1.0', ''),
    'oci-archive:a.tar:v1',
    'dir:/some/where',
    'docker-archive:x.tar:@0',
    'docker://example.com/a/b:1.0',
    'docker://localhost:5000/a:latest',
    'docker://[::1]:5000/a:latest',
    `docker://example.com/a@${DIGEST}`,
  ];
  for (const name of same) assert.equal(formatImageReference(parseImageReference(name)), name);
  assert.equal(
    formatImageReference(parseImageReference('docker://busybox')),
    'docker://docker.io/library/busybox:latest',
  );
  assert.equal(formatImageReference(parseImageReference('docker://a/b:c')), 'docker://docker.io/a/b:c');
  const wrong = [
    ...[
      '',
      'oci',
      'oci:',
      'busybox',
      './dir',
      'https://example.com/a',
      'docker:example.com/a',
      'docker://',
      'docker:///a',
    ],
    ...[
      'docker://example.com/',
      'docker://example.com/A',
      'docker://example.com/a:',
      `docker://example.com/a:b@${DIGEST}`,
    ],
    ...[
      'docker://example.com/a@sha256:12',
      'docker://example.com/../a',
      'docker://user@example.com/a',
      'oci:dir:..',
      'oci:a\0b',
    ],
    ...['docker://example.com/a?x', 'docker://example.com/a#x', 'docker://exa mple.com/a', 'containers-storage:a'],
  ];
  for (const name of wrong) {
    assert.throws(() => parseImageReference(name), { code: 'usage' }, name);
  }
});

test('an archive is encrypted in place, holds no plain layer afterwards, and skopeo reads it', async (t) => {
  if (!(await realClients(t, ['skopeo']))) return;
  const directory = await scratch(t);
  const keys = await writeRsaKey(directory, 'key');
  const made = await writeIndex(join(directory, 'plain'), [
    { platform: { os: 'linux', architecture: 'amd64' }, layers: [{}, { size: 3_000_000 }] },
    { platform: { os: 'linux', architecture: 'arm64' } },
  ]);
  const archive = `oci-archive:${join(directory, 'image.tar')}:v1`;
  assert.equal((await copy(made.reference, archive, { all: true })).exitCode, 0);
  const image = parseImageReference(archive);
  const source = openImageSource(image);
  t.after(() => source.close());
  const destination = openImageStore(image);
  t.after(() => destination.close());
  const encrypted = await encryptImage(source, destination, { recipients: [jweRecipient(keys.publicKey)] });
  assert.equal(encrypted.previousDigest, made.digest);
  const bytes = await readFile(join(directory, 'image.tar'));
  for (const { digest } of made.images.flatMap(({ layers }) => layers)) assert.ok(!bytes.includes(digest.slice(7)));
  const opened = await copy(archive, `oci:${join(directory, 'opened')}:latest`, {
    decryptionKeys: [keys.privateKey],
    all: true,
  });
  assert.equal(opened.exitCode, 0, opened.stderr);
  const digests = (await readImages(join(directory, 'opened'))).map(({ layers }) => layers.map(({ digest }) => digest));
  assert.deepEqual(
    digests,
    made.images.map(({ layers }) => layers.map(({ digest }) => digest)),
  );

  const again = openImageSource(image);
  t.after(() => again.close());
  const plain = openImageStore(parseImageReference(`oci-archive:${join(directory, 'plain.tar')}`));
  t.after(() => plain.close());
  const decrypted = await decryptImage(again, plain, { keys: jweKey(keys.privateKey) });
  assert.equal(decrypted.digest, made.digest);
  for (const store of [source, destination, again, plain]) await store.close();
  assert.deepEqual(
    (await readdir(directory)).filter((name) => name.startsWith('.')),
    [],
  );
});

test("skopeo's dir: images of OCI and of Docker are sources; Docker's become OCI", async (t) => {
  if (!(await realClients(t, ['skopeo']))) return;
  const directory = await scratch(t);
  const keys = await writeRsaKey(directory, 'key');
  const made = await writeImage(join(directory, 'plain'), { layers: [{}, { size: 10_000 }] });
  for (const format of ['oci', 'v2s2']) {
    const path = join(directory, format);
    assert.equal((await copy(made.reference, `dir:${path}`, { extra: ['--format', format] })).exitCode, 0);
    const source = openImageSource(parseImageReference(`dir:${path}`));
    const destination = openImageStore(parseImageReference(`oci:${path}-enc:latest`));
    await encryptImage(source, destination, { recipients: [jweRecipient(keys.publicKey)] });
    const opened = await copy(`oci:${path}-enc:latest`, `oci:${path}-dec:latest`, {
      decryptionKeys: [keys.privateKey],
    });
    assert.equal(opened.exitCode, 0, opened.stderr);
    const [image] = await readImages(`${path}-dec`);
    assert.deepEqual(
      image?.layers.map(({ digest }) => digest),
      made.images[0].layers.map(({ digest }) => digest),
    );
    assert.equal(image?.config.mediaType, 'application/vnd.oci.image.config.v1+json');
  }
  assert.throws(() => openImageStore(parseImageReference('dir:x')), { code: 'usage' });
});

test('archives of docker save are sources, by name or number', async (t) => {
  if (!(await realClients(t, ['skopeo']))) return;
  const directory = await scratch(t);
  const keys = await writeRsaKey(directory, 'key');
  const made = await writeImage(join(directory, 'plain'), { layers: [{}, { size: 100_000 }] });
  const archive = `docker-archive:${join(directory, 'saved.tar')}:example.com/app:v1`;
  assert.equal((await copy(made.reference, archive)).exitCode, 0);
  for (const name of [
    archive,
    archive.replace('example.com/app:v1', '@0'),
    archive.replace(':example.com/app:v1', ''),
  ]) {
    const source = openImageSource(parseImageReference(name));
    const destination = openImageStore(parseImageReference(`oci:${join(directory, 'enc')}:latest`));
    await encryptImage(source, destination, { recipients: [jweRecipient(keys.publicKey)] });
    await source.close();
    const plain = openImageStore(parseImageReference(`oci:${join(directory, 'dec')}:latest`));
    await decryptImage(destination, plain, { keys: jweKey(keys.privateKey), checkDiffIds: true });
    const [image] = await readImages(join(directory, 'dec'));
    assert.deepEqual(image?.diffIds, made.images[0].diffIds);
    // Nothing can compress a layer once it is encrypted.
    for (const { mediaType } of image?.layers ?? [])
      assert.equal(mediaType, 'application/vnd.oci.image.layer.v1.tar+gzip');
  }
  for (const other of ['example.com/app:v2', '@1']) {
    const source = openImageSource(parseImageReference(archive.replace('example.com/app:v1', other)));
    await rejects('not-found', source.readRoot());
    await source.close();
  }
});

test('archives that climb out, link out or are no archives are refused, and nothing stays behind', async (t) => {
  const directory = await scratch(t);
  const path = join(directory, 'a.tar');
  const layout = { header: { name: 'oci-layout', size: 2 }, body: '{}' };
  const empty = '{"schemaVersion":2,"manifests":[]}';
  const index = { header: { name: 'index.json', size: empty.length }, body: empty };
  const link = { name: 'index.json', size: 0, type: 'symlink', linkname: '/etc/passwd' } as const;
  const cases: readonly (readonly [ErrorCode, Uint8Array])[] = [
    ['bad-input', new TextEncoder().encode('no tar at all, but long enough '.repeat(40))],
    ['bad-input', await packTar([layout, index, index])],
    ['bad-input', new Uint8Array(1024)],
    ['not-found', await packTar([layout, index])],
    ['bad-input', await packTar([layout, { header: { ...index.header, name: '../index.json' }, body: empty }])],
    ['bad-input', await packTar([layout, { header: link }])],
  ];
  for (const [code, bytes] of cases) {
    await writeFile(path, bytes);
    const source = openImageSource(parseImageReference(`oci-archive:${path}`));
    await rejects(code, source.readRoot());
    await source.close();
  }
  await rm(path);
  await rejects('not-found', openImageSource(parseImageReference(`oci-archive:${path}`)).readRoot());
  assert.deepEqual(await readdir(directory), []);
});
