import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import { reportError } from '../../src/base/error-report.ts';
import { asOcicryptError, OcicryptError } from '../../src/base/errors.ts';
import { formatKeyUri, type KeyUri } from '../../src/base/key-uri.ts';
import type { AuditEvent, Decision, Logger } from '../../src/provider/audit.ts';
import { type Call, createProvider, type ProviderOptions } from '../../src/provider/handle.ts';
import { encodePacketV1 } from '../../src/provider/packet.ts';
import { parseAllowRule } from '../../src/provider/policy.ts';
import { failureOf } from '../fixtures/codes.ts';
import { AGE, contextOf, DATA_KEY, OPTSDATA } from '../fixtures/packets.ts';
import { createTestKek, type TestKek } from '../fixtures/provider.ts';
import { FIRST_KEY, GCP, PACKET, replyOf, unwrapRequest, wrapRequest } from '../fixtures/vectors/shape.ts';

const DIGEST = `sha256:${createHash('sha256').update(PACKET).digest('hex')}`;
const CONTENT = contextOf().content;

function setUp(
  behaviour: TestKek = { unwrap: async () => Uint8Array.from(DATA_KEY) },
  more: Partial<ProviderOptions> = {},
) {
  const events: AuditEvent[] = [];
  const provider = createProvider({
    openKek: async () => createTestKek(FIRST_KEY, behaviour),
    rules: [parseAllowRule(FIRST_KEY)],
    callerKeysAllowed: true,
    names: { configured: undefined, fallback: 'kmscrypt' },
    limits: { total: 1000, attempt: 200, attempts: 1, stagger: 20 },
    audit: { record: async (event) => void events.push(event) },
    ...more,
  });
  const handle = (request: string, call?: Call) => provider.handle(Buffer.from(request), call);
  return { events, handle };
}

test('an unwrap has one line: who, what, which key, which packet', async () => {
  const { events, handle } = setUp();
  const started = performance.now();
  await handle(unwrapRequest(PACKET, [FIRST_KEY]), { caller: 'uid:7' });
  const most = performance.now() - started;
  assert.equal(events.length, 1);
  const { id, milliseconds, ...event } = events[0] ?? assert.fail();
  assert.match(id, /^[0-9a-f-]{36}$/);
  assert.ok(milliseconds >= 0 && milliseconds <= most + 0.001, `${milliseconds} ms of ${most}`);
  assert.match(String(milliseconds), /^\d+(?:\.\d{1,3})?$/);
  assert.deepEqual(event, {
    caller: 'uid:7',
    operation: 'unwrap',
    outcome: 'ok',
    provider: 'kmscrypt',
    keys: [FIRST_KEY],
    asked: [FIRST_KEY],
    packet: 'v2',
    packetDigest: DIGEST,
    content: CONTENT,
  });
});

test('a wrap has one line, by whose digest the packet is found in a manifest', async () => {
  const { events, handle } = setUp();
  const reply = JSON.parse(Buffer.from(await handle(wrapRequest([FIRST_KEY]))).toString());
  const packet = Buffer.from(reply.keywrapresults.annotation, 'base64');
  assert.equal(events[0]?.packetDigest, `sha256:${createHash('sha256').update(packet).digest('hex')}`);
  const { nonce, ciphertext } = JSON.parse(packet.toString());
  const sealed = Buffer.concat([Buffer.from(nonce, 'base64'), Buffer.from(ciphertext, 'base64')]);
  assert.equal(events[0]?.content, createHash('sha256').update(sealed).digest('base64'));
  assert.deepEqual(
    [events.length, events[0]?.operation, events[0]?.outcome, events[0]?.keys, events[0]?.packet],
    [1, 'wrap', 'ok', [FIRST_KEY], 'v2'],
  );
  const v1 = setUp(undefined, { packet: 'v1', openKek: async () => createTestKek(GCP) });
  await v1.handle(wrapRequest([GCP]));
  assert.deepEqual([v1.events[0]?.outcome, v1.events[0]?.packet, v1.events[0]?.content], ['ok', 'v1', undefined]);
});

