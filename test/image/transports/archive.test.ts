// Archives as others make them: in any order, of any size, compressed, with links; read in place and never unpacked for nothing.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import {
  chmodSync,
  chownSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { packTar } from 'modern-tar';
import { decryptImage } from '../../../src/image/decrypt.ts';
import { encryptImage } from '../../../src/image/encrypt.ts';
import { inspectImage } from '../../../src/image/inspect.ts';
import { parseImageReference } from '../../../src/image/model/reference.ts';
import { openImageSource, openImageStore } from '../../../src/image/transports/open.ts';
import type { ImageSource } from '../../../src/image/transports/store.ts';
import { verifyImage } from '../../../src/image/verify.ts';
import { writeImage } from '../../fixtures/images.ts';
import { writeRsaKey } from '../../fixtures/keys.ts';
import { digestOf, rejects, scratch } from '../harness.ts';
import { jweKey, jweRecipient } from '../jwe-recipient.ts';

const MIB = 1024 * 1024;

type Member = { readonly name: string; readonly body: Uint8Array | string; readonly link?: string };

test('members are read in every order and of every size, and none hangs the reader', {
  timeout: 120_000,
}, async (t) => {
  const directory = await scratch(t);
  const path = join(directory, 'a.tar');
  let archives = 0;
  for (const size of [0.9, 1.1, 3].map((mebibytes) => Math.round(mebibytes * MIB))) {
    const layer = randomBytes(size);
    const config = JSON.stringify({ os: 'linux', architecture: 'amd64', rootfs: { diff_ids: [digestOf(layer)] } });
    const manifest = JSON.stringify([{ Config: 'config.json', Layers: ['layer.tar'], RepoTags: ['a:1'] }]);
    const members = [
      { name: 'config.json', body: config },
      { name: 'manifest.json', body: manifest },
      { name: 'layer.tar', body: layer },
      { name: 'junk', body: randomBytes(size) },
    ];
    for (const order of permutations(members)) {
      await writeFile(path, await tarOf(order));
      await withSource(`docker-archive:${path}`, 'inspect', async (source) => {
        const { layers } = (await inspectImage(source)).platforms[0] ?? { layers: [] };
        assert.deepEqual(
          layers.map(({ digest, size: found }) => [digest, found]),
          [[digestOf(layer), size]],
        );
        const bytes = await readBlob(source, { digest: digestOf(layer), size });
        assert.ok(bytes.equals(layer));
      });
      archives++;
    }
  }
  assert.equal(archives, 72);
});

test('OCI archives are read in every order too, plain and compressed', { timeout: 120_000 }, async (t) => {
  const { members, layer } = ociMembers(1.1 * MIB);
  const directory = await scratch(t);
  const path = join(directory, 'a.tar');
  const [marker, ...others] = members;
  const moved = [...others.filter(({ name }) => name !== others[2]?.name), { name: 'junk', body: new Uint8Array(MIB) }];
  for (const [number, order] of permutations(moved).entries()) {
    const tar = await tarOf([...(marker === undefined ? [] : [marker]), ...order, ...others.slice(2, 3)]);
    for (const bytes of [tar, number % 2 === 0 ? gzipSync(tar, { level: 1 }) : zstdCompressSync(tar)]) {
      await writeFile(path, bytes);
      await withSource(`oci-archive:${path}`, 'copy', async (source) => {
        assert.equal((await inspectImage(source)).platforms.length, 1);
        assert.ok((await readBlob(source, { digest: digestOf(layer), size: layer.length })).equals(layer));
      });
    }
  }
});

