/**
 * Unwraps through the whole provider while Google's answers go wrong: every fault of reliability's matrix, drawn with a
 * seed, so that one unwrap can be had again. A few hundred belong to `npm test`, ten thousand to `npm run prove`.
 */
import { randomBytes } from 'node:crypto';
import { asOcicryptError, type ErrorCode } from '../../../src/base/errors.ts';
import { formatKeyUri } from '../../../src/base/key-uri.ts';
import type { Kek } from '../../../src/kms/kek.ts';
import type { Limits } from '../../../src/provider/attempts.ts';
import { createProvider, type Provider, type ProviderOptions } from '../../../src/provider/handle.ts';
import { parseAllowRule } from '../../../src/provider/policy.ts';
import type { Fault } from '../../fakes/wire.ts';
import { createRandom, SEED } from '../../fixtures/seed.ts';
import { base64, unwrapRequest, wrapRequest } from '../../fixtures/vectors/shape.ts';
import { FIRST, RING, refusal, SECOND, type World } from './world.ts';

/** Which unwraps meet faults, and which faults. */
export type FaultPlan =
  /** This share of the unwraps meets one fault or two in a row, of those that may pass. */
  | { readonly kind: 'unwraps'; readonly rate: number }
  /** This share of all exchanges with the service meets a fault of those that may pass. */
  | { readonly kind: 'exchanges'; readonly rate: number }
  /** Every exchange meets a fault, of those that stay and of those that may pass. */
  | { readonly kind: 'all' };

export type FaultRun = {
  readonly unwraps: number;
  readonly plan: FaultPlan;
  readonly limits: Limits;
  /** Unwraps at the same time. */
  readonly parallel: number;
  /** Who answers requests for the world's keys under the name `kmscrypt`; a provider of this process where it is left out. */
  readonly handle?: (request: Uint8Array) => Promise<Uint8Array>;
};

export type FaultReport = {
  readonly succeeded: number;
  readonly wrongKeys: number;
  /** No end five seconds after the deadline. */
  readonly hangs: number;
  /** Milliseconds of the slowest unwrap. */
  readonly longest: number;
  readonly failures: Readonly<Partial<Record<ErrorCode, number>>>;
  /** How often each fault came. */
  readonly faults: Readonly<Record<string, number>>;
  /** Unwraps that a right answer without a fault did not end: the machine was too busy to read it in time. */
  readonly late: number;
};

type NamedFault = { readonly name: string; readonly fault: Fault };

/** One packet and its layer key; `planned` are the faults of the exchanges to come of the unwrap in progress. */
type Slot = {
  readonly request: Uint8Array;
  readonly record: Uint8Array;
  readonly ciphertext: string;
  readonly isRsa: boolean;
  /** What the service answers to the unwrap. */
  readonly answer: string;
  draw: () => NamedFault | undefined;
};

const PAIR = `${RING}/cryptoKeys/pair`;

/** Runs the plan against a world of its own. */
export async function unwrapUnderFaults(world: World, run: FaultRun): Promise<FaultReport> {
  const handle = run.handle ?? createGoogleProvider(world, run.limits).handle;
  const slots = await createSlots(world, handle, run.parallel);
  const bySlot = new Map(slots.map((slot) => [slot.ciphertext, slot]));
  const faults: Record<string, number> = {};
  const failures: Partial<Record<ErrorCode, number>> = {};
  let [next, succeeded, wrongKeys, hangs, longest, late] = [0, 0, 0, 0, 0, 0];

  world.kms.server.setFault((request) => {
    const ciphertext = /"ciphertext":"([^"]+)"/.exec(Buffer.from(request.body).toString())?.[1];
    const slot = bySlot.get(ciphertext ?? '');
    const drawn = slot?.draw();
    if (slot === undefined || drawn === undefined) return undefined;
    faults[drawn.name] = (faults[drawn.name] ?? 0) + 1;
    return drawn.fault;
  });

  async function work(slot: Slot): Promise<void> {
    for (let index = next++; index < run.unwraps; index = next++) {
      const draw = planOf(run, index, slot, slots);
      let right = 0;
      slot.draw = () => {
        const drawn = draw();
        if (drawn === undefined) right++;
        return drawn;
      };
      const started = performance.now();
      const { promise: hang, resolve } = Promise.withResolvers<'hang'>();
      const timer = setTimeout(() => resolve('hang'), run.limits.total + 5000);
      const outcome = await Promise.race([handle(slot.request).catch(asOcicryptError), hang]);
      clearTimeout(timer);
      longest = Math.max(longest, performance.now() - started);
      if (right > 1 || (right === 1 && outcome instanceof Error)) late++;
      if (outcome === 'hang') hangs++;
      else if (outcome instanceof Error) failures[outcome.code] = (failures[outcome.code] ?? 0) + 1;
      else if (Buffer.from(outcome).equals(slot.record)) succeeded++;
      else wrongKeys++;
    }
  }

  try {
    await Promise.all(slots.map(work));
  } finally {
    world.kms.server.setFault(undefined);
  }
  return { succeeded, wrongKeys, hangs, longest, failures, faults, late };
}

