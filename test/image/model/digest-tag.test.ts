// The tag that is made of a digest: written last, never moved, and never believed.

import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { encryptImage } from '../../../src/image/encrypt.ts';
import { formatDigestTag, parseDigestTag } from '../../../src/image/model/digest-tag.ts';
import { parseImageReference } from '../../../src/image/model/reference.ts';
import { replaceKeys, rewrapImage } from '../../../src/image/rewrap.ts';
import { fixedNames, RUNTIMES } from '../../../src/image/runtimes.ts';
import { openLayout } from '../../../src/image/transports/layout.ts';
import { openImageStore } from '../../../src/image/transports/open.ts';
import { verifyImage } from '../../../src/image/verify.ts';
import { rejects } from '../harness.ts';
import { packetKeys, v2Recipient } from '../packet-recipients.ts';
import { end, setUpRegistry } from '../transports/registry/harness.ts';

const A = 'gcpkms://projects/p/locations/global/keyRings/r/cryptoKeys/a';
const DIGEST = `sha256:${'0123456789abcdef'.repeat(4)}`;

/** A registry, and an image that was encrypted into it as `app:1` with its digest tag. */
async function encrypted(t: TestContext) {
  const world = await setUpRegistry(t);
  const plain = openLayout(world.made.directory, 'latest', 'oci:plain');
  const write = (name: string, settings: object = { digestTag: true }) =>
    encryptImage(plain, world.open(name, settings), { recipients: [v2Recipient([A])] });
  const { digest } = await write('app:1');
  const paths = () => world.fake.requests.filter(({ method }) => method === 'PUT').map(({ path }) => path);
  return { ...world, write, digest, paths };
}

test('a digest tag is a tag, says its digest, and is no tag of a signature scheme', () => {
  const tag = formatDigestTag(DIGEST);
  const image = parseImageReference(`docker://registry.example/app:${tag}`);
  assert.ok(image.transport === 'docker' && image.tag === tag);
  assert.equal(parseDigestTag(tag), DIGEST);
  assert.ok(!tag.includes('sha256'));
  for (const other of [
    undefined,
    '',
    '1',
    DIGEST,
    `sha256-${DIGEST.slice(7)}`,
    `${tag}.sig`,
    tag.toUpperCase(),
    tag.slice(1),
  ])
    assert.equal(parseDigestTag(other), undefined, other);
});

test('encrypt and rewrap write the digest tag last, and it stands for the very bytes', async (t) => {
  const { open, digest, paths } = await encrypted(t);
  assert.deepEqual(paths().slice(-2), ['/v2/app/manifests/1', `/v2/app/manifests/${formatDigestTag(digest)}`]);
  assert.equal((await open(`app:${formatDigestTag(digest)}`).readRoot()).digest, digest);

  const change = replaceKeys(packetKeys([A]), [v2Recipient([A])]);
  const dry = await rewrapImage(open('app:1', { digestTag: true }), { keys: change, dryRun: true });
  assert.ok(!paths().some((path) => path.endsWith(formatDigestTag(dry.digest))));
  const rewrapped = await rewrapImage(open('app:1', { digestTag: true }), { keys: change });
  assert.deepEqual(paths().slice(-2), [
    '/v2/app/manifests/1',
    `/v2/app/manifests/${formatDigestTag(rewrapped.digest)}`,
  ]);
  // The old one stays where it was.
  assert.equal((await open(`app:${formatDigestTag(digest)}`).readRoot()).digest, digest);

  const before = paths().length;
  const same = await open('app:1').readRoot();
  await open('app:1', { digestTag: true }).writeRoot(same);
  assert.deepEqual(paths().slice(before), ['/v2/app/manifests/1'], 'one that is there is not written again');
});

