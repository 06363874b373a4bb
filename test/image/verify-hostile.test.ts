/** Images whose author wants verify to pass what a client then runs in the clear. */
import assert from 'node:assert/strict';
import { createCipheriv, createDecipheriv, createHmac, randomBytes } from 'node:crypto';
import { describe, it } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { gzipSync, zstdCompressSync } from 'node:zlib';
import { packTar } from 'modern-tar';
import { type ErrorCode, OcicryptError } from '../../src/base/errors.ts';
import { createUnwrapper, type KeyHolder } from '../../src/client/holders.ts';
import type { LayerKeyUnwrapper } from '../../src/client/layer-keys.ts';
import { inspectImage } from '../../src/image/inspect.ts';
import { encodeEncryption } from '../../src/image/model/annotations.ts';
import { encodeLayerKeyRecord, encodePublicOptions } from '../../src/image/model/layer-options.ts';
import { MEDIA_TYPES } from '../../src/image/model/manifest.ts';
import { CONFIG, DOCUMENT, type Shape } from '../../src/image/model/manifest-shape.ts';
import { describePacket } from '../../src/image/model/packets.ts';
import { groupLayers } from '../../src/image/probe.ts';
import { notVerified, type Verification, type VerifyOptions, verifyImage } from '../../src/image/verify.ts';
import { digestOf, rejects } from './harness.ts';
import { MemorySource, type Named } from './memory-source.ts';
import { packetKeys, v2Recipient } from './packet-recipients.ts';

const KEY = 'gcpkms://projects/p/locations/global/keyRings/r/cryptoKeys/a';
const SHUT = 'gcpkms://projects/p/locations/global/keyRings/r/cryptoKeys/shut';
const OTHER = 'gcpkms://projects/p/locations/global/keyRings/r/cryptoKeys/b';
const GZIP = 'application/vnd.oci.image.layer.v1.tar+gzip';
const ENCRYPTED = `${GZIP}+encrypted`;
const AMD64 = { architecture: 'amd64', os: 'linux' };
const UNKNOWN = { architecture: 'unknown', os: 'unknown' };
const TAR = await packTar([{ header: { name: 'hello', size: 5 }, body: 'hello' }]);
const PLAIN = gzipSync(TAR);

type Json = Record<string, unknown>;
type EncryptedLayer = Named & { readonly annotations: Readonly<Record<string, string>> };

/** Everything that can be asked of an image. */
const STRICT: VerifyOptions = {
  require: [KEY],
  only: [KEY],
  unwrapper: (key) => packetKeys([key ?? KEY]),
  content: true,
};