/** A provider for the keys of the world. */
export function createGoogleProvider(world: World, limits: Limits, more: Partial<ProviderOptions> = {}): Provider {
  const keks = new Map<string, Kek>();
  return createProvider({
    async openKek(uri) {
      const name = formatKeyUri(uri);
      const kek = keks.get(name) ?? world.open(name);
      keks.set(name, kek);
      return kek;
    },
    rules: [parseAllowRule(`gcpkms://${RING}/*`)],
    callerKeysAllowed: false,
    names: { configured: undefined, fallback: 'kmscrypt' },
    limits,
    ...more,
  });
}

/** A layer-key record as ocicrypt writes it, with a new key. */
export function createRecord(): Uint8Array {
  return Buffer.from(
    JSON.stringify({
      symkey: base64(randomBytes(32)),
      digest: `sha256:${randomBytes(32).toString('hex')}`,
      cipheroptions: { nonce: base64(randomBytes(16)) },
    }),
  );
}

/** The packet of a reply to a wrap. */
export function readPacket(reply: Uint8Array): Buffer {
  return Buffer.from(JSON.parse(Buffer.from(reply).toString()).keywrapresults.annotation, 'base64');
}

/** The reply that an unwrap of a packet of this record must get. */
export function replyOf(record: Uint8Array): Buffer {
  return Buffer.from(JSON.stringify({ keyunwrapresults: { optsdata: base64(record) } }));
}

/** Two symmetric keys and an RSA key, in turn. */
async function createSlots(world: World, handle: Provider['handle'], count: number): Promise<readonly Slot[]> {
  world.kms.createAsymmetricKey(PAIR);
  const slots: Slot[] = [];
  for (let index = 0; index < count; index++) {
    const key = [FIRST, PAIR, SECOND][index % 3] ?? FIRST;
    const record = createRecord();
    const packet = readPacket(await handle(Buffer.from(wrapRequest([`gcpkms://${key}`], record))));
    const ciphertext: string = JSON.parse(packet.toString()).recipients[0].wrapped_key;
    const request = Buffer.from(unwrapRequest(packet));
    let answer = '';
    world.kms.server.faults.push({
      kind: 'body',
      change(body) {
        answer = body;
        return body;
      },
    });
    await handle(request);
    slots.push({ request, record: replyOf(record), ciphertext, isRsa: key === PAIR, answer, draw: () => undefined });
  }
  return slots;
}

/** The faults of one unwrap, one for each exchange: the same for the same seed and number. */
function planOf(run: FaultRun, index: number, slot: Slot, slots: readonly Slot[]): Slot['draw'] {
  const below = createRandom(SEED + index * 7919);
  const random = () => below(2 ** 20) / 2 ** 20;
  const passing = passingFaults(random, run.limits, slot.isRsa);
  let last: NamedFault | undefined;
  // Not the same twice in a row: a second new token that is refused does not pass.
  const pick = (from: readonly NamedFault[]) => {
    const others = from.filter((one) => one !== last);
    last = others[below(others.length)];
    return last;
  };
  switch (run.plan.kind) {
    case 'unwraps': {
      let left = random() < run.plan.rate ? 1 + Math.floor(random() * 2) : 0;
      return () => (left-- > 0 ? pick(passing) : undefined);
    }
    case 'exchanges': {
      const { rate } = run.plan;
      return () => (random() < rate ? pick(passing) : undefined);
    }
    case 'all': {
      const other = slots[(slots.indexOf(slot) + 3) % slots.length] ?? slot;
      const every = [...passing, ...stayingFaults(other)];
      return () => pick(every);
    }
  }
}

