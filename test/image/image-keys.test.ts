// The library for the common case: the same promises as its parts, from keys as people write them.

import assert from 'node:assert/strict';
import { generateKeyPairSync } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { createKeyfile, openImageKeys } from '../../src/index.ts';
import { isCode } from '../fixtures/codes.ts';
import { readImages, writeImage } from '../fixtures/images.ts';

const directory = mkdtempSync(join(tmpdir(), 'image-keys-'));
after(() => rmSync(directory, { recursive: true, force: true }));
const path = (name: string) => join(directory, name);
const oci = (name: string) => `oci:${path(name)}:latest`;
/** A path that no URI can hold. */
const FILE = path('my, key');
const [first, second] = [createKeyfile(FILE), createKeyfile(path('second.key'))];
const plain = await writeImage(path('plain'));
const options = { environment: {} };

test('an image is encrypted to the keys that were opened, verified and decrypted; nothing else opens it', async () => {
  const keys = await openImageKeys([FILE], options);
  const { digest, previousDigest } = await keys.encrypt(oci('plain'), oci('encrypted'));
  assert.equal(previousDigest, plain.digest);
  const verified = await keys.verify(oci('encrypted'), { require: [first], only: [first], content: true });
  assert.deepEqual([verified.ok, verified.report.digest, verified.notProved], [true, digest, []]);
  const { platforms } = await keys.inspect(oci('encrypted'));
  assert.equal(platforms[0]?.layers[0]?.keys[0]?.recipients[0]?.key, first);
  await keys.decrypt(oci('encrypted'), oci('opened'));
  assert.equal((await readImages(path('opened')))[0]?.digest, plain.digest);
  await keys.close();

  const others = await openImageKeys([path('second.key')], options);
  await assert.rejects(others.decrypt(oci('encrypted'), oci('stolen')), isCode('not-allowed'));
  await others.close();
});

test('an image that is not as it should be does not verify, whatever it lacks', async () => {
  const keys = await openImageKeys([FILE], options);
  await keys.encrypt(oci('plain'), oci('judged'));
  for (const [image, wanted] of [
    [oci('plain'), {}],
    [oci('judged'), { require: [second] }],
    [oci('judged'), { require: [`keyfile://${path('second.key')}`] }],
    [oci('judged'), { only: [second] }],
    [oci('judged'), { require: [first], digestTag: false, postQuantum: true, only: [second, first], unwrap: true }],
  ] as const) {
    const verified = keys.verify(image, wanted);
    if (wanted === undefined || !('unwrap' in wanted)) await assert.rejects(verified, isCode('integrity'));
    else assert.equal((await verified).proven, true);
  }
  const strangers = await openImageKeys([], options);
  await assert.rejects(strangers.verify(oci('judged'), { unwrap: true }), isCode('integrity'), 'nothing opens it');
  assert.equal((await strangers.verify(oci('judged'))).proven, false);
  await Promise.all([keys.close(), strangers.close()]);
});

test('recipients change in place, and keep the labels; one change at a time', async () => {
  const keys = await openImageKeys([FILE, path('second.key')], { ...options, labels: { env: 'prod' } });
  await keys.encrypt(oci('plain'), oci('changed'), { recipients: [first] });
  const added = await keys.rewrap(oci('changed'), { add: [second] });
  assert.equal(added.layers[0]?.after.length, 2);
  await keys.verify(oci('changed'), { require: [first, second], unwrap: true });
  const dry = await keys.rewrap(oci('changed'), { remove: [first], dryRun: true });
  assert.equal(dry.written, false);
  const removed = await keys.rewrap(oci('changed'), { remove: [first] });
  assert.deepEqual(
    removed.layers.flatMap(({ after: packets }) => packets.map(({ labels }) => ({ ...labels }))),
    [{ env: 'prod' }],
  );
  await keys.verify(oci('changed'), { only: [second] });
  for (const change of [{}, { add: [first], remove: [second] }])
    await assert.rejects(keys.rewrap(oci('changed'), change), isCode('usage'));
  await keys.close();

  const unlabelled = await openImageKeys([path('second.key')], { ...options, labels: { env: 'test' } });
  await assert.rejects(unlabelled.decrypt(oci('changed'), oci('mislabelled')), isCode('not-allowed'));
  await unlabelled.close();
});

test('keys that only open say so, and recipients can be named', async () => {
  const { privateKey, publicKey } = generateKeyPairSync('rsa', {
    modulusLength: 2048,
    publicKeyEncoding: { type: 'spki', format: 'pem' },
    privateKeyEncoding: { type: 'pkcs8', format: 'pem' },
  });
  writeFileSync(path('private.pem'), privateKey, { mode: 0o600 });
  writeFileSync(path('public.pem'), publicKey);
  for (const held of [[], [path('private.pem')], [path('private.pem'), FILE], ['provider:other']]) {
    const keys = await openImageKeys(held, options);
    await assert.rejects(keys.encrypt(oci('plain'), oci('nowhere')), isCode('usage'), held.join());
  }
  const keys = await openImageKeys([path('private.pem')], options);
  await keys.encrypt(oci('plain'), oci('jwe'), { recipients: [`jwe:${path('public.pem')}`] });
  await keys.decrypt(oci('jwe'), oci('jwe'));
  assert.equal((await readImages(path('jwe')))[0]?.digest, plain.digest, 'in place');
  await keys.close();
});

test('what fails leaves what was there, and so does a signal', async () => {
  const keys = await openImageKeys([FILE], options);
  await keys.encrypt(oci('plain'), oci('kept'));
  const before = readFileSync(path('kept/index.json'), 'utf8');
  const reason = new Error('enough');
  const signal = AbortSignal.abort(reason);
  await assert.rejects(keys.decrypt(oci('kept'), oci('kept'), { signal }), reason);
  await assert.rejects(
    keys.encrypt(oci('plain'), oci('kept'), { recipients: ['keyfile:///nowhere'] }),
    isCode('not-found'),
  );
  assert.equal(readFileSync(path('kept/index.json'), 'utf8'), before);
  await assert.rejects(openImageKeys(['gcpkms://projects'], options), isCode('bad-input'));
  await assert.rejects(keys.encrypt(oci('plain'), `docker://localhost:1/a@sha256:${'a'.repeat(64)}`), isCode('usage'));
  await keys.close();
});

test('no key is released without its audit line', async () => {
  const lines: string[] = [];
  const audit = {
    record: async ({ operation, outcome }: { operation: string; outcome: string }) => {
      lines.push(`${operation} ${outcome}`);
      if (lines.length > 1) throw new Error('disk full');
    },
  };
  const keys = await openImageKeys([FILE], { ...options, audit });
  await keys.encrypt(oci('plain'), oci('audited'));
  await assert.rejects(keys.decrypt(oci('audited'), oci('unseen')));
  assert.deepEqual(lines.slice(0, 2), ['wrap ok', 'unwrap ok']);
  await keys.close();
});
