// docs/ suffice for another implementation: a provider in Go, made of them alone, ends every call as ours does.

import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { after, before, describe, type TestContext, test } from 'node:test';
import { isDeepStrictEqual } from 'node:util';
import { asKeyUri, formatKeyUri } from '../../src/base/key-uri.ts';
import { createMalformed } from '../fixtures/malformed.ts';
import { canonicalJson, GOOGLE, type Json, OPTSDATA, SWAPPED } from '../fixtures/packets.ts';
import { makeKeyDirectory, requestOf } from '../fixtures/provider.ts';
import { createRandom, runs, SEED, seeded } from '../fixtures/seed.ts';
import type { ServiceVector } from '../fixtures/vectors/services.ts';
import { unwrapRequest, type Vector, wrapRequest } from '../fixtures/vectors/shape.ts';
import { hasGo, type Second, type SecondAnswer, startSecond } from '../peers/second.ts';
import { generate } from './abnf.ts';
import { grammar, SCHEMES } from './key-grammar.ts';
import { type Cases, createCases } from './second-cases.ts';
import { base64, startWorld, type World, type WorldSetup } from './second-world.ts';

const missing = hasGo() ? undefined : 'go is not in PATH: https://go.dev/doc/install';
if (missing !== undefined && process.env.CI === 'true') throw new Error(missing);
const options = missing === undefined ? {} : { skip: missing };

/** The same cases each time, unless others are asked for. */
const seed = process.env.OCICRYPT_TEST_SEED === undefined ? 20261130 : SEED;

function readVectors<Shape>(folder: string): readonly (readonly [string, Shape])[] {
  const directory = new URL(`../vectors/${folder}/`, import.meta.url);
  return readdirSync(directory).map((name) => [name, JSON.parse(readFileSync(new URL(name, directory), 'utf8'))]);
}

describe('P3 the published vectors', options, () => {
  let second: Second;
  const keys = makeKeyDirectory();
  const pathOf = (name: string) => keys.file(name);
  before(async () => {
    second = await startSecond();
    const services = Object.values(GOOGLE).map(({ name, id, secret }) => ({
      ...{ key: `gcpkms://${name}`, algorithm: 'GOOGLE_SYMMETRIC_ENCRYPTION', version: '1', secret: base64(secret) },
      head: base64(Buffer.concat([Buffer.of(0x0a), id])),
    }));
    await second.ask({ services });
  });
  after(async () => {
    keys.remove();
    await second.stop();
  });

  test('P3 the second provider ends every packet of the vectors as it says', async () => {
    for (const [name, vector] of readVectors<Vector>('packets')) {
      const files = Object.entries(vector.setup['kbs-key'] ?? {}).map(([key, file]) => [key, pathOf(file)]);
      const setup = { ...vector.setup, keys: vector.setup.keys?.map(pathOf), 'kbs-key': Object.fromEntries(files) };
      const answer = await second.ask({ setup, request: base64(requestOf(vector)) });
      assert.equal(answer.code, vector.expect, name);
      if (vector.reply !== undefined) assert.equal(answer.reply, vector.reply, name);
      if (vector.packet === undefined) continue;
      const packet = packetOf(answer);
      const made = JSON.parse(packet.toString());
      const names = made.recipients?.map(({ key }: { readonly key: string }) => key) ?? [made.key_url];
      assert.deepEqual([made.version === undefined ? 'v1' : 'v2', names], [vector.packet.format, vector.packet.keys]);
      const everything = { allow: names, keys: ['first', 'second', 'identity'].map(pathOf) };
      const opened = await second.ask({ setup: everything, request: base64(unwrapRequest(packet)) });
      assert.deepEqual(recordOf(opened), OPTSDATA, name);
    }
  });

  test('P3 and every packet of a service', async () => {
    for (const [name, { allow, labels, packet, service, expect, optsdata }] of readVectors<ServiceVector>('services')) {
      const setup = { server: true, allow: [allow], context: labels, standIn: service };
      const answer = await second.ask({ setup, request: base64(unwrapRequest(Buffer.from(packet))) });
      assert.equal(answer.code, expect, name);
      if (expect === 'ok') assert.equal(base64(recordOf(answer)), optsdata, name);
    }
  });

  test('P3 and every key URI', async () => {
    const uris = JSON.parse(readFileSync(new URL('../vectors/key-uris.json', import.meta.url), 'utf8'));
    for (const { uri, canonical } of uris.accept)
      assert.deepEqual(await second.ask({ uri }), { code: 'ok', reply: canonical });
    for (const { uri } of uris.reject) assert.deepEqual(await second.ask({ uri }), { code: 'bad-input' }, uri);
  });

  test(seeded('P3 both write random key URIs in the same way, and refuse the same ones', seed), async () => {
    const random = createRandom(seed);
    for (let times = 0; times < runs(500); times++) {
      let uri = generate(grammar, SCHEMES[random(SCHEMES.length)] ?? '', random);
      const at = random(uri.length);
      if (random(3) === 0)
        uri = uri.slice(0, at) + ['', '/', '.', '%', 'é', 'A', '&', ';', '?'][random(9)] + uri.slice(at + 1);
      const ours = asKeyUri(uri);
      const expected = ours === undefined ? { code: 'bad-input' } : { code: 'ok', reply: formatKeyUri(ours) };
      assert.deepEqual(await second.ask({ uri }), expected, uri);
    }
  });
});

