import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import fc from 'fast-check';
import { asOcicryptError, describeError, type ErrorCode, OcicryptError } from '../../src/base/errors.ts';
import { formatKeyUri } from '../../src/base/key-uri.ts';
import { cannotBeUnwrapped } from '../../src/kms/kek.ts';
import { createProvider, type ProviderOptions } from '../../src/provider/handle.ts';
import { isLayerKeyRecord } from '../../src/provider/layer-key.ts';
import { parseAllowRule } from '../../src/provider/policy.ts';
import { failureOf } from '../fixtures/codes.ts';
import {
  canonicalJson,
  DATA_KEY,
  type Entry,
  OPTSDATA,
  packetV1,
  sealMembers,
  thumbprint,
} from '../fixtures/packets.ts';
import { createTestKek, type TestKek } from '../fixtures/provider.ts';
import { createRandom, runs, sample, seeded } from '../fixtures/seed.ts';
import { unwrapRequest } from '../fixtures/vectors/shape.ts';

const key = (name: string) => `gcpkms://projects/p/locations/l/keyRings/r/cryptoKeys/${name}`;
const LOCAL = thumbprint(DATA_KEY);
const PREFIX = 'gcpkms://projects/p/*';

/** A packet whose entries hold the data key in clear, for keys that keep what they wrap. */
function packetFor(...names: readonly string[]): string {
  const recipients = names.map(
    (name): Entry => ({ algorithm: 'NONE', key: name, wrapped_key: DATA_KEY.toString('base64') }),
  );
  return canonicalJson(sealMembers({ recipients }));
}

type Started = { readonly key: string; readonly at: number; readonly signal: AbortSignal };

function provider(
  rules: readonly string[],
  behaviour: Readonly<Record<string, TestKek>> = {},
  more: Partial<ProviderOptions> = {},
) {
  const started: Started[] = [];
  const opened: string[] = [];
  const begin = performance.now();
  const options: ProviderOptions = {
    async openKek(uri) {
      const name = formatKeyUri(uri);
      opened.push(name);
      const known = behaviour[name] ?? {};
      const inner = createTestKek(name.startsWith('keyfile:///') ? LOCAL : name, known);
      return {
        ...inner,
        unwrap(wrapped, context, signal) {
          started.push({ key: name, at: performance.now() - begin, signal });
          return inner.unwrap(wrapped, context, signal);
        },
      };
    },
    rules: rules.map(parseAllowRule),
    callerKeysAllowed: false,
    names: { configured: undefined, fallback: 'kmscrypt' },
    limits: { total: 5000, attempt: 1000, attempts: 3, stagger: 300 },
    ...more,
  };
  const unwrap = (packet: string, named?: readonly string[]) =>
    createProvider(options).handle(Buffer.from(unwrapRequest(packet, named)));
  return { started, opened, unwrap };
}

const failing = (code: ErrorCode, details: ConstructorParameters<typeof OcicryptError>[2] = {}): TestKek => ({
  unwrap: () => Promise.reject(new OcicryptError(code, `it says ${code}`, details)),
});
const slow = (milliseconds: number): TestKek => ({
  unwrap: ({ wrapped }) => new Promise((resolve) => setTimeout(() => resolve(Uint8Array.from(wrapped)), milliseconds)),
});
const HANG: TestKek = { unwrap: () => new Promise(() => {}) };

function assertOpened(reply: Uint8Array): void {
  assert.equal(JSON.parse(Buffer.from(reply).toString()).keyunwrapresults.optsdata, OPTSDATA.toString('base64'));
}

test('local keys are tried first, whatever the order in packet and list', async () => {
  const { unwrap, started } = provider([PREFIX, 'keyfile:///first.key'], { 'keyfile:///first.key': { local: true } });
  assertOpened(await unwrap(packetFor(key('a'), key('b'), LOCAL)));
  assert.deepEqual(
    started.map((one) => one.key),
    ['keyfile:///first.key'],
  );
});

test('services are tried when no local key opens the packet', async () => {
  const { unwrap, started } = provider([PREFIX, 'keyfile:///first.key'], {
    'keyfile:///first.key': failing('integrity'),
  });
  assertOpened(await unwrap(packetFor(key('a'), LOCAL)));
  assert.deepEqual(
    started.map((one) => one.key),
    ['keyfile:///first.key', key('a')],
  );
});