test('every refusal has its line too, whatever was refused', async () => {
  const other = FIRST_KEY.replace(/.$/, '0').replace(/^(.*?)(..)$/, (_, start: string) => `${start}00`);
  for (const [request, outcome, operation] of [
    ['', 'bad-input', 'unknown'],
    ['{"op":"keywrap"}', 'bad-input', 'unknown'],
    [unwrapRequest('{}'), 'bad-input', 'unwrap'],
    [wrapRequest(['x']), 'bad-input', 'wrap'],
    [unwrapRequest(PACKET.replaceAll(FIRST_KEY, other)), 'not-allowed', 'unwrap'],
  ] as const) {
    const { events, handle } = setUp();
    assert.equal((await failureOf(handle(request))).code, outcome);
    assert.deepEqual(
      events.map((event) => [event.outcome, event.operation]),
      [[outcome, operation]],
      request,
    );
  }
  const { events, handle } = setUp({ unwrap: () => Promise.reject(new TypeError('secret')) });
  await failureOf(handle(unwrapRequest(PACKET)));
  assert.equal(events[0]?.outcome, 'internal');
});

test('a line holds no secret', async () => {
  const { events, handle } = setUp();
  await handle(
    unwrapRequest(PACKET).replace(
      '"Parameters":null',
      '"Parameters":{"kmscrypt":["RW5hYmxlZA=="],"privkeys":["c2VjcmV0"]}',
    ),
  );
  await handle(wrapRequest([FIRST_KEY]));
  const text = JSON.stringify(events);
  const { symkey } = JSON.parse(OPTSDATA.toString());
  for (const secret of [
    symkey,
    Buffer.from(symkey, 'base64').toString('hex'),
    'c2VjcmV0',
    DATA_KEY.toString('base64'),
  ]) {
    assert.ok(!text.includes(secret));
  }
});

test('P24 where the line cannot be written nothing is released', async () => {
  const notWritten = new OcicryptError('not-written', 'cannot append to /audit');
  for (const request of [unwrapRequest(PACKET), wrapRequest([FIRST_KEY]), unwrapRequest('{}'), '']) {
    const { handle } = setUp(undefined, { audit: { record: () => Promise.reject(notWritten) } });
    assert.equal(await failureOf(handle(request)), notWritten);
  }
});

test('P24 nothing is released before its line is written', async () => {
  const { promise, resolve } = Promise.withResolvers<void>();
  const { handle } = setUp(undefined, { audit: { record: () => promise } });
  let released = false;
  const work = handle(unwrapRequest(PACKET)).then(() => {
    released = true;
  });
  await new Promise((done) => setTimeout(done, 30));
  assert.equal(released, false);
  resolve();
  await work;
});

test('the log is told of each request with the fields of its audit line', async () => {
  const lines: unknown[] = [];
  const log: Logger = { debug: (fields) => void lines.push(fields), warn: () => assert.fail() };
  const { events, handle } = setUp(undefined, { log });
  await handle(unwrapRequest(PACKET));
  assert.deepEqual(lines, events);
  const error = await failureOf(handle(unwrapRequest('{}')));
  assert.deepEqual(lines[1], { ...events[1], error: reportError(error) });
  const alone = setUp(undefined, { log, audit: undefined });
  await alone.handle(unwrapRequest(PACKET));
  await failureOf(alone.handle('', { refusal: new OcicryptError('throttled', 'too many') }));
  const said = lines.slice(2).map((line) => Object.entries(line ?? {}).filter(([name]) => /^(?:op|out|pa)/.test(name)));
  assert.deepEqual(said.map(Object.fromEntries), [
    { operation: 'unwrap', outcome: 'ok', packet: 'v2', packetDigest: DIGEST },
    { operation: 'unknown', outcome: 'throttled' },
  ]);
});

test('what a key gives back of a v1 packet is wiped once it is in the reply', async () => {
  const plaintext = Uint8Array.from(OPTSDATA);
  const { events, handle } = setUp({ unwrap: async () => plaintext }, { rules: [parseAllowRule(GCP)] });
  const reply = await handle(unwrapRequest(encodePacketV1({ key: GCP, wrapped: Uint8Array.of(1) })));
  assert.equal(Buffer.from(reply).toString(), replyOf(OPTSDATA));
  assert.deepEqual(plaintext, new Uint8Array(OPTSDATA.length));
  assert.deepEqual([events[0]?.packet, events[0]?.content], ['v1', undefined]);
});