describe('verify', () => {
  it('passes an honest image, and says what it did not prove', async () => {
    const source = new MemorySource();
    const image = await manifestOf(source, [await encryptedLayer(source)]);
    source.putRoot(image, MEDIA_TYPES.manifest);
    assert.deepEqual(await notProved(source, STRICT), [true, []]);
    assert.deepEqual(await notProved(source, { ...STRICT, content: false }), [true, ['content']]);
    assert.deepEqual(await notProved(source, { require: [KEY], unwrapper: () => packetKeys([KEY]) }), [
      true,
      ['content'],
    ]);
    assert.deepEqual(await notProved(source, { require: [KEY], content: true }), [true, ['keys', 'content']]);
    const attested = { ...source.put(await attestation(source), MEDIA_TYPES.manifest), platform: UNKNOWN };
    const child = { ...source.put(image, MEDIA_TYPES.manifest), platform: AMD64 };
    source.putRoot(indexOf([child, attested]), MEDIA_TYPES.index);
    assert.deepEqual(await notProved(source, STRICT), [true, []]);
    assert.equal((await inspectImage(source)).attachments.length, 1);
  });

  it('refuses every member that Go would take for another one, wherever it stands', async () => {
    let refused = 0;
    for (const [shape, path] of shapesOf(DOCUMENT)) {
      for (const name of shape.known.values()) {
        for (const spelling of spellingsOf(name)) {
          for (const value of [null, [], {}, 'x', 0]) {
            const source = new MemorySource();
            const isIndex = path[0] === 'manifests';
            const image = await manifestOf(source, [await encryptedLayer(source)]);
            const child = source.put(image, MEDIA_TYPES.manifest);
            const document = structuredClone(isIndex ? indexOf([{ ...child, platform: AMD64 }]) : image);
            at(document, path)[spelling] = value;
            source.putRoot(document, isIndex ? MEDIA_TYPES.index : MEDIA_TYPES.manifest);
            await rejects('bad-input', verifyImage(source));
            refused++;
          }
        }
      }
    }
    assert.ok(refused > 1000, String(refused));
  });

  it('refuses configs that are read in two ways', async () => {
    for (const [shape, path] of shapesOf(CONFIG)) {
      for (const spelling of [...shape.known.values()].flatMap(spellingsOf)) {
        const source = new MemorySource();
        const layer = await encryptedLayer(source);
        const config = structuredClone(configOf([digestOf(TAR)]));
        at(config, path)[spelling] = 'x';
        source.putRoot(await manifestOf(source, [layer], { config }), MEDIA_TYPES.manifest);
        await rejects('bad-input', verifyImage(source, STRICT));
      }
    }
  });

  it('fails for entries of an index that some clients run and others do not see', async () => {
    const plain = async (source: MemorySource) =>
      source.put(await manifestOf(source, [source.put(PLAIN, GZIP)]), MEDIA_TYPES.manifest);
    const foreign = async (source: MemorySource) =>
      source.put(await manifestOf(source, [source.put(PLAIN, 'application/x')]), MEDIA_TYPES.manifest);
    const attested = { 'vnd.docker.reference.type': 'attestation-manifest' };
    const entries: readonly ((source: MemorySource) => Promise<object>)[] = [
      async (source) => ({ ...(await plain(source)), mediaType: 'application/x', platform: AMD64 }),
      async (source) => ({ ...(await plain(source)), mediaType: 'application/x' }),
      async (source) => ({ ...(await plain(source)), annotations: attested, platform: AMD64 }),
      async (source) => ({ ...(await plain(source)), annotations: attested }),
      async (source) => ({ ...(await plain(source)), annotations: attested, platform: UNKNOWN }),
      async (source) => ({ ...(await plain(source)), platform: { ...UNKNOWN, variant: 'v1' } }),
      async (source) => ({ ...(await foreign(source)), annotations: attested, platform: AMD64 }),
      async (source) => ({ ...(await foreign(source)), annotations: attested }),
      async (source) => ({ ...(await foreign(source)), platform: { architecture: 'Unknown', os: 'unknown' } }),
      async (source) => ({ ...(await foreign(source)), platform: { architecture: 'unknown', os: 'linux' } }),
      async (source) => source.put(indexOf([await foreign(source)]), MEDIA_TYPES.index),
      async (source) => ({ ...source.put(indexOf([await foreign(source)]), MEDIA_TYPES.index), platform: UNKNOWN }),
    ];
    for (const [number, entry] of entries.entries()) {
      const source = new MemorySource();
      const honest = source.put(await manifestOf(source, [await encryptedLayer(source)]), MEDIA_TYPES.manifest);
      source.putRoot(indexOf([{ ...honest, platform: AMD64 }, await entry(source)]), MEDIA_TYPES.index);
      assert.equal((await verifyImage(source)).ok, false, `entry ${number}`);
    }
  });

  it('says what is wrong of each layer, a thousand times at most, and how much more there is', async () => {
    const source = new MemorySource();
    const plain = source.put(PLAIN, GZIP);
    const reasonsOf = async (count: number) => {
      const layers = Array.from({ length: count }, () => plain);
      source.putRoot(await manifestOf(source, layers), MEDIA_TYPES.manifest);
      return verifyImage(source);
    };
    for (const [count, further] of [
      [1, ''],
      [2, ' (and 1 further reason)'],
      [3, ' (and 2 further reasons)'],
    ] as const) {
      const { code, message } = notVerified(await reasonsOf(count));
      assert.deepEqual(
        [code, message],
        ['integrity', `memory is not encrypted as it should be: linux/amd64: layer 0 is plain (${GZIP})${further}`],
      );
    }
    assert.equal((await reasonsOf(1000)).reasons.at(-1)?.message, `linux/amd64: layer 999 is plain (${GZIP})`);
    const half = source.put(await manifestOf(source, Array(600).fill(plain)), MEDIA_TYPES.manifest);
    const halves = ['amd64', 'arm64'].map((architecture) => ({ ...half, platform: { os: 'linux', architecture } }));
    const { reasons } = await verifyImage(source.putRoot(indexOf(halves), MEDIA_TYPES.index));
    assert.equal(reasons.length, 1001);
    assert.match(reasons[0]?.message ?? '', /layer 0 /);
    assert.deepEqual(reasons.at(-1), { code: 'more', message: 'and so on: there may be further reasons' });
  });

  it('fails for wrapped keys that name no recipient, if only some recipients may open a layer', async () => {
    for (const name of ['pgp', 'pkcs7', 'provider.other', 'new']) {
      const source = new MemorySource();
      const layer = await encryptedLayer(source);
      const annotations = { ...layer.annotations, [`org.opencontainers.image.enc.keys.${name}`]: 'eA==' };
      source.putRoot(await manifestOf(source, [{ ...layer, annotations }]), MEDIA_TYPES.manifest);
      assert.equal((await verifyImage(source, { require: [KEY] })).ok, true, name);
      const { ok, reasons } = await verifyImage(source, { require: [KEY], only: [KEY] });
      assert.deepEqual([ok, reasons.length], [false, 1], name);
      assert.match(reasons[0]?.message ?? '', /has a key of .* that names no recipient$/);
    }
  });

  it('opens the layers with any key if none is required, and fails if there is none', async () => {
    const source = new MemorySource();
    source.putRoot(await manifestOf(source, [await encryptedLayer(source)]), MEDIA_TYPES.manifest);
    assert.deepEqual(await notProved(source, { unwrapper: () => packetKeys([KEY]), content: true }), [true, []]);
    const { ok, proven, reasons } = await verifyImage(source, { unwrapper: () => packetKeys([OTHER]) });
    assert.deepEqual([ok, proven], [false, true]);
    assert.match(reasons[0]?.message ?? '', /is not opened by any key: /);
  });

  it('gives no verdict if a key could not be asked: the reason is that of the key', async () => {
    const source = new MemorySource();
    source.putRoot(await manifestOf(source, [await encryptedLayer(source)]), MEDIA_TYPES.manifest);
    const verifyWith = (code: ErrorCode) =>
      verifyImage(source, { unwrapper: () => ({ unwrap: () => Promise.reject(new OcicryptError(code, 'why')) }) });
    for (const code of ['unavailable', 'throttled', 'not-written', 'configuration', 'unauthenticated'] as const)
      await rejects(code, verifyWith(code));
    for (const code of ['integrity', 'key-disabled', 'not-allowed', 'not-found', 'refused'] as const) {
      const { ok, reasons } = await verifyWith(code);
      assert.deepEqual([ok, reasons.map((reason) => reason.code)], [false, ['not-opened']], code);
    }
  });

  it('keeps each fault that it found, whatever is not known of other layers and keys', async () => {
    const source = new MemorySource();
    const shut = await Promise.all(Array.from({ length: 8 }, () => encryptedLayer(source, { recipients: [SHUT] })));
    const honest = await encryptedLayer(source);
    const plain = await encryptedLayer(source, { stored: PLAIN });
    const unwrapper = (required: string | undefined): LayerKeyUnwrapper => ({
      async unwrap(keys, signal) {
        const named = keys.flatMap((key) => describePacket(key).recipients.map((recipient) => recipient.key));
        if ((required ?? named[0]) === SHUT) throw new OcicryptError('unavailable', 'why');
        return packetKeys([KEY]).unwrap(keys, signal);
      },
    });
    const verify = async (layers: readonly object[], options: VerifyOptions = {}) => {
      source.putRoot(await manifestOf(source, layers), MEDIA_TYPES.manifest);
      return verifyImage(source, { unwrapper, content: true, ...options });
    };
    const both = await encryptedLayer(source, { stored: PLAIN, recipients: [SHUT, KEY] });
    for (const [layers, untried, options] of [
      [[...shut.slice(0, 1), plain], 1],
      [[plain, ...shut.slice(0, 1)], 1],
      [[...shut.slice(0, 3), honest, plain], 3],
      [[plain, ...shut, honest], 9],
      [[both], 1, { require: [SHUT, KEY] }],
    ] as const) {
      const { ok, reasons } = await verify(layers, options);
      assert.deepEqual([ok, reasons.map(({ code }) => code)], [false, ['content', 'not-tried']]);
      assert.equal(reasons[1]?.message, `${untried} layers were not tried to their end: why`);
    }
    await rejects('unavailable', verify([honest, ...shut]));
    Object.assign(source, { resolveTag: async () => undefined });
    const { reasons } = await verify([honest, ...shut], { digestTag: true });
    assert.deepEqual(
      reasons.map(({ code }) => code),
      ['not-tried', 'digest-tag'],
    );
  });

  it('gives no verdict on a layer that could not be read', async () => {
    const source = new MemorySource();
    const layer = await encryptedLayer(source);
    source.putRoot(await manifestOf(source, [layer]), MEDIA_TYPES.manifest);
    const { openBlob } = source;
    source.openBlob = (blob) =>
      blob.digest === layer.digest
        ? Promise.reject(new OcicryptError('unavailable', 'why'))
        : openBlob.call(source, blob);
    await rejects('unavailable', verifyImage(source, STRICT));
  });

  it('compares whatever a packet can name, and refuses the path of a file and the alias of a key', async () => {
    const source = new MemorySource();
    source.putRoot(await manifestOf(source, [await encryptedLayer(source)]), MEDIA_TYPES.manifest);
    const id = '1234abcd-12ab-34cd-56ef-1234567890ab';
    const arn = 'awskms:///arn:aws:kms:eu-west-1:111122223333:';
    for (const key of [
      `keyfile:sha256:${'0'.repeat(64)}`,
      'pkcs11:object=o',
      'kbs:///a/b/c',
      `${arn}key/${id}`,
      OTHER,
    ]) {
      const { reasons } = await verifyImage(source, { require: [key] });
      const message = `linux/amd64: layer 0 is not wrapped for ${key}`;
      assert.deepEqual(reasons, [{ code: 'missing-recipient', message }]);
    }
    for (const key of ['keyfile:///x', 'awskms:///alias/x', `${arn}alias/x`, `awskms:///${id}`])
      for (const options of [{ require: [key] }, { only: [key] }]) await rejects('usage', verifyImage(source, options));
  });

  it('says of an entry that it does not read why not', async () => {
    const source = new MemorySource();
    const honest = source.put(await manifestOf(source, [await encryptedLayer(source)]), MEDIA_TYPES.manifest);
    const strange = `sha512:${'0'.repeat(128)}`;
    for (const [entry, why] of [
      [{ ...honest, mediaType: 'application/x' }, `${honest.digest} is of an unknown type (application/x), `],
      [{ ...honest, digest: strange }, `${strange} is not read, because it is no SHA-256 digest, `],
    ] as const) {
      source.putRoot(
        indexOf([
          { ...honest, platform: AMD64 },
          { ...entry, platform: AMD64 },
        ]),
        MEDIA_TYPES.index,
      );
      const { reasons } = await verifyImage(source);
      assert.ok(reasons[0]?.message.startsWith(why), reasons[0]?.message);
    }
  });

  it('fails for a recipient that is not post-quantum only if that is asked', async () => {
    const recipient = `age1${'q'.repeat(58)}`;
    const source = new MemorySource();
    const layer = await encryptedLayer(source, { recipients: [recipient] });
    source.putRoot(await manifestOf(source, [layer]), MEDIA_TYPES.manifest);
    assert.equal((await verifyImage(source)).ok, true);
    const { ok, reasons } = await verifyImage(source, { postQuantum: true });
    assert.equal(ok, false);
    assert.match(
      reasons.map(({ message }) => message).join(),
      new RegExp(`^linux/amd64: layer 0 is wrapped for ${recipient} .*, which is not post-quantum$`),
    );
  });

  it('fails for layers of any type that is not encrypted, and for a config that is a layer', async () => {
    for (const mediaType of [
      GZIP,
      'application/x',
      'application/vnd.oci.image.layer.v1.tar+gzip+ENCRYPTED',
      'application/vnd.oci.image.layer.v1.tar+encrypted+gzip',
      'application/x+encrypted',
      MEDIA_TYPES.config,
    ]) {
      const source = new MemorySource();
      const layer = await encryptedLayer(source);
      source.putRoot(await manifestOf(source, [layer, { ...layer, mediaType }]), MEDIA_TYPES.manifest);
      assert.equal((await verifyImage(source)).ok, false, mediaType);
    }
    const source = new MemorySource();
    const image = await manifestOf(source, [await encryptedLayer(source)]);
    source.putRoot({ ...image, config: source.put(PLAIN, GZIP) }, MEDIA_TYPES.manifest);
    assert.equal((await verifyImage(source)).ok, false);
    source.putRoot({ ...image, mediaType: MEDIA_TYPES.dockerManifest }, MEDIA_TYPES.dockerManifest);
    assert.equal((await verifyImage(source)).ok, false, 'containers/image refuses encrypted layers there');
  });

  it('fails for a layer that is called encrypted and has no wrapped key, whatever is asked', async () => {
    const source = new MemorySource();
    const { annotations, ...layer } = await encryptedLayer(source);
    source.putRoot(await manifestOf(source, [layer]), MEDIA_TYPES.manifest);
    const { ok, reasons } = await verifyImage(source);
    assert.equal(ok, false);
    assert.match(reasons.map(({ message }) => message).join(), /^linux\/amd64: layer 0 makes no sense: /);
    assert.ok(Object.keys(annotations).length > 0);
  });

  it('fails for an image of no layer, and for an index of no image', async () => {
    const source = new MemorySource();
    source.putRoot(await manifestOf(source, []), MEDIA_TYPES.manifest);
    assert.equal((await verifyImage(source)).ok, false);
    source.putRoot(indexOf([]), MEDIA_TYPES.index);
    assert.equal((await verifyImage(source)).ok, false);
    const attested = { ...source.put(await attestation(source), MEDIA_TYPES.manifest), platform: UNKNOWN };
    source.putRoot(indexOf([attested]), MEDIA_TYPES.index);
    assert.equal((await verifyImage(source)).ok, false, 'an attestation is no image');
  });

  it('fails for an encrypted layer whose annotations lead clients past its bytes', async () => {
    for (const name of [
      'io.github.containers.zstd-chunked.manifest-checksum',
      'containerd.io/snapshot/stargz/toc.digest',
      'containerd.io/snapshot/nydus-blob',
    ]) {
      const source = new MemorySource();
      const layer = await encryptedLayer(source);
      const annotations = { ...layer.annotations, [name]: digestOf(PLAIN) };
      source.putRoot(await manifestOf(source, [{ ...layer, annotations }]), MEDIA_TYPES.manifest);
      assert.equal((await verifyImage(source)).ok, false, name);
    }
  });
});

