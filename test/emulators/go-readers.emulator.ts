/** What verify passes, containerd and containers/image read as it does: their own readers are asked. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { gzipSync } from 'node:zlib';
import { OcicryptError } from '../../src/base/errors.ts';
import { encodeEncryption } from '../../src/image/model/annotations.ts';
import type { Descriptor } from '../../src/image/model/descriptor.ts';
import { encodePublicOptions } from '../../src/image/model/layer-options.ts';
import { MEDIA_TYPES } from '../../src/image/model/manifest.ts';
import { openArchive } from '../../src/image/transports/archive.ts';
import { openLayout } from '../../src/image/transports/layout.ts';
import { createStoredManifest, type ImageSource } from '../../src/image/transports/store.ts';
import { type ImageNode, readImageTree } from '../../src/image/tree.ts';
import { verifyImage } from '../../src/image/verify.ts';
import { mutateJson, pick, type Random } from '../fixtures/mutated-json.ts';
import { mutateTar, packTar } from '../fixtures/mutated-tar.ts';
import { createRandom, runs, SEED, seeded } from '../fixtures/seed.ts';
import { digestOf as digestOfBytes } from '../image/harness.ts';
import { MemorySource, type Named } from '../image/memory-source.ts';
import { type GoDescriptor, GoReaders, type GoReading } from '../peers/go-readers.ts';

/** Of a thousand mutated images: what costs files is tried less often. */
const SHARES = { 'manifests and indexes': 985, layouts: 10, archives: 5 } as const;
const TOTAL = runs(5000);

/** What one of our readers reads. */
type Reading = {
  readonly bytes: Uint8Array;
  readonly digest: string;
  readonly mediaType: string;
  readonly config: Named | undefined;
  readonly layers: readonly Read[];
  readonly manifests: readonly Read[];
  /** Of an index; undefined where what an entry names is not read, or passed over. */
  readonly children: readonly (Reading | undefined)[];
  /** Entries that no client is believed to run. */
  readonly passedOver: readonly string[];
};
type Read = Named & Pick<GoDescriptor, 'annotations' | 'platform'>;

/** Undefined where the image does not pass. */
type Judge = (source: ImageSource) => Promise<Reading | undefined>;

let readers: GoReaders;
let directory: string;

describe('what verify passes', () => {
  before(async () => {
    readers = await GoReaders.start();
    directory = await mkdtemp(join(tmpdir(), 'go-readers-'));
  });
  after(async () => {
    readers.stop();
    await rm(directory, { recursive: true, force: true });
  });

  for (const [kind, tryAll] of [
    ['manifests and indexes', (count: number) => tryDocuments(count, verified)],
    ['layouts', (count: number) => tryLayouts(count, openLayout)],
    ['archives', (count: number) => tryArchives(count, (path) => openArchive(path, TAG, path, false))],
  ] as const) {
    it(seeded(`P31 no client reads ${kind} otherwise`), async (t) => {
      const count = Math.ceil((TOTAL * SHARES[kind]) / 1000);
      const passed = await tryAll(count);
      assert.ok(passed > 0);
      t.diagnostic(`figures: ${show(count)} ${kind}, ${show(passed)} passed, 0 read otherwise`);
    });
  }

  it('P31 containerd imports another image if no oci-layout has a version, and verify refuses it', async () => {
    const path = join(directory, 'saved.tar');
    const members = [...LAYOUT.files, ...[...LAYOUT.evil].filter(([name]) => name === 'manifest.json')];
    const tar = (marked: boolean) =>
      packTar(members.flatMap(([name, body]) => (marked || name !== 'oci-layout' ? [{ name, body }] : [])));
    await writeFile(path, tar(true));
    const named = async () => (await readers.read({ image: `oci-archive:${path}:${TAG}` }))[1]?.manifests?.[0]?.digest;
    assert.equal(await named(), LAYOUT.named.index.digest);
    assert.ok(await verified(openArchive(path, TAG, path, false)));
    await writeFile(path, tar(false));
    assert.notEqual(await named(), LAYOUT.named.index.digest);
    assert.equal(await verified(openArchive(path, TAG, path, false)), undefined);
  });

  it(seeded('P31 readers that do not mind what Go does are caught'), async () => {
    await assert.rejects(tryDocuments(4000, naive), assert.AssertionError, 'JSON.parse and exact names');
    await assert.rejects(tryLayouts(4000, openLayoutNaively), assert.AssertionError, 'the same of index.json');
    await assert.rejects(tryArchives(4000, openNaively), assert.AssertionError, 'the first member of a name');
  });
});