test('a file of the operator that cannot be used is said if it may be why a key is not found', async () => {
  const rules = [parseAllowRule('keyfile:///absent.key')];
  const openKek = async (uri: KeyUri) => {
    if (uri.scheme === 'keyfile') throw new OcicryptError('not-found', 'it does not exist');
    return createTestKek(formatKeyUri(uri));
  };
  const outcome = (named: string, callerKeysAllowed: boolean) =>
    setUp(undefined, { rules, openKek, callerKeysAllowed })
      .handle(wrapRequest([named]))
      .then(
        () => 'ok',
        (error) => asOcicryptError(error).code,
      );
  assert.equal(await outcome(FIRST_KEY, true), 'not-found');
  assert.equal(await outcome(FIRST_KEY, false), 'not-found');
  assert.equal(await outcome(AGE.recipient, true), 'ok');
  assert.equal(await outcome(AGE.recipient, false), 'not-found');
  const { handle } = setUp(undefined, { rules, openKek });
  assert.equal((await failureOf(handle(unwrapRequest(PACKET, [FIRST_KEY])))).code, 'not-found');
  const prefix = setUp(undefined, { rules: [parseAllowRule('gcpkms://projects/p/*')], callerKeysAllowed: false });
  assert.equal((await failureOf(prefix.handle(wrapRequest([AGE.recipient])))).code, 'not-allowed');
});

test('a missed deadline names three keys of a packet, and of each what a line has room for', async () => {
  const key = (name: string) => `hashivault://${name}`;
  const long = `${'x'.repeat(127)}?namespace=${'n'.repeat(120)}`;
  const recipients = [key(long), key('two'), key('three'), key('four')];
  const { handle } = setUp(undefined, {
    limits: { total: 30, attempt: 1000, attempts: 1, stagger: 20 },
    openKek: () => new Promise(() => {}),
  });
  const { code, message } = await failureOf(handle(wrapRequest(recipients)));
  assert.equal(code, 'deadline-exceeded');
  assert.ok(message.includes(`key ${key(long).slice(0, 256)}, key ${key('two')}, key ${key('three')}`), message);
  assert.ok(!message.includes('four') && !message.includes(key(long).slice(0, 257)), message);
});

test('each decision is told once: the operation, its key and its outcome, or that its line was not written', async () => {
  const told: Decision[] = [];
  const onDecision = (decision: Decision) => void told.push(decision);
  const { handle } = setUp(undefined, { onDecision });
  await handle(unwrapRequest(PACKET));
  await handle(wrapRequest([FIRST_KEY]));
  await failureOf(handle(unwrapRequest('{}')));
  await failureOf(handle(''));
  const refusal = new OcicryptError('throttled', 'too many');
  assert.equal(await failureOf(handle('', { refusal, operation: 'unwrap' })), refusal);
  const record = () => Promise.reject(new OcicryptError('not-written', 'full'));
  await failureOf(setUp(undefined, { onDecision, audit: { record } }).handle(unwrapRequest(PACKET)));
  assert.deepEqual(told, [
    { operation: 'unwrap', key: FIRST_KEY, outcome: 'ok' },
    { operation: 'wrap', key: FIRST_KEY, outcome: 'ok' },
    { operation: 'unwrap', key: undefined, outcome: 'bad-input' },
    { operation: 'unknown', key: undefined, outcome: 'bad-input' },
    { operation: 'unwrap', key: undefined, outcome: 'throttled' },
    { operation: 'unwrap', key: FIRST_KEY, outcome: 'not-written' },
  ]);
});

test('a caller’s signal ends the call', async () => {
  const limits = { total: 600_000, attempt: 600_000, attempts: 1, stagger: 20 };
  const { events, handle } = setUp({ unwrap: () => new Promise(() => {}) }, { limits });
  const controller = new AbortController();
  setTimeout(() => controller.abort(), 20);
  assert.equal(
    (await failureOf(handle(unwrapRequest(PACKET), { signal: controller.signal }))).code,
    'deadline-exceeded',
  );
  assert.equal(events[0]?.outcome, 'deadline-exceeded');
});

test('many requests at once do not mix', async () => {
  const { events, handle } = setUp();
  const replies = await Promise.all(
    Array.from({ length: 50 }, (_, index) => handle(unwrapRequest(PACKET), { caller: String(index) })),
  );
  for (const reply of replies)
    assert.equal(JSON.parse(Buffer.from(reply).toString()).keyunwrapresults.optsdata, OPTSDATA.toString('base64'));
  assert.equal(new Set(events.map(({ id }) => id)).size, 50);
  assert.equal(new Set(events.map(({ caller }) => caller)).size, 50);
});