test('a digest tag that stands for another image is an error before anything else is written', async (t) => {
  const { open, write, digest, paths, fake } = await encrypted(t);
  const other = await write('app:2', {});
  const [first, second] = [await open('app:1').readRoot(), await open('app:2').readRoot()];
  const moved = open(`app:${formatDigestTag(digest)}`);
  await rejects('usage', moved.writeRoot(second));
  // Whoever may write to the registry may move a tag.
  fake.fault = ({ method }, response, path) =>
    method === 'GET' &&
    path.endsWith(formatDigestTag(digest)) &&
    end(response, 200, { 'content-type': second.mediaType }, new TextDecoder().decode(second.bytes));
  const before = paths().length;
  await rejects('integrity', open('app:3', { digestTag: true }).writeRoot(first));
  assert.equal(paths().length, before);
  await rejects('not-found', open('app:3').readRoot());

  // Nor is it believed when it is read.
  await rejects('integrity', moved.readRoot());
  const verified = await verifyImage(open('app:1'), { digestTag: true });
  assert.deepEqual([verified.ok, verified.digestTag, verified.reasons.length], [false, 'moved', 1]);
  assert.ok(verified.reasons[0]?.message.includes(other.digest));
});

test('a digest tag that cannot be written is said to be missing from an image that was written', async (t) => {
  const { open, fake, digest, write } = await encrypted(t);
  fake.fault = ({ method }, response, path) =>
    method === 'PUT' && path.includes('/manifests/digest-') && end(response, 403);
  await assert.rejects(write('app:1'), (error: Error) => {
    assert.match(error.message, /app:1 was written, but not its digest tag/);
    assert.match(String(Reflect.get(error, 'hint')), /^run skopeo copy .*@sha256:[0-9a-f]{64} docker:.*:digest-/);
    assert.equal(Reflect.get(error, 'code'), 'refused');
    return true;
  });
  const now = await open('app:1').readRoot();
  assert.notEqual(now.digest, digest);
  const { ok, digestTag, reasons } = await verifyImage(open('app:1'), { digestTag: true });
  const reason = { code: 'digest-tag', message: `it has no tag ${formatDigestTag(now.digest)}` };
  assert.deepEqual([ok, digestTag, reasons], [false, 'missing', [reason]]);
});

test('verify asks for the digest tag only if it is told to', async (t) => {
  const { open, fake, digest } = await encrypted(t);
  const { ok, digestTag } = await verifyImage(open('app:1'), { digestTag: true });
  assert.deepEqual([ok, digestTag], [true, 'ok']);
  fake.requests.length = 0;
  assert.equal((await verifyImage(open('app:1'))).digestTag, undefined);
  assert.ok(!fake.requests.some(({ path }) => path.endsWith(formatDigestTag(digest))));
});

test('places without registries have no digest tags, and say so', async (t) => {
  const { made } = await setUpRegistry(t);
  for (const name of [`oci:${made.directory}:latest`, 'oci-archive:app.tar:1']) {
    assert.throws(() => openImageStore(parseImageReference(name), { digestTag: true }), { code: 'usage' });
    const place = openImageStore(parseImageReference(name));
    t.after(() => place.close());
    await rejects('usage', verifyImage(place, { digestTag: true }));
  }
});

test('a fixed name is said with the runtimes that decrypt by it', () => {
  const image = parseImageReference('docker://registry.example/team/app:1');
  assert.ok(image.transport === 'docker');
  const [byTag, byDigest, ...none] = fixedNames(image, DIGEST, true);
  assert.deepEqual(none, []);
  assert.equal(byTag?.name, `registry.example/team/app:${formatDigestTag(DIGEST)}`);
  assert.deepEqual([byTag.runtimes, byTag.refusing], [RUNTIMES, []]);
  assert.equal(byDigest?.name, `registry.example/team/app@${DIGEST}`);
  assert.deepEqual([byDigest.runtimes, byDigest.refusing], [['containerd'], ['podman', 'buildah', 'CRI-O']]);
  assert.deepEqual(fixedNames(image, DIGEST, false), [byDigest]);
  const byItsTag = parseImageReference(`docker://registry.example/team/app:${formatDigestTag(DIGEST)}`);
  assert.ok(byItsTag.transport === 'docker');
  assert.equal(fixedNames(byItsTag, DIGEST, false).length, 2);
});
