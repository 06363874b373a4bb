// Layouts under faults, other runs and what killed runs leave: nothing plain stays, no tag is lost, nothing of others is touched.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  existsSync,
  lutimesSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { OcicryptError } from '../../../src/base/errors.ts';
import { decryptImage } from '../../../src/image/decrypt.ts';
import { encryptImage } from '../../../src/image/encrypt.ts';
import { inspectImage } from '../../../src/image/inspect.ts';
import { parseImageReference } from '../../../src/image/model/reference.ts';
import { notWritten } from '../../../src/image/not-written.ts';
import { openLayout } from '../../../src/image/transports/layout.ts';
import { lockIndex } from '../../../src/image/transports/layout-lock.ts';
import { openImageSource, openImageStore } from '../../../src/image/transports/open.ts';
import {
  createTemporaryDirectory,
  isRunning,
  removeAbandoned,
  temporaryName,
} from '../../../src/image/transports/temporary.ts';
import { blobPath, readImages, writeImage } from '../../fixtures/images.ts';
import { writeRsaKey } from '../../fixtures/keys.ts';
import { rejects, scratch } from '../harness.ts';
import { jweKey, jweRecipient } from '../jwe-recipient.ts';

test('a decryption that cannot end leaves no plain layer, whatever is in its way', async (t) => {
  const { directory, recipient, key, made } = await setUp(t);
  await encryptImage(layout(made.directory), layout(join(directory, 'enc')), { recipients: [recipient] });
  const plain = new Set(made.images[0].layers.map(({ digest }) => digest.slice(7)));
  const faults: readonly ((path: string) => Promise<unknown>)[] = [
    (path) => writeFile(join(path, 'index.json'), 'no JSON'),
    (path) => writeFile(join(path, 'index.json'), '{"schemaVersion":2,"manifests":[{"digest":"sha256:1"}]}'),
    (path) => mkdir(join(path, 'index.json')),
    (path) => mkdir(join(path, 'oci-layout/x'), { recursive: true }),
    // A directory in the place of the manifest: the last file but one that gets its name.
    (path) => mkdir(blobPath(path, made.digest), { recursive: true }),
    (path) => mkdir(blobPath(path, made.images[0].layers[1]?.digest ?? ''), { recursive: true }),
  ];
  for (const [number, fault] of faults.entries()) {
    const path = join(directory, `dec-${number}`);
    await mkdir(join(path, 'blobs/sha256'), { recursive: true });
    await fault(path);
    const before = (await readdir(join(path, 'blobs/sha256'))).toSorted();
    const destination = layout(path);
    const calls = key.calls();
    await assert.rejects(decryptImage(layout(join(directory, 'enc')), destination, { keys: key }), `fault ${number}`);
    await destination.close();
    assert.deepEqual((await readdir(join(path, 'blobs/sha256'))).toSorted(), before, `fault ${number}`);
    // What the index says is known before the first layer is opened with a key and written.
    if (number < 3) assert.ok(key.calls() <= calls + 1, `fault ${number}`);
    for (const name of before) if (plain.has(name)) assert.ok(number >= 4);
  }
});

test('what was published is taken back when the index cannot be', async (t) => {
  const { directory, recipient, made } = await setUp(t);
  const destination = join(directory, 'enc');
  await mkdir(destination);
  const store = layout(destination);
  const wrap = recipient.wrap.bind(recipient);
  let wrapped = 0;
  const late = {
    ...recipient,
    wrap: async (...words: Parameters<typeof wrap>) => {
      // After the index was looked at.
      if (wrapped++ === 0) await mkdir(join(destination, 'index.json/x'), { recursive: true });
      return wrap(...words);
    },
  };
  await assert.rejects(encryptImage(layout(made.directory), store, { recipients: [late] }));
  await store.close();
  assert.deepEqual((await readdir(destination, { recursive: true })).toSorted(), ['index.json', 'index.json/x']);
});