describe('verify with content', () => {
  it('fails for what is only called encrypted', async () => {
    const zstd = zstdCompressSync(TAR);
    const own = randomBytes(32);
    const nonce = randomBytes(16);
    const claims: readonly (readonly [string, (source: MemorySource) => Promise<object>])[] = [
      [
        'annotations of another layer',
        async (source) => ({ ...(await encryptedLayer(source)), ...source.put(PLAIN, ENCRYPTED) }),
      ],
      ['gzip under a valid HMAC', (source) => encryptedLayer(source, { stored: PLAIN })],
      ['zstd under a valid HMAC', (source) => encryptedLayer(source, { stored: zstd })],
      ['a tar under a valid HMAC', (source) => encryptedLayer(source, { stored: TAR })],
      ['zeros under a valid HMAC', (source) => encryptedLayer(source, { stored: new Uint8Array(10240) })],
      ['noise under a valid HMAC', (source) => encryptedLayer(source, { stored: randomBytes(10240) })],
      ['another nonce', (source) => encryptedLayer(source, { recordNonce: randomBytes(16) })],
      ['a digest that lies', async (source) => lie(source, await encryptedLayer(source))],
      ['a size that lies', async (source) => resize(await encryptedLayer(source))],
      ['something else than the config says', (source) => encryptedLayer(source, { plain: gzipSync('else') })],
    ];
    for (const [what, make] of claims) {
      const source = new MemorySource();
      source.putRoot(await manifestOf(source, [await make(source)]), MEDIA_TYPES.manifest);
      const { ok, proven } = await verifyImage(source, STRICT);
      assert.deepEqual([ok, proven], [false, true], what);
    }
    for (const diffIds of [[], [digestOf(PLAIN)]]) {
      const source = new MemorySource();
      const image = await manifestOf(source, [await encryptedLayer(source)], { config: configOf(diffIds) });
      assert.equal((await verifyImage(source.putRoot(image, MEDIA_TYPES.manifest), STRICT)).ok, false);
    }
    const source = new MemorySource();
    const twice = await encryptedLayer(source, { key: own, nonce });
    const other = await encryptedLayer(source, { key: own, nonce, recordNonce: randomBytes(16), recipients: [OTHER] });
    const name = 'org.opencontainers.image.enc.keys.provider.';
    const shut = await encryptedLayer(source, { key: own, nonce, recipients: [SHUT] });
    const both = {
      ...twice,
      annotations: {
        ...twice.annotations,
        [`${name}other`]: other.annotations[`${name}kmscrypt`],
        [`${name}shut`]: shut.annotations[`${name}kmscrypt`],
      },
    };
    source.putRoot(await manifestOf(source, [both]), MEDIA_TYPES.manifest);
    const verdict = await verifyImage(source, {
      ...STRICT,
      require: [SHUT, KEY, OTHER],
      only: [SHUT, KEY, OTHER],
      unwrapper: (key) => packetKeys([key === undefined || key === SHUT ? `${SHUT}-not` : key]),
    });
    const [closed, mismatch] = verdict.reasons;
    assert.deepEqual([closed?.code, mismatch?.code], ['not-opened', 'key-mismatch']);
    assert.ok(mismatch?.message.endsWith(`has another layer key for ${OTHER} than for ${KEY}`), mismatch?.message);
  });
});

