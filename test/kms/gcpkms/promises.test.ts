// Google Cloud KMS through the whole provider: what is promised of it under faults and rotation (P10, P12, P27, P28).
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, before, describe, test } from 'node:test';
import { asOcicryptError } from '../../../src/base/errors.ts';
import type { GcpKmsSettings } from '../../../src/kms/gcpkms/key.ts';
import { DEFAULT_LIMITS, type Limits } from '../../../src/provider/attempts.ts';
import type { Fault } from '../../fakes/wire.ts';
import { seeded } from '../../fixtures/seed.ts';
import { unwrapRequest, wrapRequest } from '../../fixtures/vectors/shape.ts';
import {
  createGoogleProvider,
  createRecord,
  type FaultPlan,
  readPacket,
  replyOf,
  unwrapUnderFaults,
} from './faults.ts';
import { FIRST, RING, refusal, startWorld, type World } from './world.ts';

/** Less time than usual, so that what is late takes less of it; the full time is for `npm run prove`. */
const QUICK: Limits = { total: 6000, attempt: 1000, attempts: 3, stagger: 30 };

/** How many succeed is asserted where right answers are read in time: a busy machine lets some of them pass their attempt's time. */
describe('P10: Google’s faults end in the right key or an error', () => {
  let world: World;
  before(async () => {
    world = await startWorld();
  });
  after(() => world.close());

  const run = (plan: FaultPlan, unwraps: number) =>
    unwrapUnderFaults(world, { unwraps, plan, limits: QUICK, parallel: 24 });

  test(seeded('a fifth of the unwraps meets one fault or two in a row: they succeed'), async () => {
    const report = await run({ kind: 'unwraps', rate: 0.2 }, 600);
    assert.deepEqual([report.wrongKeys, report.hangs], [0, 0], JSON.stringify(report));
    assert.ok(report.succeeded >= 594 || report.late > 0, JSON.stringify(report));
  });

  test(seeded('a fifth of all exchanges goes wrong: nearly all unwraps succeed'), async () => {
    const report = await run({ kind: 'exchanges', rate: 0.2 }, 300);
    assert.deepEqual([report.wrongKeys, report.hangs], [0, 0], JSON.stringify(report));
    assert.ok(report.succeeded >= 285 || report.late > 0, JSON.stringify(report));
  });

  test(seeded('every exchange goes wrong: no wrong key and no hang'), async () => {
    const report = await run({ kind: 'all' }, 120);
    assert.deepEqual([report.wrongKeys, report.hangs], [0, 0], JSON.stringify(report));
  });

  test('a token that nobody takes, a certificate that nobody trusts and a name that nobody knows end in an error', async () => {
    const packet = await wrapFirst(world);
    const unwrapWith = async (more: Partial<GcpKmsSettings>, limits = QUICK) => {
      const open = (key: string) => world.open(key, more);
      const error = await createGoogleProvider({ ...world, open }, limits)
        .handle(Buffer.from(unwrapRequest(packet)))
        .catch(asOcicryptError);
      assert.ok(error instanceof Error);
      return error.code;
    };
    world.identities.clockSkew = 7200;
    assert.equal(await unwrapWith({}), 'unauthenticated');
    world.identities.clockSkew = 0;
    assert.match(await unwrapWith({ caFiles: [] }), /^(?:configuration|unavailable)$/);
    const once = { ...QUICK, attempts: 1 };
    assert.match(await unwrapWith({ endpoint: 'https://kms.invalid' }, once), /^(?:deadline-exceeded|unavailable)$/);
  });
});