test('nothing is written or removed by a link in the place of the blobs, whenever a neighbour puts it there', async (t) => {
  const { directory, recipient, made } = await setUp(t);
  const outside = join(directory, 'outside');
  mkdirSync(join(outside, 'sha256'), { recursive: true });
  for (const place of ['blobs', 'blobs/sha256']) {
    const path = join(directory, `new-${place.length}`);
    mkdirSync(dirname(join(path, place)), { recursive: true });
    symlinkSync(place === 'blobs' ? outside : join(outside, 'sha256'), join(path, place));
    const store = layout(path);
    await rejects('not-written', encryptImage(layout(made.directory), store, { recipients: [recipient] }));
    await store.close();
    assert.deepEqual(readdirSync(path), ['blobs']);
    // In place the layers are behind the link, where they are only read.
    const behind = join(directory, `old-${place.length}`);
    await writeImage(behind, { seed: place });
    renameSync(join(behind, place), join(directory, `away-${place.length}`));
    symlinkSync(join(directory, `away-${place.length}`), join(behind, place));
    const before = readdirSync(directory, { recursive: true }).toSorted();
    const same = layout(behind);
    await rejects('not-written', encryptImage(same, same, { recipients: [recipient] }));
    await same.close();
    assert.deepEqual(readdirSync(directory, { recursive: true }).toSorted(), before);
  }
  const late = join(directory, 'late');
  const store = layout(late);
  const swap = {
    ...recipient,
    wrap: async (...words: Parameters<typeof recipient.wrap>) => {
      if (!existsSync(join(directory, 'moved'))) {
        renameSync(join(late, 'blobs/sha256'), join(directory, 'moved'));
        symlinkSync(join(outside, 'sha256'), join(late, 'blobs/sha256'));
      }
      return recipient.wrap(...words);
    },
  };
  await encryptImage(layout(made.directory), store, { recipients: [swap] });
  await store.close();
  assert.ok(existsSync(join(directory, 'moved')));
  assert.deepEqual(readdirSync(outside, { recursive: true }), ['sha256']);
});

test('in place the plain layers are removed that nothing names any more, and only those', async (t) => {
  const { directory, recipient, key } = await setUp(t);
  const path = join(directory, 'image');
  const shared = { seed: 'shared', size: 5000 };
  const first = await writeImage(path, { seed: 'a', layers: [shared, {}] }, 'a');
  const second = await writeImage(path, { seed: 'b', layers: [shared, {}] }, 'b');
  const [common, own] = first.images[0].layers.map(({ digest }) => digest);
  const result = await encryptImage(layout(path, 'a'), layout(path, 'a'), { recipients: [recipient] });
  assert.deepEqual(result.leftPlain, []);
  const present = () => readdirSync(join(path, 'blobs/sha256')).map((name) => `sha256:${name}`);
  assert.ok(common !== undefined && present().includes(common), 'the other image has it too');
  assert.ok(own !== undefined && !present().includes(own));
  assert.deepEqual(await readImages(path, 'b'), second.images);
  await encryptImage(layout(path, 'b'), layout(path, 'b'), { recipients: [recipient] });
  assert.ok(!present().includes(common));
  assert.equal((await decryptImage(layout(path, 'a'), layout(path, 'a'), { keys: key })).digest, first.digest);
  // What cannot be told apart stays, and is said.
  const damaged = await writeImage(path, { seed: 'c' }, 'c');
  await writeFile(blobPath(path, damaged.digest), 'damaged');
  const again = await encryptImage(layout(path, 'a'), layout(path, 'a'), { recipients: [recipient] });
  assert.ok(own !== undefined && again.leftPlain.includes(own));
});

test('a layout of one image, named without its tag, keeps no plain layer', async (t) => {
  const { directory, recipient } = await setUp(t);
  const path = join(directory, 'tagged');
  const { images } = await writeImage(path, { seed: 'tagged' }, 'v1');
  const store = openLayout(path, undefined, `oci:${path}`);
  const result = await encryptImage(store, store, { recipients: [recipient] });
  assert.deepEqual(result.leftPlain, []);
  for (const { digest } of images[0].layers) assert.ok(!existsSync(blobPath(path, digest)));
});

test('many runs into one layout lose no tag', async (t) => {
  const { directory, recipient, made } = await setUp(t);
  const path = join(directory, 'many');
  const tags = Array.from({ length: 12 }, (_, index) => `t${index}`);
  await Promise.all(
    tags.map((tag) => encryptImage(layout(made.directory), layout(path, tag), { recipients: [recipient] })),
  );
  const index = JSON.parse(await readFile(join(path, 'index.json'), 'utf8'));
  const found = index.manifests.map(
    ({ annotations }: { annotations: Record<string, string> }) => annotations['org.opencontainers.image.ref.name'],
  );
  assert.deepEqual(found.sort(), tags.toSorted());
  for (const tag of tags) assert.equal((await inspectImage(layout(path, tag))).platforms.length, 1);
  assert.ok(!readdirSync(path).some((name) => name.includes('lock')));
});

