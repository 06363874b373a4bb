import assert from 'node:assert/strict';
import { test } from 'node:test';
import { asOcicryptError, OcicryptError } from '../../src/base/errors.ts';
import { formatKeyUri } from '../../src/base/key-uri.ts';
import type { EncryptionContext, Kek } from '../../src/kms/kek.ts';
import { createProvider, type ProviderOptions } from '../../src/provider/handle.ts';
import { decodePacket } from '../../src/provider/packet.ts';
import { contentDigest, openPacketV2 } from '../../src/provider/packet-v2.ts';
import { OPTSDATA } from '../fixtures/packets.ts';
import { createTestKek, type TestKek } from '../fixtures/provider.ts';
import { base64, wrapRequest } from '../fixtures/vectors/shape.ts';

const key = (name: string | number) => `gcpkms://projects/p/locations/l/keyRings/r/cryptoKeys/${name}`;
const keys = (count: number) => Array.from({ length: count }, (_, index) => key(`k${index}`));

type World = {
  readonly opened: string[];
  readonly wrapped: string[];
  readonly contexts: EncryptionContext[];
  readonly aborted: string[];
};

function provider(behaviour: Readonly<Record<string, TestKek>> = {}, more: Partial<ProviderOptions> = {}) {
  const world: World = { opened: [], wrapped: [], contexts: [], aborted: [] };
  const openKek = async (uri: Parameters<ProviderOptions['openKek']>[0]): Promise<Kek> => {
    const name = formatKeyUri(uri);
    world.opened.push(name);
    const inner = createTestKek(name, behaviour[name]);
    return {
      ...inner,
      wrap(plaintext, context, signal) {
        world.wrapped.push(name);
        world.contexts.push(context);
        signal.addEventListener('abort', () => world.aborted.push(name));
        return inner.wrap(plaintext, context, signal);
      },
    };
  };
  const options: ProviderOptions = {
    openKek,
    rules: [],
    callerKeysAllowed: true,
    names: { configured: undefined, fallback: 'kmscrypt' },
    limits: { total: 2000, attempt: 500, attempts: 3, stagger: 50 },
    ...more,
  };
  return { world, wrap: (named: readonly string[]) => createProvider(options).handle(Buffer.from(wrapRequest(named))) };
}

function packetOf(reply: Uint8Array) {
  return decodePacket(Buffer.from(JSON.parse(Buffer.from(reply).toString()).keywrapresults.annotation, 'base64'));
}

test('every recipient of a call gets the same data key, in order, each once', async () => {
  const { wrap, world } = provider();
  const packet = packetOf(await wrap([key('a'), key('b'), key('a'), 'Enabled', key('c')]));
  assert.ok(packet.format === 'v2');
  assert.deepEqual(
    packet.recipients.map((one) => one.key),
    [key('a'), key('b'), key('c')],
  );
  for (const { wrapped } of packet.recipients) assert.deepEqual(Buffer.from(openPacketV2(packet, wrapped)), OPTSDATA);
  assert.deepEqual(world.opened, [key('a'), key('b'), key('c')]);
  const content = contentDigest(packet);
  assert.deepEqual(world.contexts, Array(3).fill({ 'ocicrypt-kms': 'v2', content }));
});

test('all recipients or none: one failure is the whole call’s, and ends the others', async () => {
  const refused = new OcicryptError('refused', `${key('b')} refuses`);
  const hang: TestKek = { wrap: () => new Promise(() => {}) };
  const { wrap, world } = provider({ [key('b')]: { wrap: () => Promise.reject(refused) }, [key('c')]: hang });
  const error = await wrap([key('a'), key('b'), key('c')]).catch(asOcicryptError);
  assert.ok(error instanceof OcicryptError && error.code === 'refused' && error.message.includes(key('b')));
  assert.ok(world.aborted.includes(key('c')), 'the one that hangs is told');
});

test('sixteen recipients are possible, seventeen are refused before any key is opened', async () => {
  const { wrap, world } = provider();
  const packet = packetOf(await wrap(keys(16)));
  assert.ok(packet.format === 'v2' && packet.recipients.length === 16);
  world.opened.length = 0;
  const error = await wrap(keys(17)).catch(asOcicryptError);
  assert.ok(error instanceof OcicryptError && error.code === 'bad-input');
  assert.deepEqual(world.opened, []);
});

test('a fault of the moment is tried again, three times at the most', async () => {
  let calls = 0;
  const flaky: TestKek = {
    async wrap(plaintext) {
      if (++calls < 3) throw new OcicryptError('unavailable', 'gone', { retryable: true });
      return { key: key('a'), algorithm: 'X', wrapped: Uint8Array.from(plaintext) };
    },
  };
  const { wrap } = provider({ [key('a')]: flaky });
  await wrap([key('a')]);
  assert.equal(calls, 3);
});