test('services are started 300 ms apart, the first answer wins and ends the others', async () => {
  const { unwrap, started } = provider([PREFIX], { [key('a')]: HANG, [key('b')]: slow(50), [key('c')]: HANG });
  assertOpened(await unwrap(packetFor(key('a'), key('b'), key('c'))));
  assert.deepEqual(
    started.map((one) => one.key),
    [key('a'), key('b')],
  );
  const [first, second] = started;
  assert.ok((second?.at ?? 0) - (first?.at ?? 0) >= 290);
  assert.ok(first?.signal.aborted);
});

test('a service that refuses at once makes way for the next', async () => {
  const limits = { total: 5000, attempt: 1000, attempts: 3, stagger: 600_000 };
  const { unwrap, started } = provider([PREFIX], { [key('a')]: failing('refused') }, { limits });
  assertOpened(await unwrap(packetFor(key('a'), key('b'))));
  assert.equal(started.length, 2);
});

test('none is tried again before all were tried once, and then only what may pass', async () => {
  let calls = 0;
  const flaky: TestKek = {
    async unwrap({ wrapped }) {
      if (++calls === 1) throw new OcicryptError('unavailable', 'gone', { retryable: true });
      return Uint8Array.from(wrapped);
    },
  };
  const { unwrap, started } = provider([PREFIX], { [key('a')]: flaky, [key('b')]: failing('refused') });
  assertOpened(await unwrap(packetFor(key('a'), key('b'))));
  assert.deepEqual(
    started.map((one) => one.key),
    [key('a'), key('b'), key('a')],
  );
});

test('what is not retryable is asked once, what is throttled as often as the limits say', async () => {
  for (const [code, details, expected] of [
    ['unavailable', {}, 1],
    ['throttled', { retryable: true }, 3],
  ] as const) {
    const { unwrap, started } = provider([key('a')], { [key('a')]: failing(code, details) });
    assert.equal((await failureOf(unwrap(packetFor(key('a'))))).code, code);
    assert.equal(started.length, expected);
  }
});

test('no recipient waits for one that is out of order: the others open at once, or say why they do not', {
  timeout: 20_000,
}, async () => {
  const down = failing('unavailable', { retryable: true });
  // They would be tried for long, and nothing begins by itself before.
  const patient = { total: 30_000, attempt: 30_000, attempts: 3, stagger: 30_000 };
  const { unwrap } = provider([PREFIX], { [key('a')]: down, [key('b')]: down }, { limits: patient });
  assertOpened(await unwrap(packetFor(key('a'), key('b'), key('c'))));
  const limits = { total: 1000, attempt: 500, attempts: 3, stagger: 300 };
  const none = provider([PREFIX], { [key('a')]: down, [key('b')]: failing('refused') }, { limits });
  const error = await failureOf(none.unwrap(packetFor(key('a'), key('b'))));
  assert.equal(error.code, 'unavailable');
  assert.match(error.message, /tried \d times in \d\.\d s.* \| refused: /);
  assert.ok(none.started.filter((one) => one.key === key('a')).length > 1);
  assert.equal(none.started.filter((one) => one.key === key('b')).length, 1);
});

test('a service that asks to be left alone for longer than the call is throttling, not a missed deadline', async () => {
  const { unwrap, started } = provider([key('a')], {
    [key('a')]: failing('throttled', { retryable: true, retryAfter: 60_000 }),
  });
  const begin = performance.now();
  assert.equal((await failureOf(unwrap(packetFor(key('a'))))).code, 'throttled');
  assert.ok(performance.now() - begin < 1000);
  assert.equal(started.length, 1);
});

test('combined failures name each key and say what each refused; the code is the most useful one', async () => {
  const { unwrap } = provider([PREFIX], {
    [key('a')]: failing('integrity'),
    [key('b')]: failing('refused', { hint: 'grant it' }),
    [key('c')]: failing('not-found'),
  });
  const error = await failureOf(unwrap(packetFor(key('a'), key('b'), key('c'))));
  assert.equal(error.code, 'refused');
  for (const part of ['integrity: ', 'refused: ', 'grant it', 'not-found: ', 'none of 3 keys'])
    assert.ok(error.message.includes(part), error.message);
  assert.doesNotMatch(describeError(error), /\n/);
});