/** What may pass: the same call succeeds when it is made again. */
function passingFaults(random: () => number, limits: Limits, isRsa: boolean): readonly NamedFault[] {
  const status = (number: number, rpc: string): NamedFault => ({
    name: `status ${number}`,
    fault: { kind: 'answer', ...refusal(number, rpc, '') },
  });
  const plain = (kind: Exclude<Fault['kind'], 'held' | 'answer' | 'body' | 'latency' | 'request'>): NamedFault => ({
    name: kind,
    fault: { kind },
  });
  const change = (kind: 'body' | 'request', name: string, pattern: RegExp, replacement: string): NamedFault => ({
    name,
    fault: { kind, change: (body) => body.replace(pattern, replacement) },
  });
  // Up to ten attempts long: 30 s where an attempt may take 3.
  const late = { name: 'late', fault: { kind: 'latency', milliseconds: random() * limits.attempt * 10 } } as const;
  const ofSymmetric = [
    change('request', 'context of the request', /"(additionalA[a-zA-Z]+Data)":"[^"]{4}/, '"$1":"AAAA'),
    change('request', 'contextCrc32c of the request', /"(additionalA[a-zA-Z]+Crc32c)":"\d+"/, '"$1":"7"'),
  ];
  const ofRsa = [
    change('body', 'unverified ciphertext', /"verifiedCiphertextCrc32c":true/, '"verifiedCiphertextCrc32c":false'),
    change('body', 'no word about the ciphertext', /"verifiedCiphertextCrc32c":true,?/, ''),
  ];
  return [
    late,
    { name: 'a little late', fault: { kind: 'latency', milliseconds: random() * limits.attempt * 0.5 } },
    status(429, 'RESOURCE_EXHAUSTED'),
    status(500, 'INTERNAL'),
    status(503, 'UNAVAILABLE'),
    status(401, 'UNAUTHENTICATED'),
    plain('reset-before-headers'),
    plain('reset-after-headers'),
    plain('silent'),
    plain('silent-after-headers'),
    plain('truncated'),
    plain('length-too-long'),
    plain('length-too-short'),
    plain('not-http'),
    change('request', 'ciphertextCrc32c of the request', /"ciphertextCrc32c":"\d+"/, '"ciphertextCrc32c":"7"'),
    change('request', 'ciphertext of the request', /"ciphertext":"[^"]{4}/, '"ciphertext":"AAAA'),
    change('body', 'plaintextCrc32c of the answer', /"plaintextCrc32c":"\d+"/, '"plaintextCrc32c":"7"'),
    change('body', 'no plaintextCrc32c', /"plaintextCrc32c":"\d+",?/, ''),
    change('body', 'plaintext of the answer', /"plaintext":"[^"]{4}/, '"plaintext":"AAAA'),
    ...(isRsa ? ofRsa : ofSymmetric),
  ];
}

/** What stays, or is wrong beyond repair: the right answer to another request, a refusal, another service. */
function stayingFaults(other: Slot): readonly NamedFault[] {
  const status = (number: number, rpc: string): NamedFault => ({
    name: `status ${number}`,
    fault: { kind: 'answer', ...refusal(number, rpc, '') },
  });
  return [
    { name: 'the answer to another request', fault: { kind: 'body', change: () => other.answer } },
    status(400, 'INVALID_ARGUMENT'),
    status(400, 'FAILED_PRECONDITION'),
    status(403, 'PERMISSION_DENIED'),
    status(404, 'NOT_FOUND'),
    { name: 'a page', fault: { kind: 'answer', status: 200, body: '<html>sign in</html>' } },
    { name: 'a redirect', fault: { kind: 'answer', status: 302, headers: { Location: '/' }, body: '' } },
  ];
}
