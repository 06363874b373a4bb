// The layer cipher: what it encrypts any ocicrypt opens, and nothing that was changed comes out whole.

import assert from 'node:assert/strict';
import { createCipheriv, createHash, createHmac } from 'node:crypto';
import { test } from 'node:test';
import fc from 'fast-check';
import { OcicryptError } from '../../../src/base/errors.ts';
import { decryptLayer, decryptStream, type EncryptedLayer, encryptLayer } from '../../../src/image/cipher/layer.ts';
import { type ByteSink, type ByteSource, sourceFromStream } from '../../../src/image/cipher/streams.ts';
import { decodeLayerKeyRecord, decodePublicOptions } from '../../../src/image/model/layer-options.ts';
import { sample, seeded } from '../../fixtures/seed.ts';
import { digestOf, rejects } from '../harness.ts';

const MIB = 1024 * 1024;

test(seeded('encrypting and then decrypting is the identity for any bytes in any chunks'), async () => {
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ maxLength: 5000 }), fc.integer({ min: 1, max: 700 }), async (plain, chunk) => {
      const { encrypted, cipher } = await encrypt(plain, chunk);
      assert.deepEqual(await decrypt(encrypted, cipher, chunk), plain);
    }),
    sample(100),
  );
});

test('layers of several chunks come back, through the threads or not, whatever the last chunk holds', async () => {
  for (const size of [MIB, MIB + 1, 2 * MIB, 2 * MIB + 1, 3 * MIB, 17 * MIB - 1, 17 * MIB, 40 * MIB + 4097]) {
    const plain = bytesOf(size);
    const { encrypted, cipher } = await encrypt(plain, 300_007);
    assert.equal(encrypted.digest, digestOf(cipher));
    assert.ok(Buffer.from(await decrypt(encrypted, cipher, 65_536)).equals(plain), `${size} bytes`);
  }
});

test('the ciphertext, its HMAC and both records are those of ocicrypt', async () => {
  for (const size of [0, 1, 100_000, 5 * MIB]) {
    const plain = bytesOf(size);
    const { encrypted, cipher } = await encrypt(plain, 1_000_000);
    assert.equal(encrypted.wrapped.length, 193);
    const record = JSON.parse(Buffer.from(encrypted.wrapped).toString());
    assert.deepEqual(Object.keys(record), ['symkey', 'digest', 'cipheroptions']);
    assert.equal(record.digest, digestOf(plain));
    const key = Buffer.from(record.symkey, 'base64');
    const expected = createCipheriv('aes-256-ctr', key, Buffer.from(record.cipheroptions.nonce, 'base64')).update(
      plain,
    );
    assert.ok(expected.equals(cipher));
    assert.equal(
      Buffer.from(encrypted.publicOptions).toString(),
      `{"cipher":"AES_256_CTR_HMAC_SHA256","hmac":"${createHmac('sha256', key).update(cipher).digest('base64')}","cipheroptions":{}}`,
    );
  }
});

test(seeded('a change of any byte of the blob is refused before the output is whole'), async () => {
  for (const size of [1, 500, 3 * MIB + 5]) {
    const plain = bytesOf(size);
    const { encrypted, cipher } = await encrypt(plain, 100_000);
    await fc.assert(
      fc.asyncProperty(fc.nat({ max: size - 1 }), fc.integer({ min: 1, max: 255 }), async (at, change) => {
        const changed = Uint8Array.from(cipher);
        changed[at] = (changed[at] ?? 0) ^ change;
        await refused(encrypted, changed, size);
      }),
      sample(size > MIB ? 10 : 100),
    );
  }
});

test('a blob that is cut, longer, or empty is refused before the output is whole', async () => {
  for (const size of [1, 500, 3 * MIB]) {
    const { encrypted, cipher } = await encrypt(bytesOf(size), 100_000);
    await refused(encrypted, cipher.subarray(0, size - 1), size);
    await refused(encrypted, Buffer.concat([cipher, Buffer.alloc(1)]), size);
    await refused(encrypted, new Uint8Array(0), size);
  }
});

test('a change of the HMAC, the key or the digest-checked size is refused, and no error holds a MAC', async () => {
  const { encrypted, cipher } = await encrypt(bytesOf(5000), 100);
  const open = decodeLayerKeyRecord(encrypted.wrapped, 'layer');
  const { hmac } = decodePublicOptions(encrypted.publicOptions, 'layer');
  for (let at = 0; at < 32; at++) {
    const otherMac = Uint8Array.from(hmac);
    otherMac[at] = (otherMac[at] ?? 0) ^ 1;
    const otherKey = Uint8Array.from(open.key);
    otherKey[at] = (otherKey[at] ?? 0) ^ 1;
    for (const [mac, key] of [
      [otherMac, open.key],
      [hmac, otherKey],
    ] as const) {
      const out = collector();
      const error = await decryptLayer(
        sourceOf(cipher, 1000),
        out.sink,
        encrypted,
        { hmac: mac },
        { ...open, key },
      ).then(
        () => assert.fail('was decrypted'),
        (reason: unknown) => reason,
      );
      assert.ok(error instanceof OcicryptError && error.code === 'integrity');
      for (const secret of [mac, hmac, open.key]) {
        for (const spelling of ['hex', 'base64', 'base64url'] as const) {
          assert.ok(!`${error.stack}${error.hint}`.includes(Buffer.from(secret).toString(spelling)));
        }
      }
      assert.equal(out.bytes().length, 0);
    }
  }
});