test('an identity file that does not answer is given up, and the next key opens', async () => {
  const age = `age1${'q'.repeat(58)}`;
  const openKek: ProviderOptions['openKek'] = async (uri) =>
    uri.scheme === 'keyfile' ? createTestKek(age, HANG) : createTestKek(formatKeyUri(uri), {});
  const { unwrap } = provider(
    ['keyfile:///identities', key('a')],
    {},
    { openKek, limits: { total: 5000, attempt: 100, attempts: 1, stagger: 20 } },
  );
  const reply = JSON.parse(Buffer.from(await unwrap(packetFor(age, key('a')))).toString());
  assert.equal(reply.keyunwrapresults.optsdata, Buffer.from(OPTSDATA).toString('base64'));
});

test('two entries for one key are one attempt', async () => {
  const { unwrap, started } = provider([key('a'), key('a').slice('gcpkms://'.length), PREFIX], {
    [key('a')]: failing('refused'),
  });
  const error = await failureOf(unwrap(packetFor(key('a'))));
  assert.equal(started.length, 1);
  assert.doesNotMatch(error.message, /none of/);
});

test('a key file that cannot be opened keeps no other key from opening', async () => {
  const rules = ['keyfile:///missing.key', PREFIX];
  const base = provider(rules);
  const broken: Partial<ProviderOptions> = {
    async openKek(uri) {
      if (uri.scheme === 'keyfile') throw new OcicryptError('not-found', 'the key file /missing.key does not exist');
      return createTestKek(formatKeyUri(uri));
    },
  };
  assertOpened(await provider(rules, {}, broken).unwrap(packetFor(LOCAL, key('a'))));
  const error = await failureOf(provider(['keyfile:///missing.key'], {}, broken).unwrap(packetFor(LOCAL)));
  assert.equal(error.code, 'not-found');
  assert.deepEqual(base.opened, []);
});

test('P15 a key that never answers and ignores its signal is ended by the deadline, and named', async () => {
  for (const limits of [
    { total: 400, attempt: 100, attempts: 3, stagger: 20 },
    { total: 150, attempt: 1000, attempts: 3, stagger: 20 },
  ]) {
    const { unwrap } = provider([PREFIX], { [key('a')]: HANG, [key('b')]: HANG }, { limits });
    const begin = performance.now();
    const error = await failureOf(unwrap(packetFor(key('a'), key('b'))));
    assert.ok(performance.now() - begin < limits.total + 250 * 4, 'it ended');
    assert.equal(error.code, 'deadline-exceeded');
    assert.ok(error.message.includes(key('a')) && error.message.includes(key('b')), error.message);
    assert.match(describeError(error), /limits\.total/);
  }
});

test('P15 wrong key, wrong tag, wrong shape and wrong context have one text', async () => {
  const answers: readonly (() => Promise<Uint8Array>)[] = [
    () => Promise.reject(cannotBeUnwrapped(key('a'))),
    () => Promise.reject(cannotBeUnwrapped('the token', 'another')),
    () => Promise.reject(cannotBeUnwrapped('here').with({ before: 'elsewhere: ' })),
    async () => new Uint8Array(32),
    async () => new Uint8Array(31),
    async () => new Uint8Array(0),
    async () => Uint8Array.from(OPTSDATA),
    async () => Buffer.from('password'),
  ];
  const texts = new Set<string>();
  for (const unwrapAnswer of answers) {
    const { unwrap } = provider([key('a')], { [key('a')]: { unwrap: unwrapAnswer } });
    texts.add(describeError(await failureOf(unwrap(packetFor(key('a'))))));
  }
  for (const plaintext of ['password', '{}', '[]', '', '{"symkey":"AA=="}']) {
    const { unwrap } = provider([key('a')], { [key('a')]: { unwrap: async () => Buffer.from(plaintext) } });
    texts.add(describeError(await failureOf(unwrap(packetV1(key('a'), Uint8Array.of(1))))));
  }
  assert.equal(texts.size, 1, [...texts].join('\n'));
  assert.match([...texts][0] ?? '', /^integrity: .*cryptoKeys\/a: cannot be unwrapped; /);
});