describe('P3 the product and the second provider', options, () => {
  let world: World;
  before(async () => {
    world = await startWorld();
  });
  after(() => world.close());

  /** Packets of both, the last ones. */
  const packets: Buffer[] = [];
  function keep(packet: Buffer): void {
    packets.push(packet);
    if (packets.length > 100) packets.shift();
  }

  /** What both answer, which is the same but for what is random in a packet. */
  async function judge(setup: WorldSetup, request: Buffer): Promise<readonly [SecondAnswer, SecondAnswer]> {
    const [ours, theirs] = await Promise.all([world.askProduct(setup, request), world.askSecond(setup, request)]);
    const [expected, actual] = [shapeOf(ours), shapeOf(theirs)];
    // Not an assertion: the difference of such long texts takes minutes to be shown.
    if (!isDeepStrictEqual(actual, expected)) {
      const answers = `${JSON.stringify(expected)} of the product, ${JSON.stringify(actual)} of the second`;
      throw new Error(`${answers}: ${JSON.stringify(setup)} ${request}`);
    }
    return [ours, theirs];
  }

  /** Keeps one more packet, of the product or of the second provider, and now and then those of other programs. */
  async function keepMore(cases: Cases): Promise<void> {
    for (;;) {
      const { setup, request, record } = cases.wrap();
      const answer = await (cases.chance(50) ? world.askProduct(setup, request) : world.askSecond(setup, request));
      if (answer.code !== 'ok') continue;
      keep(packetOf(answer));
      if (cases.chance(10)) for (const packet of await world.foreign(record)) keep(packet);
      return;
    }
  }

  test(seeded('P3 wrap alike, and open the packets of each other', seed), async (t) => {
    const cases = createCases(world, createRandom(seed));
    const wanted = runs(20);
    const counts = new Counts();
    let pairs = 0;
    while (pairs < wanted) {
      const { setup, request, record } = cases.wrap();
      const [ours, theirs] = await judge(setup, request);
      counts.add(ours.code);
      if (ours.code !== 'ok') continue;
      const [mine, other] = [packetOf(ours), packetOf(theirs)];
      const opened = [
        await world.askSecond(world.everything, Buffer.from(unwrapRequest(mine))),
        await world.askProduct(world.everything, Buffer.from(unwrapRequest(other))),
      ];
      // Only a recipient whose identity is nowhere keeps both from opening.
      if (opened.every(({ code }) => code === 'not-allowed') && mine.includes(world.stranger)) continue;
      for (const one of opened) assert.deepEqual(recordOf(one), record, request.toString());
      pairs++;
      for (const packet of [mine, other]) {
        keep(packet);
        const call = cases.unwrap(packet);
        counts.add((await judge(call.setup, call.request))[0].code);
      }
    }
    t.diagnostic(
      `figures: ${pairs} packets of the product and ${pairs} of the second opened by the other; calls ${counts}, 0 differences`,
    );
  });

  test(seeded('P3 end alike for packets that were changed by somebody who knows no key', seed), async (t) => {
    const cases = createCases(world, createRandom(seed));
    const counts = new Counts();
    for (let times = 0; times < runs(60); times++) {
      if (times % 6 === 0) await keepMore(cases);
      const packet = cases.mutate(cases.pick(packets), cases.pick(packets));
      const { setup, request } = cases.unwrap(packet);
      const [ours] = await judge(setup, request);
      counts.add(ours.code);
    }
    t.diagnostic(`figures: ${runs(60)} changed packets, ${counts}, 0 differences`);
  });

  test(seeded('P3 end alike for packets that were changed by somebody who can open them', seed), async (t) => {
    const cases = createCases(world, createRandom(seed));
    const counts = new Counts();
    for (let made = 0; made < runs(40); ) {
      if (made % 6 === 0) await keepMore(cases);
      const victim = cases.pick(packets);
      const members = victim.includes('ocicrypt-kms/v2') ? cases.forge(victim, cases.pick(packets)) : undefined;
      if (members === undefined) continue;
      const record = cases.chance(30) ? { record: base64(cases.record()) } : {};
      const forge = { packet: base64(victim), members, ...record };
      const forged = await world.second.ask({ setup: world.everything, forge });
      made++;
      if (forged.code !== 'ok' || Buffer.byteLength(forged.reply ?? '') > 60_000) continue;
      const { setup, request } = cases.unwrap(Buffer.from(forged.reply ?? ''));
      const [ours] = await judge(setup, request);
      counts.add(ours.code);
    }
    t.diagnostic(`figures: ${runs(40)} packets under a right MAC, ${counts}, 0 differences`);
  });

  test(seeded('P3 end alike for damaged requests', seed), async (t) => {
    const next = createMalformed(createRandom(seed));
    const counts = new Counts();
    for (let times = 0; times < runs(100); times++) {
      const request = next();
      // The Google keys of the vectors are none of this world, so nothing but what is local can answer.
      const setup = { keys: [world.files.one], server: times % 2 === 0 };
      const [ours] = await judge(setup, request);
      counts.add(ours.code);
    }
    t.diagnostic(`figures: ${runs(100)} damaged requests, ${counts}, 0 differences`);
  });

  test('section 6 of docs/packet.md: what the holder of a key file can make for the other recipient', async (t) => {
    await forgeries(world, judge, t);
  });
});