const verified: Judge = async (source) => {
  try {
    const { ok } = await verifyImage(source);
    return ok ? readingOf(await readImageTree(source)) : undefined;
  } catch (error) {
    if (error instanceof OcicryptError) return undefined;
    throw error;
  }
};

function readingOf(node: ImageNode): Reading {
  const { bytes, digest, mediaType } = node.stored;
  const read = { bytes, digest, mediaType, config: undefined, layers: [], manifests: [], children: [], passedOver: [] };
  if (node.kind !== 'index') {
    return { ...read, config: node.manifest.config, layers: node.manifest.layers.map(readDescriptor) };
  }
  const nodes = node.children.map((child) => child.node);
  const run = new Set(nodes.flatMap((child) => (child?.kind === 'attachment' ? [] : [child?.stored.digest])));
  const passedOver = nodes.flatMap((child) =>
    child?.kind === 'attachment' && !run.has(child.stored.digest) ? [child.stored.digest] : [],
  );
  return {
    ...read,
    manifests: node.index.manifests.map(readDescriptor),
    // Clients may refuse to read what no client runs: Docker's manifests, say, hold no attestation.
    children: nodes.map((child) => (child === undefined || child.kind === 'attachment' ? undefined : readingOf(child))),
    passedOver,
  };
}

function readDescriptor({ mediaType, digest, size, annotations, platform }: Descriptor): Read {
  const read = { mediaType, digest, size, annotations: Object.fromEntries(annotations) };
  return platform === undefined ? read : { ...read, platform };
}

/** A reader as one would write it: the engine's parser, names as they are documented, the last of two members. */
const naive: Judge = async (source) => {
  const stored = await source.readRoot().catch(() => undefined);
  if (stored === undefined) return undefined;
  try {
    const { config, layers = [], manifests = [] } = JSON.parse(Buffer.from(stored.bytes).toString());
    const isPlain = (layer: GoDescriptor) => !layer.mediaType.endsWith('+encrypted');
    if (layers.some(isPlain) || (config === undefined) === layers.length > 0) return undefined;
    return { ...stored, config, layers, manifests, children: [], passedOver: [] };
  } catch {
    return undefined;
  }
};

type OpenLayout = (path: string, tag: string | undefined, name: string) => ImageSource | Promise<ImageSource>;

/** A layout as one would read it: the first entry that has the tag. */
async function openLayoutNaively(path: string, tag: string | undefined): Promise<ImageSource> {
  const source = new MemorySource();
  for (const [name, bytes] of LAYOUT.files) if (name.startsWith('blobs/')) source.put(bytes, '');
  try {
    const { manifests } = JSON.parse(await readFile(join(path, 'index.json'), 'utf8'));
    const entry = manifests.find((one: GoDescriptor) => tag === undefined || one.annotations?.[REF_NAME] === tag);
    const root = LAYOUT.files.get(`blobs/sha256/${entry.digest.slice(7)}`);
    return root === undefined ? source : source.putRoot(root, entry.mediaType);
  } catch {
    return source;
  }
}

/** An archive as one would read it: its first files of the names that are looked for. */
async function openNaively(path: string): Promise<ImageSource> {
  const source = new MemorySource();
  const files = new Map<string, Uint8Array>();
  const bytes = await readFile(path);
  for (let at = 0; bytes[0] !== 0x1f && at + 512 <= bytes.length; ) {
    const text = (start: number, length: number) =>
      bytes.toString('latin1', at + start, at + start + length).replace(/\0.*$/s, '');
    const name = text(0, 100);
    const size = Number.parseInt(text(124, 12), 8) || 0;
    const data = bytes.subarray(at + 512, at + 512 + size);
    if (!files.has(name)) files.set(name, data);
    source.put(data, '');
    at += 512 + Math.ceil(size / 512) * 512;
  }
  try {
    const { manifests } = JSON.parse(Buffer.from(files.get('index.json') ?? []).toString());
    const root = files.get(`blobs/sha256/${manifests[0].digest.slice(7)}`);
    return root === undefined ? source : source.putRoot(root, manifests[0].mediaType);
  } catch {
    return source;
  }
}

/** @returns how many passed */
async function tryDocuments(count: number, judge: Judge): Promise<number> {
  const random = createRandom(SEED);
  let passed = 0;
  for (let start = 0; start < count; start += BATCH) {
    await Promise.all(
      Array.from({ length: Math.min(BATCH, count - start) }, async () => {
        const reading = await judge(mutatedDocument(random));
        if (reading === undefined) return;
        passed++;
        await compareDocument(reading);
      }),
    );
    if (start % (100 * BATCH) === 99 * BATCH)
      process.stderr.write(`${show(start + BATCH)} documents, ${show(passed)} passed\n`);
  }
  return passed;
}