test('a layer whose bytes are not what the manifest says is not encrypted', async () => {
  for (const size of [10, 3 * MIB]) {
    const plain = bytesOf(size);
    const out = collector();
    const other = { digest: digestOf(bytesOf(size + 1)), size };
    await rejects('integrity', encryptLayer(sourceOf(plain, 1000), out.sink, other, keep));
    assert.ok(out.bytes().length < size);
    await rejects(
      'integrity',
      encryptLayer(sourceOf(plain, 1000), collector().sink, { digest: digestOf(plain), size: size - 1 }, keep),
    );
    await rejects(
      'integrity',
      encryptLayer(sourceOf(plain, 1000), collector().sink, { digest: digestOf(plain), size: size + 1 }, keep),
    );
  }
});

test('a failure of source or sink and an abort end the work at once, and the next layer is not disturbed', {
  timeout: 60_000,
}, async () => {
  const plain = bytesOf(40 * MIB);
  const layer = { digest: digestOf(plain), size: plain.length };
  const broken = new Error('broken');
  let reads = 0;
  const failingSource: ByteSource = {
    read: async (into) => (++reads > 5000 ? Promise.reject(broken) : Math.min(into.length, 1000)),
  };
  await assert.rejects(encryptLayer(failingSource, collector().sink, layer, keep), broken);
  let writes = 0;
  const failingSink: ByteSink = { write: async () => (++writes > 3 ? Promise.reject(broken) : undefined) };
  await assert.rejects(encryptLayer(sourceOf(plain, MIB), failingSink, layer, keep), broken);
  const hanging: ByteSource = { read: () => new Promise(() => {}) };
  await assert.rejects(
    encryptLayer(hanging, collector().sink, layer, keep, { signal: AbortSignal.timeout(20) }),
    (error: unknown) => error instanceof Error && error.name === 'TimeoutError',
  );
  const { encrypted, cipher } = await encrypt(plain, MIB);
  assert.ok(Buffer.from(await decrypt(encrypted, cipher, MIB)).equals(plain));
});

test('the digest of the blob is checked if that is asked for; the HMAC is in any case', async () => {
  for (const size of [1000, 3 * MIB]) {
    const { encrypted, cipher } = await encrypt(bytesOf(size), MIB);
    const opened = decodeLayerKeyRecord(encrypted.wrapped, 'layer');
    const shown = decodePublicOptions(encrypted.publicOptions, 'layer');
    const open = (layer: typeof encrypted, bytes: Uint8Array, options?: { checkDigest: boolean }) =>
      decryptLayer(sourceOf(bytes, MIB), collector().sink, layer, shown, opened, options);
    const renamed = { ...encrypted, digest: digestOf(bytesOf(size + 1)) };
    assert.deepEqual(await open(renamed, cipher), { digest: opened.digest, size });
    assert.deepEqual(await open(encrypted, cipher, { checkDigest: true }), { digest: opened.digest, size });
    await rejects('integrity', open(renamed, cipher, { checkDigest: true }));
    const changed = Buffer.concat([cipher.subarray(1), Buffer.alloc(1)]);
    await rejects('integrity', open({ ...encrypted, digest: digestOf(changed) }, changed, { checkDigest: true }));
  }
});

test('a stream gets the layer, and not its end if the HMAC is wrong', async () => {
  for (const size of [1000, 3 * MIB]) {
    const plain = bytesOf(size);
    const { encrypted, cipher } = await encrypt(plain, MIB);
    const opened = decodeLayerKeyRecord(encrypted.wrapped, 'layer');
    const shown = decodePublicOptions(encrypted.publicOptions, 'layer');
    const whole = collector();
    await decryptStream(sourceOf(cipher, MIB), whole.sink, encrypted, shown, opened);
    assert.ok(Buffer.from(whole.bytes()).equals(plain));
    const cut = collector();
    const hmac = Uint8Array.from(shown.hmac, (byte) => byte ^ 1);
    await rejects('integrity', decryptStream(sourceOf(cipher, MIB), cut.sink, encrypted, { hmac }, opened));
    assert.ok(cut.bytes().length < size);
  }
});

