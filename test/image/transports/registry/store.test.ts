// Images in a real registry over TLS, and what happens when a registry misbehaves.

import assert from 'node:assert/strict';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { decryptImage } from '../../../../src/image/decrypt.ts';
import { encryptImage } from '../../../../src/image/encrypt.ts';
import { parseImageReference } from '../../../../src/image/model/reference.ts';
import { openLayout } from '../../../../src/image/transports/layout.ts';
import type { RegistrySettings } from '../../../../src/image/transports/registry/client.ts';
import { openRegistry } from '../../../../src/image/transports/registry/store.ts';
import { readImages, writeIndex } from '../../../fixtures/images.ts';
import { writeRsaKey } from '../../../fixtures/keys.ts';
import { startRegistry } from '../../../real-clients/registry.ts';
import { copy } from '../../../real-clients/skopeo.ts';
import { realClients } from '../../../real-clients/tools.ts';
import { rejects, scratch } from '../../harness.ts';
import { jweKey, jweRecipient } from '../../jwe-recipient.ts';

const MIB = 1024 * 1024;

test('an image goes encrypted to a registry with a password, and comes back, by us and by skopeo', async (t) => {
  if (!(await realClients(t, ['skopeo', 'docker-registry']))) return;
  const directory = await scratch(t);
  const credentials = { username: 'somebody', password: 'pass:word' };
  const registry = await startRegistry({ credentials });
  t.after(() => registry.stop());
  const keys = await writeRsaKey(directory, 'key');
  const auth = Buffer.from(`${credentials.username}:${credentials.password}`).toString('base64');
  const authFile = await writeAuthFile(directory, { auths: { [registry.host]: { auth } } });
  const settings = { caFiles: [registry.authority], authFile };
  const made = await writeIndex(join(directory, 'plain'), [
    { platform: { os: 'linux', architecture: 'amd64' }, layers: [{}, { size: 20 * MIB }, { size: 0 }] },
    { platform: { os: 'linux', architecture: 'arm64' }, layers: [{ seed: 'b', size: 3 * MIB }] },
  ]);
  const plain = openLayout(made.directory, 'latest', made.reference);
  const encrypted = await encryptImage(plain, open(t, registry.reference('team/app:enc'), settings), {
    recipients: [jweRecipient(keys.publicKey)],
  });
  const back = openLayout(join(directory, 'back'), 'latest', 'oci:back');
  const byDigest = open(t, registry.reference(`team/app@${encrypted.digest}`), settings);
  const decrypted = await decryptImage(byDigest, back, { keys: jweKey(keys.privateKey), checkDiffIds: true });
  assert.equal(decrypted.digest, made.digest);

  const skopeoBack = await copy(registry.reference('team/app:enc'), `oci:${join(directory, 'skopeo')}:latest`, {
    decryptionKeys: [keys.privateKey],
    all: true,
    registry,
  });
  assert.equal(skopeoBack.exitCode, 0, skopeoBack.stderr);
  const digests = (await readImages(join(directory, 'skopeo'))).map(({ layers }) => layers.map(({ digest }) => digest));
  assert.deepEqual(
    digests,
    made.images.map(({ layers }) => layers.map(({ digest }) => digest)),
  );

  const inRegistry = open(t, registry.reference('team/app:dec'), settings);
  await decryptImage(open(t, registry.reference('team/app:enc'), settings), inRegistry, {
    keys: jweKey(keys.privateKey),
  });
  assert.equal((await inRegistry.readRoot()).digest, made.digest);

  const withoutAuth = { caFiles: [registry.authority], authFile: await writeAuthFile(directory, {}) };
  await rejects('unauthenticated', open(t, registry.reference('team/app:enc'), withoutAuth).readRoot());
  const lookAlike = await writeAuthFile(directory, {
    auths: { [`${registry.host}0`]: { auth }, '127.0.0.1': { auth } },
  });
  await rejects(
    'unauthenticated',
    open(t, registry.reference('team/app:enc'), { ...settings, authFile: lookAlike }).readRoot(),
  );
  const wrong = Buffer.from('somebody:else').toString('base64');
  const wrongFile = await writeAuthFile(directory, { auths: { [registry.host]: { auth: wrong } } });
  await rejects(
    'unauthenticated',
    open(t, registry.reference('team/app:enc'), { ...settings, authFile: wrongFile }).readRoot(),
  );
  await rejects('not-found', open(t, registry.reference('team/other'), settings).readRoot());
  await rejects('unavailable', open(t, registry.reference('team/app:enc'), { authFile }).readRoot());
});

function open(t: TestContext, reference: string, settings: RegistrySettings) {
  const image = parseImageReference(reference);
  assert.ok(image.transport === 'docker');
  const store = openRegistry(image, settings);
  t.after(() => store.close());
  return store;
}

let files = 0;

async function writeAuthFile(directory: string, content: object): Promise<string> {
  await mkdir(join(directory, 'auth'), { recursive: true });
  const file = join(directory, 'auth', `${files++}.json`);
  await writeFile(file, JSON.stringify(content));
  return file;
}