async function tryLayouts(count: number, open: OpenLayout): Promise<number> {
  const random = createRandom(SEED + 1);
  const path = join(directory, 'layout');
  await mkdir(join(path, 'blobs/sha256'), { recursive: true });
  for (const [name, bytes] of LAYOUT.files) await writeFile(join(path, name), bytes);
  let passed = 0;
  for (let done = 0; done < count; done++) {
    const { index, marker } = mutatedLayout(random);
    await writeFile(join(path, 'index.json'), index);
    await writeFile(join(path, 'oci-layout'), marker);
    const tag = random(4) === 0 ? undefined : TAG;
    const name = `oci:${path}${tag === undefined ? '' : `:${tag}`}`;
    const reading = await verified(await open(path, tag, name));
    if (reading === undefined) continue;
    passed++;
    const [answer] = await readers.read({ image: name });
    // It asks for a name where one entry is an image and others are not.
    if (answer?.refusal?.includes('choose an image')) continue;
    compareImage(reading, answer, () => Buffer.from(index).toString());
  }
  return passed;
}

async function tryArchives(count: number, open: (path: string) => ImageSource | Promise<ImageSource>): Promise<number> {
  const random = createRandom(SEED + 2);
  const path = join(directory, 'archive.tar');
  const members = [...LAYOUT.files].map(([name, body]) => ({ name, body }));
  let passed = 0;
  for (let done = 0; done < count; done++) {
    const tar = mutateTar(random, members, LAYOUT.evil);
    await writeFile(path, tar);
    const source = await open(path);
    const reading = await verified(source);
    await source.close();
    if (reading === undefined) continue;
    passed++;
    const [answer, imported] = await readers.read({ image: `oci-archive:${path}:${TAG}` });
    compareImport(reading, imported, () => gzipSync(tar).toString('base64'));
    // It refuses kinds of members that GNU tar unpacks; what it does not open, it does not read otherwise.
    if (answer?.refusal?.includes('untarring file')) continue;
    compareImage(reading, answer, () => gzipSync(tar).toString('base64'));
  }
  return passed;
}

/** Asks about every document of the image. */
async function compareDocument(reading: Reading): Promise<void> {
  const { bytes, mediaType } = reading;
  const shown = () => `${mediaType}\n${Buffer.from(bytes).toString()}`;
  const answers = await readers.read({ bytes, mediaType });
  for (const answer of answers) {
    if (answer.reader === 'guess') {
      const kinds = [MEDIA_TYPES.index, MEDIA_TYPES.dockerIndex].map(String);
      if (answer.mediaType !== undefined)
        assert.equal(
          kinds.includes(answer.mediaType),
          kinds.includes(mediaType),
          `guessed ${answer.mediaType}: ${shown()}`,
        );
    } else compareContent(reading, answer, shown);
  }
  for (const child of reading.children) if (child !== undefined) await compareDocument(child);
}

/** What containerd imports under the name, if it imports the archive. */
function compareImport(reading: Reading, imported: GoReading | undefined, shown: () => string): void {
  assert.equal(imported?.reader, "containerd's importer");
  if (imported?.refusal !== undefined) return;
  const named = (imported?.manifests ?? []).filter(({ annotations = {} }) => annotations[REF_NAME] === TAG);
  assert.deepEqual(
    named.map(({ digest }) => digest),
    [reading.digest],
    `imported: ${shown()}`,
  );
}

/** Compares what a client copies of an image that it opens by itself. */
function compareImage(reading: Reading, answer: GoReading | undefined, shown: () => string): void {
  assert.equal(answer?.digest ?? answer?.refusal, reading.digest, shown());
  if (answer !== undefined) compareContent(reading, answer, shown);
  for (const [index, child] of reading.children.entries()) {
    if (child !== undefined) compareImage(child, answer?.children?.[index], shown);
  }
}

function compareContent(reading: Reading, answer: GoReading, shown: () => string): void {
  const { reader, refusal, config, layers = [], manifests = [], chosen = [] } = answer;
  // What containers/image reads of Docker's documents has no annotations.
  const bare = reader === 'containers/image' && (answer.mediaType ?? '').includes('docker');
  const plain = (one: Read | GoDescriptor) => normalized(one, bare);
  const ours = {
    config: reading.config && nameOf(reading.config),
    layers: reading.layers.map(plain),
    manifests: reading.manifests.map(plain),
  };
  // A platform that we do not know by its parts stands for none, and what is for none is judged.
  const known = (read: readonly Read[], all: readonly GoDescriptor[]) =>
    all.map((one, index) => {
      const { platform, ...others } = plain(one);
      return read[index]?.platform === undefined ? others : { ...others, platform };
    });
  const theirs = {
    config: config && nameOf(config),
    layers: known(ours.layers, layers),
    manifests: known(ours.manifests, manifests),
  };
  assert.equal(refusal, undefined, `${reader}: ${shown()}`);
  assert.deepEqual(theirs, ours, `${reader}: ${shown()}`);
  for (const digest of chosen) assert.ok(!reading.passedOver.includes(digest), `${reader} runs ${digest}: ${shown()}`);
}