test('the lock of a killed run keeps nobody out, and that of a live one does', async (t) => {
  const directory = await scratch(t);
  const lock = join(directory, 'index.json.lock');
  const child = spawn(process.execPath, ['-e', '']);
  await once(child, 'exit');
  writeFileSync(lock, nameOfRun(child.pid ?? 0));
  const taken = await Promise.all(
    [1, 2, 3].map(async () => {
      const unlock = await lockIndex(directory);
      const held = readdirSync(directory).length;
      await unlock();
      return held;
    }),
  );
  assert.equal(taken.length, 3);
  writeFileSync(lock, temporaryName());
  const ended = AbortSignal.timeout(300);
  await assert.rejects(lockIndex(directory, ended));
  assert.deepEqual(readdirSync(directory), ['index.json.lock']);
});

test('the lock of a run that was killed before it wrote its name there is waited for, but not for long', async (t) => {
  const directory = await scratch(t);
  const lock = join(directory, 'index.json.lock');
  writeFileSync(lock, '');
  await assert.rejects(lockIndex(directory, AbortSignal.timeout(300)));
  const old = new Date(Date.now() - 6_000);
  utimesSync(lock, old, old);
  const unlock = await lockIndex(directory, AbortSignal.timeout(3_000));
  await unlock();
  assert.deepEqual(readdirSync(directory), []);
});

test('temporary files are removed if they are ours and their run is dead, and no link is followed', async (t) => {
  const directory = await scratch(t);
  const temporary = join(directory, 'tmp');
  const outside = join(directory, 'outside');
  for (const path of [temporary, outside]) mkdirSync(path);
  writeFileSync(join(outside, 'precious'), '');
  const child = spawn(process.execPath, ['-e', '']);
  await once(child, 'exit');
  const dead = nameOfRun(child.pid ?? 0);
  assert.equal(isRunning(dead), false);
  const own = temporaryName();
  assert.equal(isRunning(own), true);
  const old = new Date('2020-01-01');
  mkdirSync(join(temporary, `${dead}-1`));
  writeFileSync(join(temporary, `${dead}-1`, 'layer'), 'plain');
  writeFileSync(join(temporary, `${dead}-2`), 'plain');
  symlinkSync(outside, join(temporary, `${dead}-3`));
  mkdirSync(join(temporary, `${dead}-4`));
  symlinkSync(outside, join(temporary, `${dead}-4`, 'link'));
  mkdirSync(join(temporary, own));
  utimesSync(join(temporary, own), old, old);
  // Another machine's, fresh and old, and one of a name that tells nothing.
  writeFileSync(join(temporary, '.ocicrypt-kms-000000000000-1-1-a'), '');
  writeFileSync(join(temporary, '.ocicrypt-kms-000000000000-1-1-b'), '');
  utimesSync(join(temporary, '.ocicrypt-kms-000000000000-1-1-b'), old, old);
  lutimesSync(join(temporary, `${dead}-3`), old, old);
  writeFileSync(join(temporary, 'other'), '');
  utimesSync(join(temporary, 'other'), old, old);
  await removeAbandoned(temporary);
  assert.deepEqual(
    readdirSync(temporary).sort(),
    [own, '.ocicrypt-kms-000000000000-1-1-a', `${dead}-3`, 'other'].sort(),
  );
  assert.deepEqual(readdirSync(outside), ['precious']);
});