test('a layer-key record is wiped, whether it was wrapped or not', async () => {
  const plain = bytesOf(1000);
  const layer = { digest: digestOf(plain), size: plain.length };
  for (const wrap of [async () => {}, () => Promise.reject(new Error('broken'))]) {
    const seen: Uint8Array[] = [];
    await encryptLayer(sourceOf(plain, 100), collector().sink, layer, (record) => {
      seen.push(record);
      assert.ok(record.some((byte) => byte !== 0));
      return wrap();
    }).catch(() => undefined);
    assert.deepEqual(
      seen.map((record) => record.every((byte) => byte === 0)),
      [true],
    );
  }
});

test('a key service that refuses ends the work at once, but for what is being written', {
  timeout: 20_000,
}, async () => {
  const broken = new Error('broken');
  const hanging: ByteSource = { read: () => new Promise(() => {}) };
  const layer = { digest: digestOf(bytesOf(0)), size: 5 * MIB };
  await assert.rejects(
    encryptLayer(hanging, collector().sink, layer, () => Promise.reject(broken)),
    broken,
  );
  for (const size of [2 * MIB, 5 * MIB]) {
    const plain = bytesOf(size);
    const begun = Promise.withResolvers<void>();
    let isWriting = false;
    const sink: ByteSink = {
      write: async () => {
        isWriting = true;
        begun.resolve();
        await new Promise((resolve) => setTimeout(resolve, 20));
        isWriting = false;
      },
    };
    const wrap = () => begun.promise.then(() => Promise.reject(broken));
    await assert.rejects(encryptLayer(sourceOf(plain, MIB), sink, { digest: digestOf(plain), size }, wrap), broken);
    assert.equal(isWriting, false);
  }
});

test('layers at the same time do not disturb each other, and progress adds up', async () => {
  await Promise.all(
    [5, 9, 21, 33].map(async (mib) => {
      const plain = bytesOf(mib * MIB);
      let seen = 0;
      const out = collector();
      const layer = { digest: digestOf(plain), size: plain.length };
      const encrypted = await encryptLayer(sourceOf(plain, 77_777), out.sink, layer, keep, {
        onProgress: (bytes) => {
          seen += bytes;
        },
      });
      assert.equal(seen, plain.length);
      assert.ok(Buffer.from(await decrypt(encrypted, out.bytes(), MIB)).equals(plain));
    }),
  );
});

type Encrypted = EncryptedLayer<Uint8Array>;

/** Stands for a recipient that keeps the record. */
const keep = async (record: Uint8Array): Promise<Uint8Array> => Uint8Array.from(record);

async function encrypt(plain: Uint8Array, chunk: number): Promise<{ encrypted: Encrypted; cipher: Uint8Array }> {
  const out = collector();
  const layer = { digest: digestOf(plain), size: plain.length };
  const encrypted = await encryptLayer(sourceOf(plain, chunk), out.sink, layer, keep);
  assert.equal(encrypted.size, plain.length);
  return { encrypted, cipher: out.bytes() };
}

async function decrypt(encrypted: Encrypted, cipher: Uint8Array, chunk: number): Promise<Uint8Array> {
  const out = collector();
  const opened = decodeLayerKeyRecord(encrypted.wrapped, 'layer');
  const shown = decodePublicOptions(encrypted.publicOptions, 'layer');
  const identity = await decryptLayer(sourceOf(cipher, chunk), out.sink, encrypted, shown, opened);
  assert.deepEqual(identity, { digest: opened.digest, size: cipher.length });
  return out.bytes();
}

async function refused(encrypted: Encrypted, changed: Uint8Array, size: number): Promise<void> {
  const out = collector();
  const opened = decodeLayerKeyRecord(encrypted.wrapped, 'layer');
  const shown = decodePublicOptions(encrypted.publicOptions, 'layer');
  await rejects('integrity', decryptLayer(sourceOf(changed, 65_536), out.sink, encrypted, shown, opened));
  assert.ok(out.bytes().length < size);
}

function sourceOf(bytes: Uint8Array, chunk: number): ByteSource {
  return sourceFromStream(
    (async function* () {
      for (let from = 0; from < bytes.length; from += chunk) yield bytes.subarray(from, from + chunk);
    })(),
  );
}

function collector(): { sink: ByteSink; bytes: () => Uint8Array } {
  const parts: Uint8Array[] = [];
  return {
    sink: {
      write: async (bytes) => {
        parts.push(Uint8Array.from(bytes));
      },
    },
    bytes: () => new Uint8Array(Buffer.concat(parts)),
  };
}

function bytesOf(size: number): Uint8Array {
  const key = createHash('sha256').update(`${size}`).digest();
  return new Uint8Array(createCipheriv('aes-256-ctr', key, Buffer.alloc(16)).update(Buffer.alloc(size)));
}