/** By docs/packet.md, section 6: of these keys the other recipient does not open what was forged. */
const BINDS_CONTEXT = [
  'AES-256-GCM',
  'GOOGLE_SYMMETRIC_ENCRYPTION',
  'SYMMETRIC_DEFAULT',
  'A256GCM',
  'transit-aead',
  'AES-GCM',
];

type Judge = (setup: WorldSetup, request: Buffer) => Promise<readonly [SecondAnswer, SecondAnswer]>;

async function forgeries(world: World, judge: Judge, t: TestContext): Promise<void> {
  const { files, recipients } = world;
  const seen = new Set<string>();
  for (const key of [...world.keys, `keyfile://${files.two}`, ...recipients.slice(0, 1)]) {
    const labels = { env: 'prod' };
    const holder: WorldSetup = { keys: [files.one], context: labels };
    // Who may only unwrap makes no packets, so this one is the builder's.
    const built = await world.askProduct(holder, Buffer.from(wrapRequest([`keyfile://${files.one}`, key])));
    const packet = packetOf(built);
    const members: { readonly recipients: readonly { readonly [name: string]: Json }[] } = JSON.parse(
      packet.toString(),
    );
    const [own, other] = members.recipients;
    assert.ok(own !== undefined && other !== undefined, key);
    seen.add(String(other.algorithm));
    const node: WorldSetup = key.startsWith('keyfile:')
      ? { keys: [files.two], context: labels }
      : { server: true, allow: [key], ...(key.startsWith('age1') ? { keys: [files.identity] } : {}), context: labels };
    const outcome = async (changed: object, record?: Uint8Array, demanded = labels) => {
      const made = { packet: base64(packet), members: JSON.stringify({ ...members, ...changed }) };
      const forge = { ...made, ...(record === undefined ? {} : { record: base64(record) }) };
      const forged = await world.second.ask({ setup: holder, forge });
      assert.equal(forged.code, 'ok');
      const request = Buffer.from(unwrapRequest(Buffer.from(forged.reply ?? '')));
      const [ours] = await judge({ ...node, context: demanded }, request);
      return ours.code === 'ok' ? recordOf(ours) : ours.code;
    };
    const bound = BINDS_CONTEXT.includes(String(other.algorithm));
    const refused = (forged: Uint8Array) => (bound ? 'integrity' : forged);
    const alone = { recipients: [other] };
    assert.deepEqual(await outcome(alone, SWAPPED), refused(SWAPPED), `${key}: another record`);
    const labelled = { ...alone, labels: { env: 'dev' } };
    assert.deepEqual(await outcome(labelled, undefined, { env: 'dev' }), refused(OPTSDATA), `${key}: other labels`);
    // The list of recipients is bound by the MAC alone, whatever the key.
    assert.deepEqual(await outcome(alone), OPTSDATA, `${key}: an entry left out`);
    const added = { recipients: [{ ...own, key: `keyfile:sha256:${'0'.repeat(64)}` }, other] };
    assert.deepEqual(await outcome(added), OPTSDATA, `${key}: an entry added that does not open`);
  }
  assert.deepEqual(
    BINDS_CONTEXT.filter((algorithm) => !seen.has(algorithm)),
    [],
  );
  t.diagnostic(`${[...seen].join(', ')}`);
}

/** How often each code came. */
class Counts {
  readonly #counts = new Map<string, number>();
  add(code: string): void {
    this.#counts.set(code, (this.#counts.get(code) ?? 0) + 1);
  }
  toString(): string {
    return [...this.#counts].map(([code, times]) => `${code} ${times}`).join(', ');
  }
}

function packetOf({ reply = '' }: SecondAnswer): Buffer {
  return Buffer.from(JSON.parse(reply).keywrapresults.annotation, 'base64');
}

function recordOf({ code, reply = '' }: SecondAnswer): Buffer {
  assert.equal(code, 'ok');
  return Buffer.from(JSON.parse(reply).keyunwrapresults.optsdata, 'base64');
}

const RANDOM = new Set(['ciphertext', 'mac', 'nonce', 'wrapped_data', 'wrapped_key']);

/** An answer, of whose packet what is random is only told by its length. */
function shapeOf(answer: SecondAnswer): SecondAnswer {
  if (answer.reply?.startsWith('{"keywrapresults"') !== true) return answer;
  const packet = JSON.parse(packetOf(answer).toString(), (name, value) => (RANDOM.has(name) ? value.length : value));
  return { code: answer.code, reply: canonicalJson(packet) };
}