test('an archive is the same however tar was told to write it', async (t) => {
  const { members, digest } = ociMembers(5000);
  const directory = await scratch(t);
  const root = join(directory, 'root');
  for (const { name, body } of members) {
    mkdirSync(join(root, name, '..'), { recursive: true });
    writeFileSync(join(root, name), body);
  }
  const path = join(directory, 'a.tar');
  const blob = readdirSync(join(root, 'blobs/sha256'))[0] ?? '';
  const ways: readonly (readonly string[])[] = [
    ...['ustar', 'pax', 'gnu', 'v7', 'posix'].map((format) => [`--format=${format}`, '--exclude=./copy', '.']),
    ['oci-layout', 'index.json', 'blobs'],
    ['--absolute-names', '--transform=s,^,/,', 'oci-layout', 'index.json', 'blobs'],
    ['--transform=s,^,x/../,', 'oci-layout', 'index.json', 'blobs'],
    // A second name of a file is a hard link in the archive.
    ['--exclude=./copy', '--transform=s,^copy$,zz,', 'copy', '.'],
  ];
  execFileSync('ln', [join(root, 'blobs/sha256', blob), join(root, 'copy')]);
  for (const words of ways) {
    execFileSync('tar', ['-C', root, '-cf', path, ...words]);
    await withSource(`oci-archive:${path}`, 'inspect', async (source) => {
      assert.equal((await inspectImage(source)).digest, digest, words.join(' '));
    });
  }
  // End blocks are missing, or there is one.
  execFileSync('tar', ['-C', root, '-b1', '-cf', path, '.']);
  const whole = await readFile(path);
  for (const cut of [512, 1024]) {
    await writeFile(path, whole.subarray(0, whole.length - cut));
    await withSource(`oci-archive:${path}`, 'inspect', async (source) => {
      assert.equal((await inspectImage(source)).digest, digest);
    });
  }
  for (const cut of [1100, 2000, 5000]) {
    await writeFile(path, whole.subarray(0, whole.length - cut));
    await withSource(`oci-archive:${path}`, 'inspect', (source) => rejects('bad-input', inspectImage(source)));
  }
});

test('docker save of before version 25 writes layers as links, and names are taken in every spelling', async (t) => {
  const directory = await scratch(t);
  const layer = randomBytes(10_000);
  const config = JSON.stringify({ os: 'linux', architecture: 'amd64', rootfs: { diff_ids: [digestOf(layer)] } });
  const manifest = (tag: string) => JSON.stringify([{ Config: './c.json', Layers: ['b/layer.tar'], RepoTags: [tag] }]);
  const path = join(directory, 'a.tar');
  for (const link of [
    { name: 'b/layer.tar', size: 0, type: 'symlink', linkname: '../a/layer.tar' },
    { name: './b/layer.tar', size: 0, type: 'link', linkname: 'a/layer.tar' },
  ] as const) {
    for (const tag of ['busybox:latest', 'docker.io/library/busybox:latest', 'docker.io/busybox:latest']) {
      const body = manifest(tag);
      await writeFile(
        path,
        await packTar([
          { header: { name: './manifest.json', size: body.length }, body },
          { header: link },
          { header: { name: 'a/layer.tar', size: layer.length }, body: layer },
          { header: { name: './c.json', size: config.length }, body: config },
        ]),
      );
      for (const selector of ['busybox', 'busybox:latest', 'docker.io/library/busybox:latest', '@0']) {
        await withSource(`docker-archive:${path}:${selector}`, 'inspect', async (source) => {
          const report = await inspectImage(source);
          assert.equal(report.platforms[0]?.layers[0]?.digest, digestOf(layer));
          assert.ok((await readBlob(source, { digest: digestOf(layer), size: layer.length })).equals(layer));
        });
      }
      await withSource(`docker-archive:${path}:busybox:1`, 'inspect', (source) =>
        rejects('not-found', inspectImage(source)),
      );
    }
  }
});

