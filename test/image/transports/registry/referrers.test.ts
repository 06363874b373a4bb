// What signed or described the old image is named, and no registry's answer to that question ends a command.

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { encryptImage } from '../../../../src/image/encrypt.ts';
import { MEDIA_TYPES } from '../../../../src/image/model/manifest.ts';
import { replaceKeys, rewrapImage } from '../../../../src/image/rewrap.ts';
import { openLayout } from '../../../../src/image/transports/layout.ts';
import { createStoredManifest, type ImageStore } from '../../../../src/image/transports/store.ts';
import { writeIndex } from '../../../fixtures/images.ts';
import { packetKeys, v2Recipient } from '../../packet-recipients.ts';
import { end, setUpRegistry } from './harness.ts';

const A = 'gcpkms://projects/p/locations/global/keyRings/r/cryptoKeys/a';
const SBOM = 'application/spdx+json';
const tagOf = (digest: string) => digest.replace(':', '-');
const dryRun = (store: ImageStore) =>
  rewrapImage(store, { keys: replaceKeys(packetKeys([A]), [v2Recipient([A])]), dryRun: true });

test('those of the index and of each platform, from the API and by tag', async (t) => {
  const { fake, open, directory } = await setUpRegistry(t, { layers: [{}] });
  const made = await writeIndex(join(directory, 'index'), [
    { platform: { os: 'linux', architecture: 'amd64' } },
    { platform: { os: 'linux', architecture: 'arm64' }, seed: 'b' },
  ]);
  const first = await encryptImage(openLayout(made.directory, 'latest', 'oci:plain'), open('app:enc'), {
    recipients: [v2Recipient([A])],
  });
  assert.deepEqual([first.referrers, first.referrersComplete], [[], true]);
  const platform = first.images[1]?.digest ?? '';
  await open(`app:${tagOf(platform)}.sig`).writeRoot(manifestOf({}));
  const listed = indexOf([manifestOf({}).digest]);
  fake.fault = (_, response, path) =>
    path.includes('/referrers/') && end(response, 200, {}, path.endsWith(first.digest) ? listed : indexOf([]));
  fake.requests.splice(0);
  const { referrers, referrersComplete } = await dryRun(open('app:enc'));
  assert.deepEqual(referrers, [`${SBOM} ${manifestOf({}).digest}`, `${fake.host}/app:${tagOf(platform)}.sig`]);
  assert.equal(referrersComplete, true);
  // For each of three digests the API and three tags.
  assert.equal(fake.requests.filter(({ method }) => method === 'HEAD').length, 9);
  assert.equal(fake.requests.filter(({ path }) => path.includes('/referrers/')).length, 3);
  // A text of any length would be shown, and kept for each digest.
  const flood = listed.replace(SBOM, 'x'.repeat(1_000_000));
  fake.fault = (_, response, path) => path.endsWith(`/referrers/${first.digest}`) && end(response, 200, {}, flood);
  assert.equal((await dryRun(open('app:enc'))).referrers[0], `referrer ${manifestOf({}).digest}`);
});

test('by the tag of registries without the API: what names the image as its subject, and not the image itself', async (t) => {
  const { fake, made, open } = await setUpRegistry(t, { layers: [{}] });
  const { digest } = await encryptImage(openLayout(made.directory, 'latest', 'oci:plain'), open('app:enc'), {
    recipients: [v2Recipient([A])],
  });
  const right = manifestOf({ subject: { mediaType: MEDIA_TYPES.manifest, digest, size: 1 } });
  const wrong = manifestOf({
    subject: { mediaType: MEDIA_TYPES.manifest, digest: `sha256:${'0'.repeat(64)}`, size: 1 },
  });
  for (const one of [right, wrong, manifestOf({})]) await open('app:any').writeManifest(one);
  const entries = [right, wrong, manifestOf({}), { digest: `sha256:${'1'.repeat(64)}` }].map((one) => one.digest);
  await open(`app:${tagOf(digest)}`).writeRoot(
    createStoredManifest(new TextEncoder().encode(indexOf(entries)), MEDIA_TYPES.index),
  );
  for (const status of [400, 404, 405, 501]) {
    fake.fault = (_, response, path) => path.includes('/referrers/') && end(response, status);
    assert.deepEqual((await dryRun(open('app:enc'))).referrers, [`${SBOM} ${right.digest}`]);
  }
  // As GitLab does.
  const image = await open('app:enc').readRoot();
  await open(`app:${tagOf(digest)}`).writeRoot(image);
  const { referrers, referrersComplete } = await dryRun(open('app:enc'));
  assert.deepEqual([referrers, referrersComplete], [[], true]);
});

test('whatever is answered, the command goes on, asks once and says that it was not told', async (t) => {
  const { fake, made, open } = await setUpRegistry(t, { layers: [{}] });
  const { digest } = await encryptImage(openLayout(made.directory, 'latest', 'oci:plain'), open('app:enc'), {
    recipients: [v2Recipient([A])],
  });
  const isOptional = (path: string) => path.includes('/referrers/') || path.includes(`/manifests/${tagOf(digest)}`);
  for (const status of [401, 403, 418, 429, 500, 503]) {
    fake.fault = (_, response, path) => isOptional(path) && end(response, status, { 'retry-after': '20' });
    fake.requests.splice(0);
    const { referrers, referrersComplete } = await dryRun(open('app:enc'));
    assert.deepEqual([referrers, referrersComplete], [[], false], `${status}`);
    assert.ok(fake.requests.filter(({ path }) => isOptional(path)).length <= 5);
  }
  for (const body of ['', '{}', '[', 'x'.repeat(5 * 1024 * 1024), indexOf(['sha256:short'])]) {
    fake.fault = (_, response, path) => isOptional(path) && end(response, 200, {}, body);
    await dryRun(open('app:enc'));
  }
  fake.fault = (request, _, path) => isOptional(path) && request.socket.destroy() !== undefined;
  assert.equal((await dryRun(open('app:enc'))).referrersComplete, false);
  // The user's own signal does end it.
  const ended = new AbortController();
  fake.fault = (_, __, path) => {
    if (isOptional(path)) ended.abort(new Error('by the user'));
    return false;
  };
  const keys = replaceKeys(packetKeys([A]), [v2Recipient([A])]);
  await assert.rejects(rewrapImage(open('app:enc'), { keys, dryRun: true, signal: ended.signal }), /by the user/);
});

function manifestOf(members: object) {
  const descriptor = { mediaType: 'application/vnd.oci.empty.v1+json', digest: `sha256:${'2'.repeat(64)}`, size: 2 };
  const manifest = { schemaVersion: 2, mediaType: MEDIA_TYPES.manifest, config: descriptor, layers: [], ...members };
  return createStoredManifest(new TextEncoder().encode(JSON.stringify(manifest)), MEDIA_TYPES.manifest);
}

function indexOf(digests: readonly string[]): string {
  const manifests = digests.map((digest) => ({ mediaType: MEDIA_TYPES.manifest, digest, size: 1, artifactType: SBOM }));
  return JSON.stringify({ schemaVersion: 2, mediaType: MEDIA_TYPES.index, manifests });
}