function nameOf({ mediaType, digest, size }: Named): Named {
  return { mediaType, digest, size };
}

function normalized({ mediaType, digest, size, annotations = {}, platform }: Read | GoDescriptor, bare: boolean): Read {
  const { os = '', architecture = '', variant = '' } = platform ?? {};
  return {
    mediaType,
    digest,
    size,
    annotations: bare ? {} : { ...annotations },
    ...(platform === undefined ? {} : { platform: { os, architecture, variant } }),
  };
}

const BATCH = 100;
const TAG = 'latest';
const LAYER = 'application/vnd.oci.image.layer.v1.tar+gzip';
const AMD64 = { os: 'linux', architecture: 'amd64' };
const ARM64 = { os: 'linux', architecture: 'arm64', variant: 'v8' };
const UNKNOWN = { os: 'unknown', architecture: 'unknown' };
const CONFIG = { ...AMD64, rootfs: { type: 'layers', diff_ids: [digestOf('a'), digestOf('b')] } };
const PLAIN = { mediaType: LAYER, digest: digestOf('plain'), size: 5 };

const ENCRYPTED = ['one', 'two', 'three'].map((name) => ({
  mediaType: `${LAYER}+encrypted`,
  digest: digestOf(name),
  size: 100 + name.length,
  annotations: Object.fromEntries(
    encodeEncryption(encodePublicOptions({ hmac: createHash('sha256').update(name).digest() }), [
      { scheme: 'provider.x', packet: Buffer.from(`{"key_url":"${name}","wrapped_key":"AAAA","wrap_type":"AES"}`) },
    ]),
  ),
}));

/** Members of any document, some of another one's, and some of old ones. */
const NAMES = [
  ...['schemaVersion', 'mediaType', 'artifactType', 'config', 'layers', 'manifests', 'subject', 'annotations'],
  ...['digest', 'size', 'urls', 'data', 'platform', 'os', 'architecture', 'variant', 'os.version', 'os.features'],
  ...['features', 'fsLayers', 'history', 'signatures', 'name', 'tag', 'imageLayoutVersion', 'rootfs'],
];
const VALUES: readonly unknown[] = [
  ...[null, 0, 2, '', 'x', [], {}, [{}], [null], true, 'AAAA', ['x'], { a: 'b' }, { a: null }, { a: 1 }],
  ...[[PLAIN], PLAIN, ENCRYPTED, AMD64, UNKNOWN, { ...UNKNOWN, variant: 'v1' }, { os: 'linux' }],
  ...[...Object.values(MEDIA_TYPES), LAYER, `${LAYER}+encrypted`, 'application/json', 'application/x', digestOf('x')],
  { ...ENCRYPTED[0], annotations: { 'org.opencontainers.image.enc.pubopts': 'e30=' } },
  { 'vnd.docker.reference.type': 'attestation-manifest' },
  { 'org.opencontainers.image.ref.name': 'other' },
];

function mutatedDocument(random: Random): MemorySource {
  const source = new MemorySource();
  const config = source.put(CONFIG, MEDIA_TYPES.config);
  const docker = random(5) === 0;
  const type = docker ? MEDIA_TYPES.dockerManifest : MEDIA_TYPES.manifest;
  const manifest = (layers: readonly object[]) => ({
    schemaVersion: 2,
    ...(docker || random(3) > 0 ? { mediaType: type } : {}),
    ...(random(6) === 0 ? { artifactType: 'application/x', subject: PLAIN } : {}),
    config: docker ? { ...config, mediaType: MEDIA_TYPES.dockerConfig } : config,
    layers,
    ...(random(6) === 0 ? { annotations: { a: 'b' } } : {}),
  });
  const image = manifest(ENCRYPTED.slice(0, 1 + random(3)));
  const otherType = random(25) === 0 ? pick(random, OTHER_TYPES) : undefined;
  if (random(5) < 2) return source.putRoot(mutateJson(random, image, NAMES, VALUES, 4), otherType ?? type);
  const child =
    random(4) === 0 ? source.put(mutateJson(random, image, NAMES, VALUES, 2), type) : source.put(image, type);
  const other = source.put(manifest([ENCRYPTED[2] ?? {}]), type);
  const attested = source.put({ ...manifest([source.put({ predicate: 1 }, 'application/vnd.in-toto+json')]) }, type);
  const manifests = [
    { ...child, platform: AMD64 },
    ...(random(2) === 0 ? [{ ...other, platform: ARM64 }] : []),
    ...(random(2) === 0 ? [{ ...attested, platform: UNKNOWN }] : []),
  ];
  const indexType = docker ? MEDIA_TYPES.dockerIndex : MEDIA_TYPES.index;
  const index = { schemaVersion: 2, ...(docker || random(3) > 0 ? { mediaType: indexType } : {}), manifests };
  return source.putRoot(mutateJson(random, index, NAMES, VALUES, 4), otherType ?? indexType);
}