test('inspect and verify unpack nothing and use no temporary file', async (t) => {
  const directory = await scratch(t);
  const temporary = useTemporary(t, directory);
  const { members, digest, layer } = ociMembers(1000);
  const path = join(directory, 'a.tar');
  const tar = await tarOf([...members, { name: 'junk', body: new Uint8Array(160 * MIB) }]);
  for (const bytes of [tar, gzipSync(tar, { level: 1 }), zstdCompressSync(tar)]) {
    await writeFile(path, bytes);
    const before = { changed: statSync(temporary).mtimeMs, rss: process.memoryUsage().rss };
    await withSource(`oci-archive:${path}`, 'inspect', async (source) => {
      assert.equal((await inspectImage(source)).digest, digest);
      assert.equal((await verifyImage(source)).ok, false);
      assert.deepEqual(readdirSync(temporary), []);
      assert.equal(statSync(temporary).mtimeMs, before.changed);
    });
    const grown = (process.memoryUsage().rss - before.rss) / MIB;
    assert.ok(grown < 140, `${grown} MiB`);
  }
  // What the image does not need is not unpacked either.
  await withSource(`oci-archive:${path}`, 'copy', async (source) => {
    await source.readRoot();
    await readBlob(source, { digest: digestOf(layer), size: layer.length });
    const unpacked = readdirSync(temporary).flatMap((name) => readdirSync(join(temporary, name)));
    assert.equal(unpacked.length, 1);
  });
  assert.deepEqual(readdirSync(temporary), []);
});

test('what is no archive is an error with a sentence', async (t) => {
  const directory = await scratch(t);
  const path = join(directory, 'x');
  execFileSync('mkfifo', [join(directory, 'fifo')]);
  const keys = await writeRsaKey(directory, 'key');
  const made = await writeImage(join(directory, 'plain'));
  for (const [name, wanted] of [
    [directory, /directory/],
    [join(directory, 'fifo'), /pipe/],
    ['/dev/null', /device/],
  ] as const) {
    for (const transport of ['oci-archive', 'docker-archive']) {
      await withSource(`${transport}:${name}`, 'copy', (source) =>
        assert.rejects(source.readRoot(), { code: 'bad-input', message: wanted }),
      );
    }
    const destination = openImageStore(parseImageReference(`oci-archive:${name}`));
    const source = openImageSource(parseImageReference(made.reference));
    await rejects('bad-input', encryptImage(source, destination, { recipients: [jweRecipient(keys.publicKey)] }));
    await destination.close();
  }
  const { members } = ociMembers(100);
  const tar = await tarOf(members);
  for (const [bytes, wanted] of [
    [gzipSync(tar).subarray(0, 300), /uncompressed/],
    [new Uint8Array(0), /empty/],
    [tar.fill(1, 0, 10), /checksum/],
  ] as const) {
    await writeFile(path, bytes);
    await withSource(`oci-archive:${path}`, 'copy', (source) =>
      assert.rejects(source.readRoot(), { code: 'bad-input', message: wanted }),
    );
  }
  await rm(path);
  await withSource(`oci-archive:${path}`, 'copy', (source) => rejects('not-found', source.readRoot()));
});

test('an archive that holds blobs of other digests is not changed in place, where they would be lost', async (t) => {
  const { path, directory, members, recipient } = await encryptable(t);
  await writeFile(path, await tarOf([...members, { name: `blobs/sha512/${'a'.repeat(128)}`, body: 'x' }]));
  const before = await readFile(path);
  await inPlace(`oci-archive:${path}`, (store) =>
    rejects('bad-input', encryptImage(store, store, { recipients: [recipient] })),
  );
  assert.ok(before.equals(await readFile(path)));
  await withSource(`oci-archive:${path}`, 'copy', (source) =>
    inPlace(`oci-archive:${join(directory, 'new.tar')}`, (store) =>
      encryptImage(source, store, { recipients: [recipient] }),
    ),
  );
});