describe('P12: every byte to and from Google is covered by CRC-32C', () => {
  let world: World;
  const pair = `${RING}/cryptoKeys/pair`;
  before(async () => {
    world = await startWorld();
    world.kms.createAsymmetricKey(pair);
  });
  after(() => world.close());

  test('each field of each request has its checksum, and v2 wraps have a context and name version and algorithm', async () => {
    const provider = createGoogleProvider(world, DEFAULT_LIMITS);
    const bodies: Record<string, unknown>[] = [];
    world.kms.server.setFault(({ method, body }) => {
      if (method === 'POST') bodies.push(JSON.parse(Buffer.from(body).toString()));
      return undefined;
    });
    const packet = readPacket(
      await provider.handle(Buffer.from(wrapRequest([`gcpkms://${FIRST}`, `gcpkms://${pair}`], createRecord()))),
    );
    await provider.handle(Buffer.from(unwrapRequest(packet)));
    await world.open(FIRST).wrap(randomBytes(1), {}, AbortSignal.timeout(5000));
    world.kms.server.setFault(undefined);

    const covered: Readonly<Record<string, string>> = {
      plaintext: 'plaintextCrc32c',
      ciphertext: 'ciphertextCrc32c',
      additionalAuthenticatedData: 'additionalAuthenticatedDataCrc32c',
    };
    assert.ok(bodies.length >= 4);
    for (const body of bodies) {
      const fields = Object.keys(body).filter((name) => !name.endsWith('Crc32c'));
      assert.ok(fields.length > 0);
      for (const name of fields) assert.match(String(body[covered[name] ?? '']), /^\d+$/, name);
    }
    const wraps = bodies.filter((body) => 'plaintext' in body);
    // The last one is a v1 wrap: no context, and yet its checksum.
    assert.equal(wraps.pop()?.additionalAuthenticatedDataCrc32c, '0');
    for (const body of wraps) assert.ok(String(body.additionalAuthenticatedData).length > 0);
    const { recipients } = JSON.parse(packet.toString());
    assert.deepEqual(
      recipients.map(({ algorithm, version }: Record<string, unknown>) => [algorithm, version]),
      [
        ['GOOGLE_SYMMETRIC_ENCRYPTION', '1'],
        ['RSA_DECRYPT_OAEP_2048_SHA256', '1'],
      ],
    );
  });

  test('no answer is used whose checksum or confirmation is missing or wrong', async () => {
    const drop = (member: string): Fault => ({
      kind: 'body',
      change(body) {
        const { [member]: _, ...rest } = JSON.parse(body);
        return JSON.stringify(rest);
      },
    });
    const wrong = (member: string): Fault => ({
      kind: 'body',
      change(body) {
        const value = JSON.parse(body);
        return JSON.stringify({ ...value, [member]: value[member] === true ? false : '1' });
      },
    });
    const cases = [
      [FIRST, 'wrap', ['ciphertextCrc32c', 'verifiedPlaintextCrc32c', 'verifiedAdditionalAuthenticatedDataCrc32c']],
      [FIRST, 'unwrap', ['plaintextCrc32c']],
      [pair, 'wrap', ['pemCrc32c']],
      [pair, 'unwrap', ['plaintextCrc32c', 'verifiedCiphertextCrc32c']],
    ] as const;
    for (const [key, operation, members] of cases) {
      const usual = createGoogleProvider(world, DEFAULT_LIMITS);
      const packet = readPacket(await usual.handle(Buffer.from(wrapRequest([`gcpkms://${key}`], createRecord()))));
      const request = operation === 'wrap' ? wrapRequest([`gcpkms://${key}`]) : unwrapRequest(packet);
      for (const fault of members.flatMap((member) => [drop(member), wrong(member)])) {
        const provider = createGoogleProvider(world, { ...DEFAULT_LIMITS, attempts: 1 });
        world.kms.server.setFault(({ path }) =>
          /publicKey$|crypt$/i.test(path) && !isRefused(path) ? fault : undefined,
        );
        const error = await provider.handle(Buffer.from(request)).catch(asOcicryptError);
        world.kms.server.setFault(undefined);
        assert.ok(error instanceof Error && error.code === 'integrity', `${key} ${operation}`);
      }
    }
  });

  /** The call by which an asymmetric key is known as one. */
  function isRefused(path: string): boolean {
    return path.endsWith('pair:encrypt');
  }
});

describe('P27: wrapping is done with the primary version, and every older one unwraps', () => {
  let world: World;
  before(async () => {
    world = await startWorld();
  });
  after(() => world.close());

  test('over ten rotations, and none of two keys is left out', async () => {
    const provider = createGoogleProvider(world, DEFAULT_LIMITS);
    const second = FIRST.replace('first', 'second');
    const packets: { readonly record: Uint8Array; readonly packet: Buffer }[] = [];
    for (let version = 1; version <= 11; version++) {
      const record = createRecord();
      const keys = [`gcpkms://${FIRST}`, `gcpkms://${second}`];
      const packet = readPacket(await provider.handle(Buffer.from(wrapRequest(keys, record))));
      const { recipients } = JSON.parse(packet.toString());
      assert.deepEqual(
        recipients.map(({ key, version }: Record<string, unknown>) => [key, version]),
        keys.map((key, index) => [key, index === 0 ? String(version) : '1']),
      );
      packets.push({ record, packet });
      world.kms.rotate(FIRST);
    }
    for (const { record, packet } of packets) {
      const reply = await provider.handle(Buffer.from(unwrapRequest(packet)));
      assert.deepEqual(Buffer.from(reply), replyOf(record));
    }
    world.kms.server.faults.push({ kind: 'answer', ...refusal(403, 'PERMISSION_DENIED', '', 'IAM_PERMISSION_DENIED') });
    const error = await provider
      .handle(Buffer.from(wrapRequest([`gcpkms://${FIRST}`, `gcpkms://${second}`])))
      .catch(asOcicryptError);
    assert.ok(error instanceof Error && error.code === 'refused');
  });
});

describe('P28: rotation goes unnoticed', () => {
  let world: World;
  before(async () => {
    world = await startWorld();
  });
  after(() => world.close());

  test('1,000 unwraps while the key changes its version 10 times: no error and no wrong key', async () => {
    const provider = createGoogleProvider(world, DEFAULT_LIMITS);
    const versions = new Set<string>();
    const packets: { readonly request: Buffer; readonly reply: Buffer }[] = [];
    async function wrapOne(): Promise<void> {
      const record = createRecord();
      const packet = readPacket(await provider.handle(Buffer.from(wrapRequest([`gcpkms://${FIRST}`], record))));
      versions.add(JSON.parse(packet.toString()).recipients[0].version);
      packets.push({ request: Buffer.from(unwrapRequest(packet)), reply: replyOf(record) });
    }
    await wrapOne();
    let [started, right, wrong] = [0, 0, 0];
    async function work(): Promise<void> {
      for (let index = started++; index < 1000; index = started++) {
        if (index % 100 === 50) {
          world.kms.rotate(FIRST);
          await wrapOne();
        }
        const packet = packets[index % packets.length];
        assert.ok(packet !== undefined);
        if (packet.reply.equals(await provider.handle(packet.request))) right++;
        else wrong++;
      }
    }
    await Promise.all(Array.from({ length: 16 }, work));
    assert.deepEqual([right, wrong, versions.size], [1000, 0, 11]);
  });
});

async function wrapFirst(world: World): Promise<Buffer> {
  const provider = createGoogleProvider(world, DEFAULT_LIMITS);
  return readPacket(await provider.handle(Buffer.from(wrapRequest([`gcpkms://${FIRST}`], createRecord()))));
}