describe('verify with content that its author chose the diff id for', () => {
  it('fails for what begins like a layer in the clear, and passes noise', async () => {
    const mediaType = 'application/vnd.oci.image.layer.v1.tar+encrypted';
    const contents: readonly (readonly [string, Uint8Array])[] = [
      ['gzip', PLAIN],
      ['zstd', zstdCompressSync(TAR)],
      ['a tar', TAR],
      ['a tar whose checksum is blank', withoutChecksum(TAR, 0x20)],
      ['a tar whose checksum is empty', withoutChecksum(TAR, 0)],
      ['zeros', new Uint8Array(10240)],
      ['noise', randomBytes(10240)],
    ];
    for (const [what, stored] of contents) {
      const source = new MemorySource();
      const key = randomBytes(32);
      const nonce = randomBytes(16);
      const plain = createDecipheriv('aes-256-ctr', key, nonce).update(stored);
      const layer = { ...(await encryptedLayer(source, { plain, key, nonce })), mediaType };
      const image = await manifestOf(source, [layer], { config: configOf([digestOf(plain)]) });
      const { ok } = await verifyImage(source.putRoot(image, MEDIA_TYPES.manifest), STRICT);
      assert.equal(ok, what === 'noise', what);
    }
  });
});

describe('what a hostile image costs', () => {
  it('is the manifests that it names, each read once', async () => {
    const source = new MemorySource();
    const image = source.put(await manifestOf(source, [await encryptedLayer(source)]), MEDIA_TYPES.manifest);
    source.putRoot(indexOf(Array.from({ length: 500 }, () => image)), MEDIA_TYPES.index);
    assert.equal((await verifyImage(source, STRICT)).ok, true);
    assert.equal(source.reads.get(image.digest), 1);
    assert.deepEqual([...source.reads.values()].sort((a, b) => a - b).at(-1), 2, 'the config by tree and diff ids');
    source.reads.clear();
    assert.equal((await verifyImage(source, { ...STRICT, content: false })).ok, true);
    assert.deepEqual(new Set(source.reads.values()), new Set([1]), 'no diff ids without content');
  });

  it('is at most 16 MiB of manifests, 1,000 of them and 10,000 layers', async () => {
    const large = new MemorySource();
    const image = await manifestOf(large, [await encryptedLayer(large)]);
    const padded = large.put({ ...image, padding: 'x'.repeat(4 * 1024 * 1024 - 4096) }, MEDIA_TYPES.manifest);
    large.putRoot(indexOf(Array.from({ length: 40 }, () => padded)), MEDIA_TYPES.index);
    await rejects('bad-input', inspectImage(large));
    assert.equal(large.reads.get(padded.digest), 1);

    const many = new MemorySource();
    const small = many.put(await manifestOf(many, []), MEDIA_TYPES.manifest);
    const inner = many.put(indexOf(Array.from({ length: 600 }, () => small)), MEDIA_TYPES.index);
    await rejects('bad-input', inspectImage(many.putRoot(indexOf([inner, inner]), MEDIA_TYPES.index)));

    const wide = new MemorySource();
    const layers = wide.put(
      await manifestOf(
        wide,
        Array.from({ length: 1000 }, () => wide.put(PLAIN, GZIP)),
      ),
      MEDIA_TYPES.manifest,
    );
    await rejects(
      'bad-input',
      inspectImage(wide.putRoot(indexOf(Array.from({ length: 11 }, () => layers)), MEDIA_TYPES.index)),
    );
  });

  it('is so many values in all of its manifests, whatever they are', async () => {
    const source = new MemorySource();
    const image = await manifestOf(source, [await encryptedLayer(source)]);
    const dense = Array.from({ length: 3 }, (_, number) =>
      source.put({ ...image, number, padding: Array(80_000).fill(0) }, MEDIA_TYPES.manifest),
    );
    assert.equal((await verifyImage(source.putRoot(indexOf(dense.slice(0, 2)), MEDIA_TYPES.index), STRICT)).ok, true);
    await assert.rejects(inspectImage(source.putRoot(indexOf(dense), MEDIA_TYPES.index)), (error: OcicryptError) => {
      assert.deepEqual(
        [error.code, error.message],
        ['bad-input', 'memory has more values in its manifests than are read'],
      );
      assert.match(error.hint ?? '', /copy its platforms one by one/);
      return true;
    });
  });

  it('is so many values in all of its packets, and what is not read opens nothing', async () => {
    const source = new MemorySource();
    const layer = await encryptedLayer(source);
    const packet = Buffer.from(JSON.stringify({ recipients: Array(1000).fill({}) })).toString('base64');
    const jwe = Array(63).fill(packet).join(',');
    const annotations = { 'org.opencontainers.image.enc.keys.jwe': jwe, ...layer.annotations };
    source.putRoot(await manifestOf(source, [{ ...layer, annotations }, layer]), MEDIA_TYPES.manifest);
    const { report, reasons } = await verifyImage(source, { require: [KEY] });
    const packets = report.platforms.flatMap(({ layers }) => layers.flatMap(({ keys }) => keys));
    assert.ok(packets.flatMap(({ recipients }) => recipients).length <= 62_500);
    assert.match(packets.at(-1)?.problem ?? '', /more values than are read/);
    assert.deepEqual(
      reasons.map(({ code }) => code),
      ['missing-recipient', 'missing-recipient'],
    );
  });

  it('is sixteen layers that do not open, and four whose keys cannot be asked', async () => {
    const source = new MemorySource();
    const layers = await Promise.all(Array.from({ length: 200 }, () => encryptedLayer(source)));
    source.putRoot(await manifestOf(source, layers), MEDIA_TYPES.manifest);
    assert.deepEqual(await notProved(source, { ...STRICT, content: false }), [true, ['content']], 'all of them open');
    const stranger = packetKeys([OTHER]);
    const { reasons } = await verifyImage(source, { ...STRICT, unwrapper: () => stranger });
    assert.equal(stranger.calls(), 16);
    assert.deepEqual(
      reasons.map(({ code }) => code),
      [...Array(16).fill('not-opened'), 'not-tried'],
    );
    assert.equal(reasons.at(-1)?.message, '184 layers were not tried after 16 had failed');
    let calls = 0;
    const unwrap = () => {
      calls++;
      return Promise.reject(new OcicryptError('unavailable', 'why'));
    };
    await rejects('unavailable', verifyImage(source, { ...STRICT, unwrapper: () => ({ unwrap }) }));
    assert.equal(calls, 4);
  });

  it('is four keys that are asked for side by side, and as many layers as the source gives', async () => {
    const source = new MemorySource();
    const layers = await Promise.all(Array.from({ length: 8 }, () => encryptedLayer(source)));
    source.putRoot(await manifestOf(source, layers), MEDIA_TYPES.manifest);
    for (const [content, expected] of [
      [false, 4],
      [true, source.transfers],
    ] as const) {
      let [asked, most] = [0, 0];
      const unwrap: LayerKeyUnwrapper['unwrap'] = async (keys, signal) => {
        most = Math.max(most, ++asked);
        await turn();
        asked--;
        return packetKeys([KEY]).unwrap(keys, signal);
      };
      assert.equal((await verifyImage(source, { unwrapper: () => ({ unwrap }), content })).ok, true);
      assert.equal(most, expected);
    }
  });

  it('ends with its signal, whatever is known by then', async () => {
    const source = new MemorySource();
    source.putRoot(await manifestOf(source, [await encryptedLayer(source)]), MEDIA_TYPES.manifest);
    const controller = new AbortController();
    const reason = new Error('enough');
    const unwrap = () => {
      controller.abort(reason);
      return Promise.reject(new OcicryptError('integrity', 'why'));
    };
    await assert.rejects(
      verifyImage(source, { unwrapper: () => ({ unwrap }), signal: controller.signal }),
      (error) => error === reason,
    );
  });

  it('is 64 wrapped keys that do not open, and 8 for each that does', async () => {
    const wrapped = (count: number) =>
      Array.from({ length: count }, (_, index) => ({ scheme: 'jwe', packet: Uint8Array.of(index) }));
    let calls = 0;
    const holder = (code: ErrorCode, opening: (first: number) => boolean): KeyHolder => ({
      opens: () => true,
      async open({ packet }) {
        calls++;
        if (opening(packet[0] ?? 0)) return new Uint8Array(0);
        throw new OcicryptError(code, 'no');
      },
    });
    const signal = new AbortController().signal;
    const hostile = createUnwrapper([holder('integrity', () => false)], '');
    for (let layer = 0; layer < 100; layer++) await assert.rejects(hostile.unwrap(wrapped(64), signal));
    assert.equal(calls, 65);
    calls = 0;
    const slow = createUnwrapper([holder('integrity', (first) => first === 8)], '');
    for (let layer = 0; layer < 1000; layer++) await slow.unwrap(wrapped(9), signal);
    assert.equal(calls, 9000, 'eight failures for each success are an honest image');
    const denied = createUnwrapper([holder('not-allowed', (first) => first === 63)], '');
    for (let layer = 0; layer < 100; layer++) await denied.unwrap(wrapped(64), signal);
    for (const code of ['unavailable', 'deadline-exceeded', 'throttled'] as const) {
      calls = 0;
      const down = createUnwrapper([holder(code, () => false)], '');
      await assert.rejects(down.unwrap(wrapped(64), signal), { code });
      assert.equal(calls, 4, 'each takes as long as a request may');
    }
  });

  it('is 64 sets of recipients for the doctor', async () => {
    const source = new MemorySource();
    const layers = await Promise.all(
      Array.from({ length: 65 }, (_, index) => encryptedLayer(source, { recipients: [`${KEY}${index}`] })),
    );
    source.putRoot(await manifestOf(source, layers), MEDIA_TYPES.manifest);
    await rejects('bad-input', groupLayers(source, new AbortController().signal));
    source.putRoot(await manifestOf(source, layers.slice(1)), MEDIA_TYPES.manifest);
    assert.equal((await groupLayers(source, new AbortController().signal)).length, 64);
  });
});