test('an answer that is too late, or that nobody waits for, is wiped', async () => {
  const late = Uint8Array.from(DATA_KEY);
  const answer = Promise.withResolvers<Uint8Array>();
  const { unwrap } = provider(
    [PREFIX],
    { [key('a')]: { unwrap: () => answer.promise } },
    { limits: { total: 5000, attempt: 1000, attempts: 1, stagger: 20 } },
  );
  assertOpened(await unwrap(packetFor(key('a'), key('b'))));
  answer.resolve(late);
  await turn();
  assert.deepEqual(late, new Uint8Array(DATA_KEY.length));
});

test('keys that the caller names narrow what is tried', async () => {
  const { unwrap, started } = provider([PREFIX]);
  assertOpened(await unwrap(packetFor(key('a'), key('b')), [key('b')]));
  assert.deepEqual(
    started.map((one) => one.key),
    [key('b')],
  );
  assert.equal((await failureOf(unwrap(packetFor(key('a')), [key('c')]))).code, 'not-allowed');
  assert.equal((await failureOf(unwrap(packetFor(key('a')), ['awskms:///alias/a']))).code, 'not-allowed');
});

test('entries of one key that lead to two places are both tried, and an entry that is there twice is tried once', async () => {
  const id = '1234abcd-12ab-34cd-56ef-1234567890ab';
  for (const [asked, ...entries] of [
    [`awskms:///${id}`, `awskms://one.example/${id}`, `awskms://two.example/${id}`],
    ['pkcs11:object=o', 'pkcs11:object=o?module-path=/one.so', 'pkcs11:object=o?module-path=/two.so'],
    ['pkcs11:object=o', 'pkcs11:object=o;slot-id=1', 'pkcs11:object=o;slot-id=2'],
  ] as const) {
    const fails: TestKek = { unwrap: () => Promise.reject(new OcicryptError('not-found', 'not there')) };
    const { unwrap, opened } = provider([...entries, ...entries], { [asked]: fails });
    assert.equal((await failureOf(unwrap(packetFor(asked)))).code, 'not-found');
    assert.deepEqual(opened, [asked, asked]);
  }
});

test('a packet for other keys opens no file, and of many keys it is said how many more there are', async () => {
  const { unwrap, opened } = provider(['keyfile:///one.key']);
  const outcome = async (...names: readonly string[]) => {
    const { code, message, hint = '' } = await failureOf(unwrap(packetFor(...names.map(key))));
    assert.equal(code, 'not-allowed');
    assert.ok(hint.endsWith(`=${key('a')}`), hint);
    return / and \d+ more /.exec(message)?.[0].trim();
  };
  assert.equal(await outcome('a'), undefined);
  assert.equal(await outcome('a', 'b', 'c'), undefined);
  assert.equal(await outcome('a', 'b', 'c', 'd', 'e'), 'and 2 more');
  assert.deepEqual(opened, []);
});

test('a packet for a key file opens no key of another kind, and the hint is to give the file', async () => {
  const rules = [key('a'), PREFIX, `keyfile:sha256:${'0'.repeat(64)}`, 'kbs:///a/b/c', 'pkcs11:object=o'];
  for (const one of rules) {
    const { unwrap, opened } = provider([one]);
    const { code, hint = '' } = await failureOf(unwrap(packetFor(LOCAL)));
    assert.deepEqual([code, hint.endsWith('=FILE'), opened], ['not-allowed', true, []], one);
  }
});

test('an entry with a version is said to allow wrapping only, and which key to allow', async () => {
  const { unwrap, opened } = provider([`${key('a')}/cryptoKeyVersions/1`]);
  const { code, hint = '' } = await failureOf(unwrap(packetFor(key('b'), key('a'))));
  assert.equal(code, 'not-allowed');
  assert.ok(hint.includes(`allow the key, ${key('a')}, `), hint);
  assert.deepEqual(opened, []);
});

test('the work of a key file is not cut by the time of an attempt', async () => {
  const behaviour = { [LOCAL]: slow(60) };
  const { unwrap } = provider(
    ['keyfile:///one.key'],
    { 'keyfile:///one.key': slow(60), ...behaviour },
    {
      limits: { total: 5000, attempt: 10, attempts: 1, stagger: 20 },
    },
  );
  assertOpened(await unwrap(packetFor(LOCAL)));
});

