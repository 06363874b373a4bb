// Archives in xz and bzip2, by the real programs: whole, cut off, damaged, far too large, ended by a signal, and without the program.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { readdir, readFile, readlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { packTar } from 'modern-tar';
import { encryptImage } from '../../../src/image/encrypt.ts';
import { inspectImage } from '../../../src/image/inspect.ts';
import { parseImageReference } from '../../../src/image/model/reference.ts';
import { openImageSource, openImageStore } from '../../../src/image/transports/open.ts';
import { writeRsaKey } from '../../fixtures/keys.ts';
import { realClients, toolArgv } from '../../real-clients/tools.ts';
import { digestOf, rejects, scratch, usePath } from '../harness.ts';
import { jweRecipient } from '../jwe-recipient.ts';

const PROGRAMS = ['xz', 'bzip2'] as const;

test('archives of both kinds in xz and bzip2 are inspected and encrypted, whatever their name', {
  timeout: 60_000,
}, async (t) => {
  const { directory, recipient } = await setUp(t);
  const image = imageMembers(1_200_000);
  for (const program of PROGRAMS) {
    for (const [transport, members] of [
      ['oci-archive', image.oci],
      ['docker-archive', image.docker],
    ] as const) {
      const path = join(directory, `${transport}-${program}.tar`);
      await writeFile(path, await compress(program, await tarOf(members)));
      const report = await inspect(`${transport}:${path}`);
      assert.deepEqual(
        report.platforms.map(({ platform, layers }) => [platform, layers.map(({ size }) => size)]),
        [['linux/amd64', [1_200_000]]],
      );
      const to = `oci:${join(directory, `${transport}-${program}`)}`;
      const source = openImageSource(parseImageReference(`${transport}:${path}`));
      const destination = openImageStore(parseImageReference(to));
      const { images } = await encryptImage(source, destination, { recipients: [recipient] });
      await source.close();
      await destination.close();
      assert.equal(images.length, 1);
      assert.ok((await inspect(to)).platforms.every(({ layers }) => layers.every(({ encrypted }) => encrypted)));
    }
  }
  assert.deepEqual(await childrenLeft(), []);
});

test('an archive that is cut off or damaged anywhere is refused in every compressed form', {
  timeout: 60_000,
}, async (t) => {
  const { directory } = await setUp(t);
  const tar = await tarOf(imageMembers(300_000).oci);
  const path = join(directory, 'a');
  const forms = [
    ...(await Promise.all(PROGRAMS.map(async (program) => [program, await compress(program, tar)] as const))),
    ['gzip', gzipSync(tar)] as const,
    ['zstd', zstdCompressSync(tar)] as const,
  ];
  for (const [form, whole] of forms) {
    const damaged = Buffer.from(whole);
    // In bzip2 and xz the last checksum stands before the end of the file.
    damaged.fill(0x55, whole.length - 40, whole.length - 4);
    for (const [what, bytes] of [
      ['cut off by 1', whole.subarray(0, -1)],
      ['cut off by 30', whole.subarray(0, -30)],
      ['half', whole.subarray(0, whole.length / 2)],
      ['the magic alone', whole.subarray(0, 6)],
      ...(form === 'zstd' || form === 'gzip'
        ? [['with something behind it', Buffer.concat([whole, tar])] as const]
        : []),
      ...(form === 'zstd' ? [] : [['damaged at its end', damaged] as const]),
    ] as const) {
      await writeFile(path, bytes);
      await assert.rejects(inspect(`oci-archive:${path}`), { code: 'bad-input' }, `${form} ${what}`);
    }
  }
  assert.deepEqual(await childrenLeft(), []);
});