async function notProved(source: MemorySource, options: VerifyOptions): Promise<[boolean, Verification['notProved']]> {
  const { ok, reasons, notProved: left } = await verifyImage(source, options);
  assert.deepEqual(reasons, []);
  return [ok, left];
}

type LayerWishes = {
  readonly plain?: Uint8Array;
  /** In place of the ciphertext, and what the HMAC is over. */
  readonly stored?: Uint8Array;
  readonly key?: Uint8Array;
  readonly nonce?: Uint8Array;
  /** In place of the nonce in the layer-key record. */
  readonly recordNonce?: Uint8Array;
  readonly recipients?: readonly string[];
};

/** What anybody can make who may encrypt to the key. */
async function encryptedLayer(source: MemorySource, wishes: LayerWishes = {}): Promise<EncryptedLayer> {
  const { plain = PLAIN, key = randomBytes(32), nonce = randomBytes(16), recipients = [KEY] } = wishes;
  const stored = wishes.stored ?? createCipheriv('aes-256-ctr', key, nonce).update(plain);
  const hmac = createHmac('sha256', key).update(stored).digest();
  const record = encodeLayerKeyRecord({ key, nonce: wishes.recordNonce ?? nonce, digest: digestOf(plain) });
  const [packet] = await v2Recipient(recipients).wrap(record, new AbortController().signal);
  const keys = packet === undefined ? [] : [{ scheme: 'provider.kmscrypt', packet }];
  const annotations = Object.fromEntries(encodeEncryption(encodePublicOptions({ hmac }), keys));
  return { ...source.put(stored, ENCRYPTED), annotations };
}