test('a run that was killed and that nobody has waited for is dead', async (t) => {
  // The shell becomes a program that never asks how its child ended.
  const parent = spawn('/bin/sh', ['-c', 'sleep 0.05 & echo $!; exec sleep 60'], {
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  t.after(() => parent.kill('SIGKILL'));
  const [line] = await once(parent.stdout, 'data');
  const pid = Number(String(line));
  const state = () => readFileSync(`/proc/${pid}/stat`, 'utf8');
  while (!state().includes(') Z ')) await sleep(10);
  const start = state()
    .slice(state().lastIndexOf(')') + 2)
    .split(' ')[19];
  const name = temporaryName().replace(/^(\.ocicrypt-kms-[0-9a-f]{12})-\d+-\d+-/, `$1-${pid}-${start}-`);
  assert.equal(isRunning(name), false);
});

test('a run that unpacks removes what killed runs have left in the temporary directory', async (t) => {
  const directory = await scratch(t);
  const child = spawn(process.execPath, ['-e', '']);
  await once(child, 'exit');
  const left = join(directory, nameOfRun(child.pid ?? 0));
  mkdirSync(left, { mode: 0o700 });
  writeFileSync(join(left, '0'), 'a plain layer');
  const made = await createTemporaryDirectory(directory);
  assert.deepEqual(
    readdirSync(directory).map((name) => join(directory, name)),
    [made],
  );
});

test('another digest beside ours stays as it is, and images without a tag are named by number', async (t) => {
  const { directory, recipient } = await setUp(t);
  const path = join(directory, 'image');
  const first = await writeImage(path, { seed: 'a' }, 'a');
  const second = await writeImage(path, { seed: 'b' }, 'b');
  const file = join(path, 'index.json');
  const index = JSON.parse(await readFile(file, 'utf8'));
  const foreign = {
    mediaType: 'application/vnd.oci.image.manifest.v1+json',
    digest: `sha512:${'a'.repeat(128)}`,
    size: 2,
  };
  for (const entry of index.manifests) delete entry.annotations;
  index.manifests.push(foreign);
  await writeFile(file, JSON.stringify(index));
  for (const [number, image] of [first, second].entries()) {
    const source = openImageSource(parseImageReference(`oci:${path}:@${number}`));
    assert.equal((await source.readRoot()).digest, image.digest);
  }
  await rejects('not-found', openImageSource(parseImageReference(`oci:${path}:@3`)).readRoot());
  await rejects('bad-input', openImageSource(parseImageReference(`oci:${path}:@2`)).readRoot());
  await rejects('bad-input', openImageSource(parseImageReference(`oci:${path}`)).readRoot());
  assert.throws(() => openImageStore(parseImageReference(`oci:${path}:@0`)), { code: 'usage' });
  await encryptImage(openImageSource(parseImageReference(`oci:${path}:@0`)), layout(path, 'new'), {
    recipients: [recipient],
  });
  const after = JSON.parse(await readFile(file, 'utf8'));
  assert.deepEqual(after.manifests.slice(0, 3), index.manifests);
});

test('a directory that cannot be written to is known before the first layer', async (t) => {
  const { directory, recipient, made } = await setUp(t);
  const path = join(directory, 'enc');
  mkdirSync(join(path, 'blobs/sha256'), { recursive: true });
  chmodSync(path, 0o500);
  const store = layout(path);
  const encrypting = encryptImage(layout(made.directory), store, { recipients: [recipient] });
  // Root may write everywhere.
  if (process.geteuid?.() === 0) await encrypting;
  else {
    await rejects('not-written', encrypting);
    assert.equal(recipient.calls(), 0);
  }
  await store.close();
  chmodSync(path, 0o700);
});

function nameOfRun(pid: number): string {
  // The same machine, another number, and a start that no process has.
  return temporaryName().replace(/^(\.ocicrypt-kms-[0-9a-f]{12})-\d+-\d+-.*$/, `$1-${pid}-1-dead`);
}

function layout(directory: string, tag: string | undefined = 'latest') {
  return openLayout(directory, tag, `oci:${directory}`);
}

async function setUp(t: TestContext) {
  const directory = await scratch(t);
  const keys = await writeRsaKey(directory, 'ours');
  const made = await writeImage(join(directory, 'plain'), { layers: [{}, { size: 100_000 }] });
  return { directory, made, recipient: jweRecipient(keys.publicKey), key: jweKey(keys.privateKey) };
}

test('a place that cannot be written is named as the image is, with what to do about it', () => {
  for (const [code, advice] of [
    ['EROFS', 'read-only'],
    ['ENOTDIR', 'a part of the path is a file'],
    ['ENOSPC', 'make room'],
    ['EIO', 'check free space and permissions'],
  ] as const) {
    assert.throws(
      () => notWritten('app')(Object.assign(new Error(), { code })),
      (error: unknown) => {
        assert.ok(error instanceof OcicryptError);
        assert.equal(error.message, `cannot write app (${code})`);
        assert.ok(error.hint?.includes(advice), error.hint);
        return true;
      },
    );
  }
});