test('in place an archive keeps its mode and owner and stays where a link leads', async (t) => {
  const { path, directory, recipient, key } = await encryptable(t);
  // Neither what new files have nor what the temporary one has.
  chmodSync(path, 0o640);
  if (process.geteuid?.() === 0) chownSync(path, 12_345, 12_346);
  const ofFile = async () => {
    const { mode, uid, gid } = await stat(path);
    return { mode, uid, gid };
  };
  const before = await ofFile();
  symlinkSync('a.tar', join(directory, 'link.tar'));
  const name = `oci-archive:${join(directory, 'link.tar')}`;
  await inPlace(name, (store) => encryptImage(store, store, { recipients: [recipient] }));
  assert.deepEqual(await ofFile(), before);
  await inPlace(name, (store) => decryptImage(store, store, { keys: key }));
  assert.deepEqual(await ofFile(), before);
  assert.deepEqual((await readdir(directory)).sort(), ['a.tar', 'key.pem', 'key.pub.pem', 'link.tar'].sort());
});

test('a blob that is damaged in the old archive stops the new one, and one that is absent stays absent', async (t) => {
  const { path, recipient, members, layer } = await encryptable(t);
  const other = JSON.stringify({ schemaVersion: 2, config: descriptorOf('{}'), layers: [descriptorOf('gone')] });
  const add = (...more: readonly Member[]) => {
    const index = JSON.parse(String(members.find(({ name }) => name === 'index.json')?.body));
    const tagged = { ...manifestDescriptor(other), annotations: { 'org.opencontainers.image.ref.name': 'other' } };
    index.manifests = [{ ...index.manifests[0], annotations: { 'org.opencontainers.image.ref.name': 'this' } }, tagged];
    const rest = members.filter(({ name }) => name !== 'index.json');
    return tarOf([...rest, { name: 'index.json', body: JSON.stringify(index) }, ...more]);
  };
  const name = `oci-archive:${path}:this`;
  const blob = (body: string | Uint8Array, content = body) => ({ name: memberOf(body), body: content });
  for (const damaged of ['gonf', 'longer']) {
    const tar = await add(blob(other), blob('{}'), blob('gone', damaged));
    await writeFile(path, tar);
    await rejects(
      'integrity',
      inPlace(name, (store) => encryptImage(store, store, { recipients: [recipient] })),
    );
    assert.ok((await readFile(path)).equals(tar), 'the old archive is untouched');
  }
  await writeFile(path, await add(blob(other), blob('{}')));
  await inPlace(name, (store) => encryptImage(store, store, { recipients: [recipient] }));
  const names = execFileSync('tar', ['-tf', path], { encoding: 'utf8' }).trim().split('\n');
  assert.ok(names.includes(memberOf(other)) && names.includes(memberOf('{}')));
  assert.ok(!names.includes(memberOf('gone')) && !names.includes(memberOf(layer)));
});

test('an archive that another program changes meanwhile is not replaced', async (t) => {
  const { path, recipient } = await encryptable(t);
  const store = openImageStore(parseImageReference(`oci-archive:${path}`));
  t.after(() => store.close());
  const wrap = recipient.wrap.bind(recipient);
  recipient.wrap = async (...words) => {
    writeFileSync(`${path}.new`, 'changed');
    renameSync(`${path}.new`, path);
    return wrap(...words);
  };
  await rejects('not-written', encryptImage(store, store, { recipients: [recipient] }));
  assert.equal(readFileSync(path, 'utf8'), 'changed');
});

function permutations<Item>(items: readonly Item[]): readonly (readonly Item[])[] {
  if (items.length < 2) return [items];
  return items.flatMap((item) => permutations(items.filter((other) => other !== item)).map((rest) => [item, ...rest]));
}

async function tarOf(members: readonly Member[]): Promise<Buffer> {
  const entries = members.map(({ name, body, link }) => ({
    header: {
      ...{ name, size: Buffer.byteLength(body) },
      ...(link === undefined ? {} : { type: 'symlink' as const, linkname: link }),
    },
    body,
  }));
  return Buffer.from(await packTar(entries));
}

function memberOf(body: string | Uint8Array): string {
  return `blobs/sha256/${createHash('sha256').update(body).digest('hex')}`;
}

function descriptorOf(body: string | Uint8Array, mediaType = 'application/vnd.oci.image.layer.v1.tar') {
  return { mediaType, digest: digestOf(Buffer.from(body)), size: Buffer.byteLength(body) };
}