/** A tar whose first header has no checksum, which Go reads as 0: what is signed in its bytes comes to that. */
function withoutChecksum(tar: Uint8Array, blank: number): Uint8Array {
  const changed = Uint8Array.from(tar);
  // Of the first tars, to whose readers the rest of the header means nothing.
  changed.fill(0, 257, 512).fill(0x20, 148, 156);
  let left = changed.subarray(0, 512).reduce((sum, byte) => sum + byte, 0);
  for (let at = 400; left > 0; at++) {
    const part = Math.min(left, 128);
    changed[at] = 256 - part;
    left -= part;
  }
  return changed.fill(blank, 148, 156);
}

/** The digest of other bytes than those that are stored under it, which have the HMAC. */
function lie(source: MemorySource, layer: EncryptedLayer): EncryptedLayer {
  const digest = digestOf(PLAIN);
  source.alias(layer.digest, digest);
  return { ...layer, digest };
}

function resize(layer: EncryptedLayer): EncryptedLayer {
  return { ...layer, size: layer.size + 1 };
}

async function manifestOf(
  source: MemorySource,
  layers: readonly object[],
  { config = configOf(layers.map(() => digestOf(TAR))) }: { readonly config?: Json } = {},
): Promise<Json> {
  const named = source.put(config, MEDIA_TYPES.config);
  return {
    schemaVersion: 2,
    mediaType: MEDIA_TYPES.manifest,
    config: named,
    layers: layers.map((layer) => ({ ...layer })),
  };
}