test('v1 is written under the reference provider’s name for one Google key without labels, and where it is asked for', async () => {
  const format = async (named: readonly string[], more: Partial<ProviderOptions>) =>
    packetOf(await provider({}, more).wrap(named)).format;
  assert.equal(await format([key('a')], { packet: 'reference' }), 'v1');
  assert.equal(await format([key('a'), key('a')], { packet: 'reference' }), 'v1');
  assert.equal(await format([key('a'), key('b')], { packet: 'reference' }), 'v2');
  assert.equal(await format([key('a')], { packet: 'reference', labels: { env: 'prod' } }), 'v2');
  assert.equal(await format(['awskms:///alias/a'], { packet: 'reference' }), 'v2');
  assert.equal(await format([key('a')], { packet: 'v1' }), 'v1');
  assert.equal(await format([key('a')], {}), 'v2');
  for (const [named, more] of [
    [[key('a'), key('b')], {}],
    [['awskms:///alias/a'], {}],
    [[key('a')], { labels: { env: 'prod' } }],
  ] as const) {
    const error = await format(named, { packet: 'v1', ...more }).catch(asOcicryptError);
    assert.ok(error instanceof OcicryptError && error.code === 'bad-input' && error.hint?.includes('packet v2'));
  }
});

test('a key that turns out to be asymmetric gets v2 under the reference provider’s name, and is refused where v1 is asked for', async () => {
  const tooSmall: TestKek['wrap'] = async (plaintext) => {
    if (plaintext.length > 190) throw new OcicryptError('bad-input', 'it takes at most 190 bytes');
    return { key: key('a'), version: '3', algorithm: 'RSA_DECRYPT_OAEP_2048_SHA256', wrapped: plaintext.slice() };
  };
  const largeEnough: TestKek['wrap'] = async (plaintext) => {
    return { key: key('a'), version: '3', algorithm: 'RSA_DECRYPT_OAEP_3072_SHA256', wrapped: plaintext.slice() };
  };
  for (const wrap of [tooSmall, largeEnough]) {
    const packet = packetOf(await provider({ [key('a')]: { wrap } }, { packet: 'reference' }).wrap([key('a')]));
    assert.ok(packet.format === 'v2' && packet.recipients[0]?.version === '3');
    const error = await provider({ [key('a')]: { wrap } }, { packet: 'v1' })
      .wrap([key('a')])
      .catch(asOcicryptError);
    assert.ok(error instanceof OcicryptError && error.code === 'bad-input');
  }
});

test('v1 wraps the record itself, without context', async () => {
  const { wrap, world } = provider({}, { packet: 'v1' });
  const packet = packetOf(await wrap([key('a')]));
  assert.ok(packet.format === 'v1');
  assert.deepEqual(Buffer.from(packet.recipient.wrapped), OPTSDATA);
  assert.deepEqual(world.contexts, [{}]);
});

test('labels are in the packet and in the context of every key', async () => {
  const { wrap, world } = provider({}, { labels: { env: 'prod', team: 'a b' } });
  const packet = packetOf(await wrap([key('a'), key('b')]));
  assert.ok(packet.format === 'v2');
  assert.deepEqual(packet.labels, { env: 'prod', team: 'a b' });
  const context = {
    'ocicrypt-kms': 'v2',
    content: contentDigest(packet),
    'label.env': 'prod',
    'label.team': 'a b',
  };
  assert.deepEqual(world.contexts, [context, context]);
});

test('a packet too large to be read again is not written', async () => {
  const wrapped = new Uint8Array(4000);
  const large = (name: string): TestKek => ({ wrap: async () => ({ key: name, algorithm: 'X', wrapped }) });
  const named = keys(10);
  const { wrap } = provider(Object.fromEntries(named.map((name) => [name, large(name)])));
  const error = await wrap(named).catch(asOcicryptError);
  assert.ok(error instanceof OcicryptError && error.code === 'bad-input');
});

test('P15 a key that hangs is named, with what to do, within the deadline', async () => {
  const hang: TestKek = { wrap: () => new Promise(() => {}) };
  const limits = { total: 200, attempt: 500, attempts: 3, stagger: 50 };
  const { wrap } = provider({ [key('b')]: hang }, { limits });
  const started = performance.now();
  const error = await wrap([key('a'), key('b')]).catch(asOcicryptError);
  assert.ok(performance.now() - started < 1200);
  assert.ok(error instanceof OcicryptError && error.code === 'deadline-exceeded');
  assert.ok(error.message.includes(key('b')) && error.hint !== undefined, error.message);
});

test('a server opens nothing that a caller names beyond its list', async () => {
  const { wrap, world } = provider({}, { callerKeysAllowed: false });
  const error = await wrap([key('a')]).catch(asOcicryptError);
  assert.ok(
    error instanceof OcicryptError && error.code === 'not-allowed' && error.hint?.includes(`rules=${key('a')}`),
  );
  assert.deepEqual(world.opened, []);
});

test('base64 in a request is not kept: the record is wiped after wrapping', async () => {
  const seen: Uint8Array[] = [];
  const { wrap } = provider(
    {
      [key('a')]: {
        async wrap(plaintext) {
          seen.push(plaintext);
          return { key: key('a'), algorithm: 'GOOGLE_SYMMETRIC_ENCRYPTION', wrapped: Uint8Array.of(1) };
        },
      },
    },
    { packet: 'v1' },
  );
  await wrap([key('a')]);
  assert.ok(seen[0]?.length === OPTSDATA.length && seen[0].every((byte) => byte === 0), base64('wiped'));
});