function manifestDescriptor(body: string) {
  return descriptorOf(body, 'application/vnd.oci.image.manifest.v1+json');
}

test('an archive that some readers take for one of docker save is refused, and one that none does is read', async (t) => {
  const directory = await scratch(t);
  const path = join(directory, 'a.tar');
  const { members } = ociMembers(1000);
  const [marker, ...others] = members;
  const docker = { name: 'manifest.json', body: '[]' };
  const named = (name: string, body: string) => [{ name, body }, ...others, docker];
  const read = async (archive: readonly Member[]) => {
    await writeFile(path, await tarOf(archive));
    await withSource(`oci-archive:${path}`, 'inspect', (source) => inspectImage(source));
  };
  await read(members);
  await read(others);
  await read([...members, docker]);
  await read(named('./oci-layout', String(marker?.body)));
  for (const archive of [
    [...others, docker],
    named('oci-layout', '{}'),
    named('oci-layout', '{"imageLayoutVersion":""}'),
    named('/oci-layout', String(marker?.body)),
    [...others, { name: 'x', body: String(marker?.body) }, { name: 'oci-layout', body: '', link: 'x' }, docker],
  ]) {
    await rejects('bad-input', read(archive));
  }
});

/** An image of one layer, as members of an archive. */
function ociMembers(size: number) {
  const layer = randomBytes(size);
  const config = JSON.stringify({ os: 'linux', architecture: 'amd64', rootfs: { diff_ids: [digestOf(layer)] } });
  const configType = 'application/vnd.oci.image.config.v1+json';
  const manifest = JSON.stringify({
    schemaVersion: 2,
    config: descriptorOf(config, configType),
    layers: [descriptorOf(layer)],
  });
  const index = JSON.stringify({ schemaVersion: 2, manifests: [manifestDescriptor(manifest)] });
  const members: readonly Member[] = [
    { name: 'oci-layout', body: '{"imageLayoutVersion":"1.0.0"}' },
    { name: 'index.json', body: index },
    { name: memberOf(manifest), body: manifest },
    { name: memberOf(config), body: config },
    { name: memberOf(layer), body: layer },
  ];
  return { members, layer, digest: manifestDescriptor(manifest).digest };
}

async function encryptable(t: TestContext) {
  const directory = await scratch(t);
  const keys = await writeRsaKey(directory, 'key');
  const made = ociMembers(50_000);
  const path = join(directory, 'a.tar');
  await writeFile(path, await tarOf(made.members));
  return { ...made, directory, path, recipient: jweRecipient(keys.publicKey), key: jweKey(keys.privateKey) };
}

async function inPlace(name: string, work: (store: ReturnType<typeof openImageStore>) => Promise<unknown>) {
  const store = openImageStore(parseImageReference(name));
  try {
    await work(store);
  } finally {
    await store.close();
  }
}

async function withSource(name: string, use: 'copy' | 'inspect', work: (source: ImageSource) => Promise<unknown>) {
  const source = openImageSource(parseImageReference(name), {}, use);
  try {
    await work(source);
  } finally {
    await source.close();
  }
}

async function readBlob(source: ImageSource, blob: { readonly digest: string; readonly size: number }) {
  const reader = await source.openBlob(blob);
  const bytes = Buffer.alloc(blob.size + 1);
  let length = 0;
  try {
    for (let count = -1; count !== 0; length += count) count = await reader.read(bytes.subarray(length));
  } finally {
    await reader.close();
  }
  return bytes.subarray(0, length);
}

/** The directory for temporary files during this test. */
function useTemporary(t: TestContext, directory: string): string {
  const before = process.env.TMPDIR;
  const temporary = join(directory, 'tmp');
  mkdirSync(temporary);
  process.env.TMPDIR = temporary;
  t.after(() => {
    if (before === undefined) delete process.env.TMPDIR;
    else process.env.TMPDIR = before;
  });
  return temporary;
}