test('an archive of several frames is read to its end', async (t) => {
  const { directory } = await setUp(t);
  const path = join(directory, 'a');
  // By itself the first is an archive without its last blocks; skopeo unpacks both, and takes the second index.
  const tar = await tarOf(imageMembers(300_000).oci);
  const other = await tarOf([{ name: 'index.json', body: '{"schemaVersion":2,"manifests":[]}' }]);
  const first = tar.subarray(0, tar.findLastIndex((byte) => byte !== 0) + 1);
  const padded = Buffer.concat([first, Buffer.alloc(-first.length & 511)]);
  await writeFile(path, Buffer.concat([padded, other].map((part) => zstdCompressSync(part))));
  await assert.rejects(inspect(`oci-archive:${path}`), /is there twice/);
  await writeFile(path, zstdCompressSync(padded));
  assert.equal((await inspect(`oci-archive:${path}`)).platforms.length, 1);
});

test('an archive of far more than it seems takes no memory for it, and a signal ends it and its program at once', {
  timeout: 60_000,
}, async (t) => {
  const { directory } = await setUp(t);
  const size = 4 * 1024 ** 3;
  const [header = Buffer.alloc(0)] = [(await tarOf([{ name: 'a', body: '' }])).subarray(0, 512)];
  header.write(`${size.toString(8).padStart(11, '0')}\0`, 124);
  header.fill(' ', 148, 156);
  header.write(
    `${header
      .reduce((sum, byte) => sum + byte, 0)
      .toString(8)
      .padStart(6, '0')}\0 `,
    148,
  );
  const path = join(directory, 'bomb');
  for (const program of PROGRAMS) {
    const zeros = await compress(program, Buffer.alloc(16 * 1024 * 1024));
    const bomb = [await compress(program, header), ...Array.from({ length: 255 }, () => zeros)];
    await writeFile(path, Buffer.concat(bomb));
    const before = process.memoryUsage.rss();
    let peak = before;
    const watch = setInterval(() => {
      peak = Math.max(peak, process.memoryUsage.rss());
    }, 10);
    const started = performance.now();
    const signal = AbortSignal.timeout(1500);
    await assert.rejects(inspect(`oci-archive:${path}`, signal), { name: 'TimeoutError' });
    clearInterval(watch);
    assert.ok(performance.now() - started < 10_000);
    assert.ok(peak - before < 200 * 1024 * 1024, `${program}: ${peak - before} bytes`);
    assert.deepEqual(await childrenLeft(), []);
  }
});

test('a program that hangs is ended by the signal, and sees no variable of ours', { timeout: 60_000 }, async (t) => {
  const { directory, bin } = await setUp(t);
  const seen = join(directory, 'seen');
  await writeFile(join(bin, 'xz'), `#!/bin/sh\nenv > ${seen}\nprintf '%s\\n' "$*" >> ${seen}\nexec sleep 60\n`, {
    mode: 0o755,
  });
  const path = join(directory, 'a');
  await writeFile(path, await compress('xz', Buffer.alloc(1000)));
  const controller = new AbortController();
  const refused = assert.rejects(inspect(`docker-archive:${path}`, controller.signal), { name: 'AbortError' });
  let text = '';
  while (!text.endsWith('-dc\n')) {
    await sleep(20);
    text = await readFile(seen, 'utf8').catch(() => '');
  }
  controller.abort();
  await refused;
  assert.deepEqual(await childrenLeft(), []);
  const names = text.split('\n').map((line) => line.split('=')[0] ?? '');
  const expected = ['', '-dc', 'LC_ALL', 'PATH', 'PWD', 'XZ_OPT', '_', 'OLDPWD', 'SHLVL'];
  // Node gives it to every child of a run whose coverage is measured.
  if (process.env.NODE_V8_COVERAGE !== undefined) expected.push('NODE_V8_COVERAGE');
  assert.deepEqual(
    names.filter((name) => !expected.includes(name)),
    [],
  );
});

test('a missing program is named, with what to do, and none is taken from the working directory', {
  timeout: 60_000,
}, async (t) => {
  const { directory } = await setUp(t);
  for (const program of PROGRAMS) {
    const path = join(directory, `a.${program}`);
    await writeFile(path, await compress(program, Buffer.alloc(1000)));
    for (const places of ['', '.', ':', `${directory}:test`]) {
      usePath(t, places);
      for (const transport of ['oci-archive', 'docker-archive']) {
        const error = await rejects('configuration', inspect(`${transport}:${path}`));
        assert.match(error.message, new RegExp(`no ${program} is in PATH`));
        assert.match(error.hint ?? '', new RegExp(`install ${program}, .*${program} -dk `));
      }
    }
  }
});