const OTHER_TYPES = [
  ...Object.values(MEDIA_TYPES),
  'application/json',
  'application/vnd.docker.distribution.manifest.v1+json',
];

const REF_NAME = 'org.opencontainers.image.ref.name';

/** A layout of an encrypted image in an index, and files of the same names that lead to a plain image. */
const LAYOUT = makeLayout();

function makeLayout() {
  const config = blobOf(CONFIG, MEDIA_TYPES.config);
  const manifestOf = (layers: readonly object[]) =>
    blobOf({ schemaVersion: 2, mediaType: MEDIA_TYPES.manifest, config: config.named, layers }, MEDIA_TYPES.manifest);
  const image = manifestOf(ENCRYPTED.slice(0, 2));
  const plain = manifestOf([PLAIN]);
  const index = blobOf(layoutIndex([{ ...image.named, platform: AMD64 }]), MEDIA_TYPES.index);
  const file = ({ named, bytes }: Blob): [string, Uint8Array] => [`blobs/sha256/${named.digest.slice(7)}`, bytes];
  const root = (named: Named) =>
    Buffer.from(JSON.stringify(layoutIndex([{ ...named, annotations: { [REF_NAME]: TAG } }])));
  return {
    named: { image: image.named, plain: plain.named, index: index.named },
    files: new Map<string, Uint8Array>([
      ['oci-layout', Buffer.from('{"imageLayoutVersion":"1.0.0"}')],
      ['index.json', root(index.named)],
      ...[config, image, index, plain].map(file),
    ]),
    evil: new Map<string, Uint8Array>([
      ['manifest.json', saved(file(config)[0])],
      ['index.json', root(plain.named)],
      [file(index)[0], plain.bytes],
      [file(image)[0], plain.bytes],
    ]),
  };
}

/** What docker save writes of an image without layers. */
function saved(config: string): Uint8Array {
  return Buffer.from(JSON.stringify([{ Config: config, RepoTags: [`evil:${TAG}`], Layers: [] }]));
}

function mutatedLayout(random: Random): { readonly index: Uint8Array; readonly marker: Uint8Array } {
  const { index, image, plain } = LAYOUT.named;
  const tagged = { ...(random(3) === 0 ? image : index), annotations: { [REF_NAME]: TAG } };
  const others = [
    { ...plain, annotations: { [REF_NAME]: 'other' } },
    { ...image, mediaType: pick(random, OTHER_TYPES) },
    { ...plain, mediaType: 'application/x', annotations: { [REF_NAME]: TAG } },
  ];
  const entries = random(2) === 0 ? [tagged] : [tagged, pick(random, others)];
  const marker = { imageLayoutVersion: '1.0.0' };
  return {
    index: mutateJson(
      random,
      layoutIndex(random(2) === 0 ? entries : entries.reverse()),
      NAMES,
      [...VALUES, ...others, tagged],
      5,
    ),
    marker: random(4) === 0 ? mutateJson(random, marker, NAMES, VALUES, 5) : Buffer.from(JSON.stringify(marker)),
  };
}

function layoutIndex(manifests: readonly object[]): object {
  return { schemaVersion: 2, mediaType: MEDIA_TYPES.index, manifests };
}

type Blob = { readonly named: Named; readonly bytes: Uint8Array };

function blobOf(value: object, mediaType: string): Blob {
  const { bytes, digest, size } = createStoredManifest(Buffer.from(JSON.stringify(value)), mediaType);
  return { named: { mediaType, digest, size }, bytes };
}

function digestOf(text: string): string {
  return digestOfBytes(Buffer.from(text));
}

function show(count: number): string {
  return count.toLocaleString('en-US');
}
