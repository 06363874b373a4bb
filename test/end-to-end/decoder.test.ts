// `ocicrypt-kms decoder` as containerd starts it: a layer on standard input, and a payload on descriptor 3 or a content
// store, which holds its blobs as an image layout does.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createReadStream, openSync } from 'node:fs';
import { cp, mkdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { after, before, describe, type TestContext, test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { ERROR_STATUS, type ErrorCode } from '../../src/base/errors.ts';
import { findStoredLayers } from '../../src/node/content-store.ts';
import { blobPath, type Compression, type Descriptor, type Image, writeImage } from '../fixtures/images.ts';
import { serve } from '../fixtures/serve.ts';
import { decoderPayload } from '../real-clients/ctd-decoder.ts';
import { clientEnvironment, type Environment, type RunResult, runClient } from '../real-clients/process.ts';
import { startGoogle } from './google.ts';
import { createImageWorkspace, type ImageWorkspace } from './image-workspace.ts';
import { executable, readImage } from './workspace.ts';

const cleanups: (() => unknown)[] = [];
after(async () => {
  for (const cleanup of cleanups.reverse()) await cleanup();
});
const t = { after: (cleanup: () => unknown) => void cleanups.push(cleanup) };
/** More than is held back until the HMAC is right. */
const LARGE = 3 * 1024 * 1024;
const COMPRESSIONS: readonly Compression[] = ['none', 'gzip', 'zstd'];
/** Of every compression a small and a large one. */
const LAYERS = COMPRESSIONS.flatMap((compression) => [{ compression }, { compression, size: LARGE }]);
const GZIP = 3;
/** What a decoder writes that fails, if containerd has started it. */
const FAILED = 1024 + 32;

let workspace: ImageWorkspace;
let image: Image;
let diffIds: readonly string[];
let key: string;
let layout: string;

before(async () => {
  workspace = await createImageWorkspace(t);
  const { images, reference } = await writeImage(workspace.path('plain'), { layers: LAYERS });
  await workspace.ours('encrypt', reference, workspace.oci('image'), '--recipient', workspace.key.uri);
  layout = workspace.path('image');
  image = await readImage(layout);
  diffIds = images[0].diffIds;
  key = `--key=${workspace.key.file}`;
});

type Given = {
  /** What containerd sets; whoever sets it is waited for when the decoder fails. */
  readonly env?: Environment;
  /** Without it the layer must be found. */
  readonly payload?: Uint8Array;
  readonly input?: Readable | Uint8Array;
};

function decode(
  descriptor: Descriptor,
  words: readonly string[],
  { payload, input, env = {} }: Given = {},
): Promise<RunResult> {
  return runClient([executable(), 'decoder', ...words], {
    stdin: input ?? createReadStream(blobPath(layout, descriptor.digest)),
    ...(payload === undefined ? {} : { descriptor3: payload }),
    env,
    cwd: '/',
  });
}

function layerAt(index: number, of: Image = image): Descriptor {
  const layer = of.layers[index];
  assert.ok(layer);
  return layer;
}

function assertPlain({ exitCode, stdout, stderr }: RunResult, index: number): void {
  assert.deepEqual([exitCode, stderr], [0, '']);
  assert.equal(`sha256:${createHash('sha256').update(stdout).digest('hex')}`, diffIds[index]);
}

/** In one line that begins with the code; what came out is less than the whole layer. */
function assertFailed({ exitCode, stdout, stderr }: RunResult, code: ErrorCode, maximum: number): void {
  assert.equal(exitCode, ERROR_STATUS[code].exit, stderr);
  assert.match(stderr, new RegExp(`^ocicrypt-kms: ${code}: [^\\n]+\\n$`));
  assert.ok(stdout.length <= maximum, `${stdout.length} bytes`);
}

/** A content store with the blobs of this image; further blobs by their content. */
async function makeStore(name: string, ...contents: readonly Uint8Array[]): Promise<string> {
  const root = workspace.path(name);
  const blobs = join(root, 'io.containerd.content.v1.content/blobs/sha256');
  await cp(join(layout, 'blobs/sha256'), blobs, { recursive: true });
  for (const content of contents) {
    await writeFile(join(blobs, createHash('sha256').update(content).digest('hex')), content);
  }
  return root;
}

/** The image's manifest, and others that name its layers with other annotations. */
async function manifestWith(annotations: (layer: Descriptor) => Readonly<Record<string, string>>): Promise<Uint8Array> {
  const manifest: { readonly layers: readonly Descriptor[] } = JSON.parse(
    await readFile(blobPath(layout, image.digest), 'utf8'),
  );
  const layers = manifest.layers.map((layer) => ({ ...layer, annotations: annotations(layer) }));
  return Buffer.from(JSON.stringify({ ...manifest, layers }));
}

const KEYS = 'org.opencontainers.image.enc.keys.provider.kmscrypt';

describe('with a payload', () => {
  test('layers of every compression and size come out as their plain tar', async () => {
    for (const [index, layer] of image.layers.entries()) {
      assertPlain(await decode(layer, [key], { payload: decoderPayload(layer, null) }), index);
    }
  });

  test('a key that is not allowed is named, and nothing comes out', async () => {
    const layer = layerAt(GZIP);
    const refused = await decode(layer, [], { payload: decoderPayload(layer, null) });
    assertFailed(refused, 'not-allowed', 0);
    assert.ok(refused.stderr.includes(workspace.key.thumbprint));
  });

  test('a key service that says nothing is named with its key', async (t) => {
    const google = await startGoogle(t, workspace);
    await writeImage(workspace.path('silent-plain'));
    const recipient = ['--recipient', google.key, ...google.options];
    await workspace.ours('encrypt', workspace.oci('silent-plain'), workspace.oci('silent'), ...recipient);
    const [layer] = (await readImage(workspace.path('silent'))).layers;
    assert.ok(layer);
    google.kms.server.setFault(() => ({ kind: 'silent' }));
    const words = [...google.options, `--allow=${google.key}`, '--timeout=500ms'];
    const input = await readFile(blobPath(workspace.path('silent'), layer.digest));
    const failed = await decode(layer, words, { payload: decoderPayload(layer, null), input });
    assertFailed(failed, 'deadline-exceeded', 0);
    assert.ok(failed.stderr.includes(google.key), failed.stderr);
  });

  test('what is no payload is refused, and is no reason to look for the layer elsewhere', async () => {
    const layer = layerAt(0);
    for (const payload of [Buffer.from('\n\x03abc'), randomBytes(100), Buffer.alloc(9 * 1024 * 1024, 10)]) {
      assertFailed(await decode(layer, [key, `--content-store=${layout}`], { payload }), 'bad-input', 0);
    }
  });

  test('a layer that was changed or cut fails at its end, and a small one before anything comes out', async () => {
    for (const [index, maximum] of [
      [0, 0],
      [GZIP, LARGE],
    ] as const) {
      const layer = layerAt(index);
      const payload = decoderPayload(layer, null);
      const bytes = await readFile(blobPath(layout, layer.digest));
      const changed = Uint8Array.from(bytes);
      changed[bytes.length - 1] = (changed.at(-1) ?? 0) ^ 1;
      for (const input of [
        changed,
        bytes.subarray(0, -1),
        Buffer.concat([bytes, Buffer.alloc(1)]),
        bytes.subarray(0, 0),
      ]) {
        assertFailed(await decode(layer, [key], { payload, input }), 'integrity', maximum);
      }
    }
  });
});

describe('without a payload', () => {
  test('layers of every compression and size are found in the store that is named', async () => {
    const root = await makeStore('store');
    for (const [index, layer] of image.layers.entries()) {
      assertPlain(await decode(layer, [key, `--content-store=${root}`]), index);
    }
    const env = { STREAM_PROCESSOR_MEDIATYPE: layerAt(0).mediaType };
    assertPlain(await decode(layerAt(0), [key, `--content-store=${layout}`], { env }), 0);
  });

  test('the store is found that the process which starts the decoder has the layer open of', async () => {
    const layer = layerAt(GZIP);
    openSync(blobPath(layout, layer.digest), 'r');
    assertPlain(await decode(layer, [key]), GZIP);
  });

  test('a layer that no manifest names is said to be none', async () => {
    const root = await makeStore('other');
    const layer = layerAt(0);
    for (const input of [randomBytes(1000), randomBytes(200_000), Buffer.alloc(0)]) {
      const failed = await decode(layer, [key, `--content-store=${root}`], { input });
      assertFailed(failed, 'not-found', 0);
    }
    assertFailed(await decode(layer, [key, '--content-store=/nowhere']), 'not-found', 0);
  });

  test('a manifest that names the layer and cannot be used is told, with the reason', async () => {
    const layer = layerAt(0);
    const text = (await readFile(blobPath(layout, image.digest))).toString();
    const size = `"size":${layer.size},`;
    const cases: readonly (readonly [manifest: string, reason: RegExp])[] = [
      [text.replace('"layers"', '"Layers"'), /Layers/],
      [text.replace(size, `"size":${layer.size}.0,`), /size/],
      [text.replace('"layers":[', '"layers":[{"mediaType":"a/b","digest":"sha512:00","size":1},'), /no SHA-256 digest/],
      [text.replaceAll(size, `"size":${layer.size + 1},`), /another size than it has/],
      [text.replaceAll('.v1.tar+encrypted', '.v1.tar+gzip+encrypted'), /another type than it has/],
    ];
    for (const [index, [manifest, reason]] of cases.entries()) {
      assert.notEqual(manifest, text, String(reason));
      const root = await makeStore(`unread-${index}`, Buffer.from(manifest));
      await rm(blobPath(join(root, 'io.containerd.content.v1.content'), image.digest));
      const env = { STREAM_PROCESSOR_MEDIATYPE: layer.mediaType };
      const failed = await decode(layer, [key, `--content-store=${root}`], { env });
      assertFailed(failed, 'bad-input', FAILED);
      assert.match(failed.stderr, reason);
    }
    // Readers in Go take white space before it.
    const root = await makeStore('blank', Buffer.from(' '.repeat(20) + text));
    await rm(blobPath(join(root, 'io.containerd.content.v1.content'), image.digest));
    assertPlain(await decode(layer, [key, `--content-store=${root}`]), 0);
  });

  test('of the manifests that name a layer those count whose key has its HMAC, whatever others say', async () => {
    const second = await workspace.keygen('second.key');
    await writeImage(workspace.path('foreign-plain'), { layers: [{}], seed: 'foreign' });
    await workspace.ours(
      'encrypt',
      workspace.oci('foreign-plain'),
      workspace.oci('foreign'),
      '--recipient',
      workspace.key.uri,
    );
    const foreign = (await readImage(workspace.path('foreign'))).layers[0]?.annotations ?? {};
    const packet = foreign[KEYS] ?? '';
    const forgeries = [
      // The key of another image, which is allowed here; and its HMAC, too.
      await manifestWith((layer) => ({ ...layer.annotations, [KEYS]: packet })),
      await manifestWith(() => foreign),
      // Packets that nothing opens, and what is no packet.
      await manifestWith((layer) => ({
        ...layer.annotations,
        [KEYS]: Array(60).fill(randomBytes(300).toString('base64')).join(),
      })),
      await manifestWith((layer) => ({ ...layer.annotations, [KEYS]: '!' })),
      await manifestWith(() => ({})),
    ];
    await cp(layout, workspace.path('rewrapped'), { recursive: true });
    await workspace.ours('rewrap', workspace.oci('rewrapped'), '--recipient', second.uri, key);
    const rewrapped = await readFile(
      blobPath(workspace.path('rewrapped'), (await readImage(workspace.path('rewrapped'))).digest),
    );
    const root = await makeStore('forged', ...forgeries, rewrapped);
    for (const file of [workspace.key.file, second.file]) {
      assertPlain(await decode(layerAt(GZIP), [`--key=${file}`, `--content-store=${root}`]), GZIP);
    }
    const third = await workspace.keygen('third.key');
    assertFailed(await decode(layerAt(GZIP), [`--key=${third.file}`, `--content-store=${root}`]), 'not-allowed', 0);
  });

  test('a manifest that names a layer a thousand times keeps no other image from it', async () => {
    const junk = (index: number) => ({
      ...layerAt(GZIP),
      annotations: { ...layerAt(GZIP).annotations, [KEYS]: `junk${index}` },
    });
    const manifest = JSON.parse((await readFile(blobPath(layout, image.digest))).toString());
    const layers = [...Array.from({ length: 999 }, (_, index) => junk(index)), layerAt(GZIP)];
    const forged = Buffer.from(JSON.stringify({ ...manifest, layers }));
    const directory = join(await makeStore('many', forged), 'io.containerd.content.v1.content');
    const head = await readFile(blobPath(layout, layerAt(GZIP).digest));
    const clue = { head, isWhole: true, mediaType: undefined };
    const { layers: all } = findStoredLayers({ directory, open: new Set() }, clue);
    const found = all.toSorted((a, b) => a.turn - b.turn);
    assert.equal(found.length, 1000);
    // Of the honest manifest, and the first of the other one.
    const first = found.slice(0, 2).map(({ descriptor }) => descriptor.annotations.get(KEYS));
    assert.deepEqual(first.toSorted(), [layerAt(GZIP).annotations?.[KEYS], 'junk0'].toSorted());
  });

  test('names and files of a store that are none of containerd are passed over', async () => {
    const root = await makeStore(
      'hostile',
      Buffer.from('{"encrypted":'),
      Buffer.from(`{${'['.repeat(100_000)}encrypted`),
    );
    const blobs = join(root, 'io.containerd.content.v1.content/blobs/sha256');
    const name = (letter: string) => join(blobs, letter.repeat(64));
    const manifest = await readFile(blobPath(layout, image.digest));
    await symlink('/proc/self/mem', name('a'));
    await symlink(blobPath(layout, layerAt(0).digest), name('b'));
    await mkdir(name('c'));
    // Half of a manifest under the name of the whole; and a name that leads elsewhere.
    await writeFile(name('d'), manifest.subarray(0, manifest.length / 2));
    await writeFile(join(blobs, 'x'), manifest);
    assertPlain(await decode(layerAt(0), [key, `--content-store=${root}`]), 0);
  });
});

describe('with a server', () => {
  const listen = () => workspace.path('server.sock');
  const remote = () => `--remote=unix://${listen()}`;
  const start = (context: Pick<TestContext, 'after'>) => serve(context, [`--listen=unix://${listen()}`, key]);

  test('layers of every compression and size come out, with a payload and without', async (t) => {
    await start(t);
    for (const [index, layer] of image.layers.entries()) {
      assertPlain(await decode(layer, [remote()], { payload: decoderPayload(layer, null) }), index);
      assertPlain(await decode(layer, [remote(), `--content-store=${layout}`]), index);
    }
  });

  test('a refusal of the server is the reason', async (t) => {
    const other = await workspace.keygen('of-server.key');
    await serve(t, [`--listen=unix://${listen()}`, `--key=${other.file}`]);
    assertFailed(await decode(layerAt(GZIP), [remote(), `--content-store=${layout}`]), 'not-allowed', 0);
  });

  test('a server that is started again meanwhile is waited for', async (t) => {
    const { child } = await start(t);
    child.kill('SIGTERM');
    await once(child, 'exit');
    const decoded = decode(layerAt(GZIP), [remote(), `--content-store=${layout}`]);
    await pause(500);
    await start(t);
    assertPlain(await decoded, GZIP);
  });

  test('no server at all is told after three seconds, however many keys the layer has', async () => {
    const layer = layerAt(GZIP);
    const packet = layer.annotations?.[KEYS] ?? '';
    const many = { ...layer, annotations: { ...layer.annotations, [KEYS]: Array(5).fill(packet).join() } };
    const started = performance.now();
    const failed = await decode(layer, [`--remote=unix://${workspace.path('nowhere.sock')}`], {
      payload: decoderPayload(many, null),
    });
    assertFailed(failed, 'unavailable', 0);
    assert.ok(performance.now() - started < 6000, `${performance.now() - started} ms`);
    assert.match(failed.stderr, /nowhere\.sock \(ENOENT\), tried \d+ times in \d\.\d s; start the server/);
  });
});

describe('whatever becomes of it', () => {
  const failing = { STREAM_PROCESSOR_MEDIATYPE: 'application/vnd.oci.image.layer.v1.tar+gzip+encrypted' };

  async function until(read: () => Promise<string>): Promise<string> {
    for (let tries = 0; tries < 200; tries++) {
      const content = await read();
      if (content.endsWith('\n') && content.split('\n').length > 6) return content;
      await pause(20);
    }
    return read();
  }

  /** Starts it without a key to open the layer with. */
  function start(words: readonly string[], env: Environment = {}) {
    const child = spawn(executable(), ['decoder', ...words], {
      env: { ...clientEnvironment(), ...env },
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    child.stdin.on('error', () => {});
    return child;
  }

  test('standard output is open until whoever started it has the exit status, and the log has the line', async () => {
    const bin = workspace.path('bin');
    await mkdir(bin);
    await writeFile(join(bin, 'logger'), `#!/bin/sh\nprintf '%s\\n' "$@" >${workspace.path('log')}\n`, { mode: 0o755 });
    const child = start([`--content-store=${layout}`], { ...failing, PATH: `${bin}:${process.env.PATH}` });
    createReadStream(blobPath(layout, layerAt(GZIP).digest)).pipe(child.stdin);
    const [line, exited, ended] = await Promise.all([
      text(child.stderr),
      once(child, 'exit').then(() => performance.now()),
      text(child.stdout).then(() => performance.now()),
    ]);
    assert.equal(child.exitCode, ERROR_STATUS['not-allowed'].exit);
    assert.ok(ended - exited > 50, `${ended - exited} ms`);
    // It is in nobody's way, and not waited for.
    const logged = await until(() => readFile(workspace.path('log'), 'utf8').catch(() => ''));
    assert.deepEqual(logged.split('\n').slice(0, -1), [
      ...['-t', 'ocicrypt-kms', '-p', 'daemon.err', '--'],
      line.trimEnd(),
    ]);
  });

  test('nobody knows the digest of what a decoder wrote that has failed, and a reader meets the end of an archive', async () => {
    const none = layerAt(0);
    const large = layerAt(1);
    const changed = await readFile(blobPath(layout, large.digest));
    changed[changed.length - 1] = (changed.at(-1) ?? 0) ^ 1;
    const cases: readonly (readonly [Descriptor, string, Uint8Array | undefined, ErrorCode])[] = [
      [none, '--allow=awskms:///alias/other', undefined, 'not-allowed'],
      [large, key, changed, 'integrity'],
    ];
    for (const [layer, word, input, code] of cases) {
      const given = { env: failing, payload: decoderPayload(layer, null), ...(input === undefined ? {} : { input }) };
      const runs = [await decode(layer, [word], given), await decode(layer, [word], given)];
      const tails = runs.map(({ exitCode, stdout }) => {
        assert.equal(exitCode, ERROR_STATUS[code].exit);
        assert.ok(stdout.subarray(-1024 - 32, -32).every((byte) => byte === 0));
        return Buffer.from(stdout.subarray(-32)).toString('hex');
      });
      assert.notEqual(tails[0], tails[1]);
      assert.equal(runs[0]?.stdout.length, runs[1]?.stdout.length);
    }
  });

  test('options that are wrong are told in the same way', async () => {
    const child = start(['--allow=nonsense'], failing);
    const [, exited, ended] = await Promise.all([
      text(child.stderr).then((line) => assert.match(line, /^ocicrypt-kms: configuration: /)),
      once(child, 'exit').then(() => performance.now()),
      text(child.stdout.resume()).then(() => performance.now()),
    ]);
    assert.ok(ended - exited > 50, `${ended - exited} ms`);
  });

  test('a reader that stops reading is no success', async () => {
    const layer = layerAt(1);
    const child = start([key, `--content-store=${layout}`]);
    child.stdout.once('data', () => child.stdout.destroy());
    createReadStream(blobPath(layout, layer.digest)).pipe(child.stdin);
    const [line] = await Promise.all([text(child.stderr), once(child, 'exit')]);
    assert.match(line, /^ocicrypt-kms: not-written: /);
    assert.equal(child.exitCode, ERROR_STATUS['not-written'].exit);
  });

  test('a signal ends it in the middle of a layer, with a word', async () => {
    const layer = layerAt(1);
    const bytes = await readFile(blobPath(layout, layer.digest));
    const child = start([key, `--content-store=${layout}`]);
    child.stdin.write(bytes.subarray(0, -1));
    await once(child.stdout, 'data');
    child.kill('SIGTERM');
    const [line] = await Promise.all([text(child.stderr), once(child, 'exit'), text(child.stdout)]);
    assert.match(line, /^ocicrypt-kms: deadline-exceeded: interrupted/);
    assert.equal(child.signalCode, 'SIGTERM');
  });
});