test('keys that a call names are its own right in a command, and only narrow in a server', async () => {
  const request = wrapRequest(['gcpkms://projects/p/locations/l/keyRings/r/cryptoKeys/k']);
  await setUp().handle(request);
  const error = await failureOf(setUp(undefined, { callerKeysAllowed: false }).handle(request));
  assert.equal(error.code, 'not-allowed');
});

test('Enabled means the default key, else the only key of the list, else an error', async () => {
  const wrapped = async (more: Partial<ProviderOptions>) => {
    const opened: string[] = [];
    const openKek = async (uri: KeyUri) => {
      opened.push(formatKeyUri(uri));
      return createTestKek(formatKeyUri(uri), {});
    };
    await setUp(undefined, { ...more, openKek }).handle(wrapRequest(['Enabled']));
    return opened;
  };
  const key = 'gcpkms://projects/p/locations/l/keyRings/r/cryptoKeys/k';
  const rules = [key, FIRST_KEY].map(parseAllowRule);
  assert.deepEqual(await wrapped({}), [FIRST_KEY]);
  const [first] = rules;
  assert.ok(first?.kind === 'key');
  assert.deepEqual(await wrapped({ rules, defaultKey: first.uri }), [key]);
  for (const more of [{ rules }, { rules: [] }, { rules: [parseAllowRule('gcpkms://projects/p/*')] }]) {
    const error = await failureOf(wrapped(more));
    assert.deepEqual([error.code, error.hint?.includes('defaultKey')], ['bad-input', true]);
  }
});

test('another key than --kmsURI is an error that names both', async () => {
  const key = (version: string) => `gcpkms://projects/p/locations/l/keyRings/r/cryptoKeys/k${version}`;
  const defaultRule = parseAllowRule(key(''));
  assert.ok(defaultRule.kind === 'key');
  const { handle } = setUp(undefined, { rules: [defaultRule], defaultKey: defaultRule.uri });
  const error = await failureOf(handle(wrapRequest([key('2')])));
  assert.ok(
    error.code === 'bad-input' && error.message.includes(key('2')) && error.message.includes(`is ${key('')}`),
    error.message,
  );
  await handle(wrapRequest([key('/cryptoKeyVersions/3')]));
});

test('bytes are written as the client reads them: as its request shows, as its caller knows, or as the operator says', async () => {
  const numbers = (bytes: Uint8Array) => JSON.stringify([...bytes]);
  const asNumbers = (request: string) =>
    [OPTSDATA, Buffer.from(PACKET)].reduce(
      (text: string, bytes) => text.replace(`"${bytes.toString('base64')}"`, numbers(bytes)),
      request,
    );
  const asText = wrapRequest([FIRST_KEY]).replace(
    `"${OPTSDATA.toString('base64')}"`,
    JSON.stringify(OPTSDATA.toString()),
  );
  const trials = [
    { request: wrapRequest([FIRST_KEY]), isArray: false },
    { request: asNumbers(wrapRequest([FIRST_KEY])), isArray: true },
    // What ocicrypt-rs sends.
    { request: asText, isArray: true },
    { request: unwrapRequest(PACKET), isArray: false },
    { request: asNumbers(unwrapRequest(PACKET)), isArray: true },
    { request: unwrapRequest(PACKET), spelling: 'array', isArray: true },
    { request: asText, operator: 'base64', isArray: false },
    { request: unwrapRequest(PACKET), operator: 'array', isArray: true },
  ] as const;
  for (const [index, { request, isArray, ...said }] of trials.entries()) {
    const spelling = 'operator' in said ? said.operator : undefined;
    const { handle } = setUp(undefined, { spelling });
    const call = 'spelling' in said ? { spelling: said.spelling } : {};
    const reply = JSON.parse(Buffer.from(await handle(request, call)).toString());
    const bytes = reply.keywrapresults?.annotation ?? reply.keyunwrapresults.optsdata;
    assert.equal(Array.isArray(bytes), isArray, `${index}`);
    if (request.includes('keyunwrap"')) assert.deepEqual(Buffer.from(bytes, 'base64'), OPTSDATA);
  }
});