type Member = { readonly name: string; readonly body: Uint8Array | string };

/** Has the real programs in PATH, before all others. */
async function setUp(t: TestContext) {
  const directory = await scratch(t);
  const bin = await scratch(t);
  assert.ok(await realClients(t, PROGRAMS), 'xz and bzip2 are needed');
  for (const program of PROGRAMS) {
    const words = (await toolArgv(program)).map((word) => `'${word}'`).join(' ');
    await writeFile(join(bin, program), `#!/bin/sh\nexec ${words} "$@"\n`, { mode: 0o755 });
  }
  usePath(t, `${bin}:${process.env.PATH}`);
  const keys = await writeRsaKey(directory, 'key');
  return { directory, bin, recipient: jweRecipient(keys.publicKey) };
}

async function compress(program: (typeof PROGRAMS)[number], bytes: Uint8Array): Promise<Buffer> {
  const [file, ...words] = await toolArgv(program);
  return execFileSync(file, [...words, '-1c'], { input: bytes, maxBuffer: 1024 ** 3 });
}

async function inspect(name: string, signal?: AbortSignal) {
  const source = openImageSource(parseImageReference(name), {}, 'inspect');
  try {
    return await inspectImage(source, signal);
  } finally {
    await source.close();
  }
}

/** Processes that this one started and that still run a program, after a moment to end. */
async function childrenLeft(): Promise<readonly string[]> {
  for (let tries = 0; ; tries++) {
    const found: string[] = [];
    for (const pid of (await readdir('/proc')).filter((name) => /^\d+$/.test(name))) {
      const status = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '');
      const [state, parent] = status.slice(status.lastIndexOf(')') + 2).split(' ');
      if (Number(parent) !== process.pid || state === 'Z') continue;
      found.push(await readlink(`/proc/${pid}/exe`).catch(() => ''));
    }
    const left = found.filter((program) => program !== '');
    if (left.length === 0 || tries > 40) return left;
    await sleep(50);
  }
}

async function tarOf(members: readonly Member[]): Promise<Buffer> {
  return Buffer.from(
    await packTar(members.map(({ name, body }) => ({ header: { name, size: Buffer.byteLength(body) }, body }))),
  );
}

/** One image of one layer, as members of an archive of either kind. */
function imageMembers(size: number): { readonly oci: readonly Member[]; readonly docker: readonly Member[] } {
  const layer = randomBytes(size);
  const config = JSON.stringify({ os: 'linux', architecture: 'amd64', rootfs: { diff_ids: [digestOf(layer)] } });
  const describe = (body: string | Uint8Array, type: string) => ({
    mediaType: `application/vnd.oci.image.${type}`,
    digest: digestOf(Buffer.from(body)),
    size: Buffer.byteLength(body),
  });
  const manifest = JSON.stringify({
    schemaVersion: 2,
    config: describe(config, 'config.v1+json'),
    layers: [describe(layer, 'layer.v1.tar')],
  });
  const index = JSON.stringify({ schemaVersion: 2, manifests: [describe(manifest, 'manifest.v1+json')] });
  const blob = (body: string | Uint8Array): Member => ({
    name: `blobs/sha256/${createHash('sha256').update(body).digest('hex')}`,
    body,
  });
  return {
    oci: [
      { name: 'oci-layout', body: '{"imageLayoutVersion":"1.0.0"}' },
      { name: 'index.json', body: index },
      ...[manifest, config, layer].map(blob),
    ],
    docker: [
      { name: 'layer.tar', body: layer },
      { name: 'config.json', body: config },
      {
        name: 'manifest.json',
        body: JSON.stringify([{ Config: 'config.json', Layers: ['layer.tar'], RepoTags: ['a:1'] }]),
      },
    ],
  };
}