test('labels that are demanded must be those of the packet, exactly', async () => {
  const labels = { env: 'prod', team: 'a' };
  const recipients: Entry[] = [{ algorithm: 'NONE', key: key('a'), wrapped_key: DATA_KEY.toString('base64') }];
  const packet = canonicalJson(sealMembers({ labels, recipients }));
  const demand = (wanted: Readonly<Record<string, string>>) => provider([PREFIX], {}, { labels: wanted });
  assertOpened(await provider([PREFIX]).unwrap(packet));
  assertOpened(await demand({ team: 'a', env: 'prod' }).unwrap(packet));
  for (const wanted of [{}, { env: 'prod' }, { env: 'prod', team: 'b' }, { ...labels, more: 'x' }]) {
    const { unwrap, opened } = demand(wanted);
    assert.equal((await failureOf(unwrap(packet))).code, 'not-allowed');
    assert.deepEqual(opened, [], 'before any key is opened');
  }
});

test(seeded('P14 nothing outside the list is ever opened, whatever packet and list'), async () => {
  const name = fc.constantFrom('a', 'b', 'c', 'd', 'ab');
  const project = fc.constantFrom('p', 'pp', 'q');
  const uri = fc
    .tuple(project, name)
    .map(([one, two]) => `gcpkms://projects/${one}/locations/l/keyRings/r/cryptoKeys/${two}`);
  const rule = fc.oneof(
    uri,
    project.map((one) => `gcpkms://projects/${one}/*`),
  );
  await fc.assert(
    fc.asyncProperty(
      fc.array(rule, { maxLength: 3 }),
      fc.array(uri, { minLength: 1, maxLength: 5 }),
      async (rules, asked) => {
        const { unwrap, opened } = provider(rules);
        const allowed = (one: string) =>
          rules.some((entry) => (entry.endsWith('/*') ? one.startsWith(entry.slice(0, -1)) : entry === one));
        const reply = await unwrap(packetFor(...asked)).catch(asOcicryptError);
        assert.ok(opened.every(allowed), `${opened} under ${rules}`);
        if (asked.some(allowed)) assert.ok(reply instanceof Uint8Array);
        else assert.ok(reply instanceof OcicryptError && reply.code === 'not-allowed' && opened.length === 0);
      },
    ),
    sample(300),
  );
});

test('P13 a layer-key record has at most 4096 bytes', () => {
  assert.ok(isLayerKeyRecord(Buffer.from(OPTSDATA.toString().padEnd(4096))));
  assert.ok(!isLayerKeyRecord(Buffer.from(OPTSDATA.toString().padEnd(4097))));
});

test(seeded('P13 nothing but a layer-key record is ever released, whatever a key service answers'), async () => {
  const random = createRandom();
  const record: Record<string, unknown> = JSON.parse(OPTSDATA.toString());
  const shapes: readonly (() => Uint8Array)[] = [
    () => Uint8Array.from({ length: random(300) }, () => random(256)),
    () =>
      Buffer.from(
        JSON.stringify({
          ...record,
          symkey: Buffer.alloc(random(64))
            .toString('base64')
            .replace(/^.{44}$/, ''),
        }),
      ),
    () =>
      Buffer.from(
        JSON.stringify({
          ...record,
          [['symkey', 'digest', 'cipheroptions'][random(3)] ?? '']: [null, 1, 'x', {}, []][random(5)],
        }),
      ),
    () => OPTSDATA.subarray(0, random(OPTSDATA.length)),
    () => Buffer.concat([OPTSDATA, Uint8Array.of(random(256) | 0x21)]),
    () => Buffer.from(`${'['.repeat(random(4) + 1)}${OPTSDATA.toString()}`),
    () =>
      Buffer.from(
        ['password', 'AKIAIOSFODNN7EXAMPLE', '-----BEGIN PRIVATE KEY-----', '{"token":"x"}', ''][random(5)] ?? '',
      ),
  ];
  let plaintext: Uint8Array = OPTSDATA;
  const { unwrap } = provider([key('a')], { [key('a')]: { unwrap: async () => Uint8Array.from(plaintext) } });
  const packet = packetV1(key('a'), Uint8Array.of(1));
  assertOpened(await unwrap(packet));
  for (let count = 0; count < runs(2000); count++) {
    plaintext = shapes[random(shapes.length)]?.() ?? OPTSDATA;
    const error = await failureOf(unwrap(packet));
    assert.equal(error.code, 'integrity');
  }
});