async function attestation(source: MemorySource): Promise<Json> {
  return manifestOf(source, [source.put({ predicate: 'x' }, 'application/vnd.in-toto+json')]);
}

function configOf(diffIds: readonly string[]): Json {
  return { ...AMD64, rootfs: { type: 'layers', diff_ids: diffIds } };
}

function indexOf(manifests: readonly object[]): Json {
  return { schemaVersion: 2, mediaType: MEDIA_TYPES.index, manifests };
}

/** Every struct in a document and the way to one of it. */
function* shapesOf(shape: Shape, path: readonly string[] = []): Generator<[Shape, readonly string[]]> {
  yield [shape, path];
  for (const [name, kind] of shape.members) {
    if (typeof kind !== 'object') continue;
    const inner = 'members' in kind ? kind : kind[0];
    yield* shapesOf(inner, [...path, name]);
  }
}

/** The object at the path; made where it is missing. */
function at(document: Json, path: readonly string[]): Json {
  let found = document;
  for (const name of path) {
    const value = found[name] ?? {};
    found[name] = value;
    found = isJson(value) ? (isJson(value[0]) ? value[0] : value) : {};
  }
  return found;
}

function isJson(value: unknown): value is Json {
  return typeof value === 'object' && value !== null;
}

function spellingsOf(name: string): readonly string[] {
  const all = [
    name.toUpperCase(),
    `${name[0]?.toUpperCase()}${name.slice(1)}`,
    name.toLowerCase(),
    name.replace('s', '\u017f'),
    name.replace('k', '\u212a'),
    name.replace(/S/i, '\u017f').toUpperCase().replace('\u0053', '\u017f'),
  ];
  return [...new Set(all)].filter((spelling) => spelling !== name);
}
