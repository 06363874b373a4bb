/**
 * What every key-encryption key must do, whoever keeps it: one suite, run by each backend with two keys of its own
 * against a service that really encrypts. A harness says how to make the service rotate, deny, disable and misbehave;
 * a backend without such a thing (a key file has no other machine) leaves it out.
 */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { after, before, describe, test } from 'node:test';
import { inspect } from 'node:util';
import { type ErrorCode, OcicryptError } from '../../src/base/errors.ts';
import type { EncryptionContext, Kek, WrappedKey } from '../../src/kms/kek.ts';
import { soon } from './expect.ts';
import { assertForgery, assertVersions } from './forgery.ts';

/** A backend under test. `first` and `second` are two keys that are opened anew for each test. */
export interface KekHarness {
  openFirst(): Promise<Kek> | Kek;
  openSecond(): Promise<Kek> | Kek;
  /** Whether the backend binds the context (docs/packet.md section 6 says what is lost where it does not). */
  readonly bindsContext: boolean;
  /**
   * What the version that a packet names is worth: there are none, or the service finds it in the ciphertext whatever is
   * named, or it opens under that version only, or the version is a part of the key's name and opens under that only.
   */
  readonly versions: 'none' | 'found in the ciphertext' | 'enforced' | 'enforced in the key';
  /** What an RSA key takes at the most, where that is less than 4096 bytes: a v2 packet wraps 32. */
  readonly maximumBytes?: number;
  /** Bytes at the front of what it wraps that a stand-in of the service does not look at. */
  readonly unreadBytes?: number;
  /** Strings that must never be in an error: tokens, PINs, private keys, paths of credentials. */
  secrets?(): readonly string[];
  /** Everything below is about the first key, and lasts until `restore`. */
  restore?(): Promise<void> | void;
  rotate?(): Promise<void> | void;
  disable?(): Promise<void> | void;
  remove?(): Promise<void> | void;
  deny?(method: 'unwrap' | 'wrap'): Promise<void> | void;
  /** Answers as the service does when there are too many calls, with `Retry-After: 7` where it has that. */
  throttle?(): Promise<void> | void;
  /** Nothing ever comes back. */
  hang?(): Promise<void> | void;
  /** The connection breaks within the answer. */
  cutOff?(): Promise<void> | void;
  /** The service is out of order (HTTP 503 or what corresponds). */
  breakDown?(): Promise<void> | void;
  /** Answers to wrap and unwrap are those that the second key would give. */
  answerOfOther?(): Promise<void> | void;
  /** What the codes of this backend are where the service cannot tell more; the defaults are below. */
  readonly codes?: Partial<Record<'disable' | 'remove' | 'deny', readonly ErrorCode[]>>;
}

const CONTEXTS: readonly EncryptionContext[] = [
  {},
  { 'ocicrypt-kms': 'v2' },
  { 'ocicrypt-kms': 'v2', 'label.env': 'prod', 'label.naïve': 'ü"\\' },
];

/** Runs the suite. @param start makes the harness once, and what ends it */
export function describeKek(
  name: string,
  start: () => Promise<{ readonly harness: KekHarness; readonly close: () => Promise<void> | void }>,
  has: readonly (keyof KekHarness)[] = [],
): void {
  describe(`a key of ${name}`, () => {
    let harness: KekHarness;
    let close: () => Promise<void> | void = () => {};
    const opened: Kek[] = [];

    before(async () => {
      ({ harness, close } = await start());
      for (const method of has) assert.ok(harness[method] !== undefined, `the harness has no ${method}`);
    });
    after(async () => {
      for (const kek of opened) kek.close?.();
      await close();
    });

    const first = async () => remember(await harness.openFirst());
    const second = async () => remember(await harness.openSecond());
    function remember(kek: Kek): Kek {
      opened.push(kek);
      return kek;
    }

    /** Puts the first key in trouble for the time of `body`. */
    async function during(trouble: (() => Promise<void> | void) | undefined, body: () => Promise<void>): Promise<void> {
      assert.ok(trouble !== undefined);
      await trouble.call(harness);
      try {
        await body();
      } finally {
        await harness.restore?.();
      }
    }

    async function fails(
      work: Promise<unknown>,
      codes: readonly ErrorCode[],
      plaintext?: Uint8Array,
    ): Promise<OcicryptError> {
      const error = await work.then(
        () => assert.fail('it succeeded'),
        (reason: unknown) => reason,
      );
      assert.ok(error instanceof OcicryptError, inspect(error));
      assert.ok(codes.includes(error.code), `${error.code}: ${error.message}`);
      assertNoSecrets(error, harness.secrets?.() ?? [], plaintext);
      return error;
    }

    describe('wraps and unwraps', () => {
      for (const [index, context] of CONTEXTS.entries()) {
        test(`bytes of every length that occurs, with context ${index}`, async () => {
          const kek = await first();
          for (const length of [1, 32, 193, 600, 4096]) {
            if (length > (harness.maximumBytes ?? length)) continue;
            const plaintext = randomBytes(length);
            const copy = Uint8Array.from(plaintext);
            const wrapped = await kek.wrap(plaintext, context, soon());
            assert.deepEqual(Uint8Array.from(plaintext), copy, 'wrap changed its input');
            assert.ok(!includes(wrapped.wrapped, plaintext) || length < 8);
            assert.deepEqual(Uint8Array.from(await kek.unwrap(wrapped, context, soon())), copy);
          }
        });
      }

      // A packet wraps 1 to 4096: what is outside comes back whole or is refused, and is never cut.
      for (const length of [0, 65_536]) {
        test(`${length} bytes, or says that it does not take them`, async () => {
          const kek = await first();
          const plaintext = randomBytes(length);
          const wrapped = await kek.wrap(plaintext, {}, soon()).catch((error: unknown) => error);
          if (wrapped instanceof Error) await fails(Promise.reject(wrapped), ['bad-input'], plaintext);
          else {
            const unwrapped = await kek.unwrap(wrapped as WrappedKey, {}, soon());
            assert.deepEqual(Uint8Array.from(unwrapped), Uint8Array.from(plaintext));
          }
        });
      }

      test('never twice to the same bytes', async () => {
        const kek = await first();
        const plaintext = randomBytes(32);
        const one = await kek.wrap(plaintext, {}, soon());
        const two = await kek.wrap(plaintext, {}, soon());
        assert.notDeepEqual(one.wrapped, two.wrapped);
      });

      test('as a key that is opened anew', async () => {
        const plaintext = randomBytes(32);
        const wrapped = await (await first()).wrap(plaintext, {}, soon());
        assert.deepEqual(
          Uint8Array.from(await (await first()).unwrap(wrapped, {}, soon())),
          Uint8Array.from(plaintext),
        );
      });

      test('many at once, each its own', async () => {
        const kek = await first();
        await Promise.all(
          Array.from({ length: 24 }, async (_, index) => {
            const plaintext = randomBytes(32 + index);
            const context = { call: String(index) };
            const wrapped = await kek.wrap(plaintext, context, soon());
            assert.deepEqual(Uint8Array.from(await kek.unwrap(wrapped, context, soon())), Uint8Array.from(plaintext));
          }),
        );
      });

      test('under a canonical name and a named algorithm', async () => {
        const kek = await first();
        const wrapped = await kek.wrap(randomBytes(32), {}, soon());
        assert.match(wrapped.key, /^(?:[a-z0-9]+:|age1)/);
        assert.match(wrapped.algorithm, /^[\w.+-]{2,40}$/);
        assert.notEqual((await second()).key, kek.key);
      });
    });

    describe('refuses', () => {
      test('what another key wrapped', async () => {
        const wrapped = await (await second()).wrap(randomBytes(32), {}, soon());
        await fails((await first()).unwrap(wrapped, {}, soon()), ['integrity']);
      });

      test('what was wrapped with another context, where it binds the context', async () => {
        if (!harness.bindsContext) return;
        const kek = await first();
        const wrapped = await kek.wrap(randomBytes(32), { a: '1', b: '2' }, soon());
        for (const context of [{}, { a: '1' }, { a: '1', b: '3' }, { a: '1', b: '2', c: '3' }, { b: '1', a: '2' }]) {
          await fails(kek.unwrap(wrapped, context, soon()), ['integrity']);
        }
        await kek.unwrap(wrapped, { b: '2', a: '1' }, soon());
        const bare = await kek.wrap(randomBytes(32), {}, soon());
        await fails(kek.unwrap(bare, { a: '1' }, soon()), ['integrity']);
      });

      test('a packet that was forged by one who may only unwrap, where it binds the context', async () => {
        await assertForgery(await first(), harness.bindsContext);
      });

      test('a version that a packet makes up, where there are versions that can be asked for', async () => {
        await assertVersions(await first(), harness.versions);
      });

      test('wrapped bytes with a bit changed anywhere, cut short, or longer', async () => {
        const kek = await first();
        const wrapped = await kek.wrap(randomBytes(32), {}, soon());
        const texts = new Set<string>();
        for (const changed of tamper(wrapped.wrapped, harness.unreadBytes ?? 0)) {
          const error = await fails(kek.unwrap({ ...wrapped, wrapped: changed }, {}, soon()), ['integrity']);
          texts.add(error.message);
        }
        assert.equal(texts.size, 1, 'one text for everything that cannot be unwrapped');
      });

      test('to let a packet choose anything but the bytes', async () => {
        const kek = await first();
        const plaintext = randomBytes(32);
        const wrapped = await kek.wrap(plaintext, {}, soon());
        const foreign: WrappedKey = { ...wrapped, key: (await second()).key };
        const unwrapped = await kek.unwrap(foreign, {}, soon()).catch((error: unknown) => error);
        if (unwrapped instanceof Uint8Array) assert.deepEqual(Uint8Array.from(unwrapped), Uint8Array.from(plaintext));
        else assert.ok(unwrapped instanceof OcicryptError && unwrapped.code === 'integrity');
      });

      test('to work after its signal', async () => {
        const kek = await first();
        if (kek.local) return;
        await fails(kek.wrap(randomBytes(32), {}, AbortSignal.abort()), ['deadline-exceeded']);
      });
    });

    if (has.includes('rotate')) {
      test('unwraps what was wrapped before a rotation, and wraps with the new version', async () => {
        const kek = await first();
        const plaintext = randomBytes(32);
        const before = await kek.wrap(plaintext, {}, soon());
        await harness.rotate?.();
        const after = await kek.wrap(plaintext, {}, soon());
        assert.notDeepEqual([before.key, before.version], [after.key, after.version]);
        for (const wrapped of [before, after]) {
          assert.deepEqual(Uint8Array.from(await kek.unwrap(wrapped, {}, soon())), Uint8Array.from(plaintext));
        }
      });
    }

    for (const [trouble, codes] of [
      ['disable', ['key-disabled']],
      ['remove', ['not-found']],
    ] as const) {
      if (!has.includes(trouble)) continue;
      test(`says ${codes} when the service does ${trouble} it, and how to go on`, async () => {
        const kek = await first();
        const plaintext = randomBytes(32);
        const wrapped = await kek.wrap(plaintext, {}, soon());
        await during(harness[trouble], async () => {
          const expected = harness.codes?.[trouble] ?? codes;
          for (const work of [() => kek.wrap(plaintext, {}, soon()), () => kek.unwrap(wrapped, {}, soon())]) {
            const error = await fails(work(), expected, plaintext);
            assert.equal(error.retryable, false);
            assert.ok(error.hint !== undefined);
          }
        });
      });
    }

    if (has.includes('deny')) {
      for (const method of ['wrap', 'unwrap'] as const) {
        test(`says refused where it may not ${method}, and may do the other`, async () => {
          const kek = await first();
          const plaintext = randomBytes(32);
          const wrapped = await kek.wrap(plaintext, {}, soon());
          await during(
            () => harness.deny?.(method),
            async () => {
              const calls = {
                wrap: () => kek.wrap(plaintext, {}, soon()),
                unwrap: () => kek.unwrap(wrapped, {}, soon()),
              };
              const error = await fails(calls[method](), harness.codes?.deny ?? ['refused'], plaintext);
              assert.equal(error.retryable, false);
              assert.ok(error.hint !== undefined);
              await calls[method === 'wrap' ? 'unwrap' : 'wrap']();
            },
          );
        });
      }
    }

    for (const [trouble, code] of [
      ['throttle', 'throttled'],
      ['breakDown', 'unavailable'],
      ['cutOff', 'unavailable'],
    ] as const) {
      if (!has.includes(trouble)) continue;
      test(`says ${code} and worth a retry for ${trouble}, and works again afterwards`, async () => {
        const kek = await first();
        const plaintext = randomBytes(32);
        const wrapped = await kek.wrap(plaintext, {}, soon());
        await during(harness[trouble], async () => {
          for (const work of [() => kek.wrap(plaintext, {}, soon()), () => kek.unwrap(wrapped, {}, soon())]) {
            const error = await fails(work(), [code], plaintext);
            assert.equal(error.retryable, true);
          }
        });
        assert.deepEqual(Uint8Array.from(await kek.unwrap(wrapped, {}, soon())), Uint8Array.from(plaintext));
      });
    }

    if (has.includes('hang')) {
      test('ends with its signal where the service does not answer', async () => {
        const kek = await first();
        const plaintext = randomBytes(32);
        const wrapped = await kek.wrap(plaintext, {}, soon());
        await during(harness.hang, async () => {
          await fails(kek.wrap(plaintext, {}, AbortSignal.timeout(60)), ['deadline-exceeded'], plaintext);
          await fails(kek.unwrap(wrapped, {}, AbortSignal.timeout(60)), ['deadline-exceeded'], plaintext);
        });
        assert.deepEqual(Uint8Array.from(await kek.unwrap(wrapped, {}, soon())), Uint8Array.from(plaintext));
      });
    }

    if (has.includes('answerOfOther')) {
      test('never takes the answer of another key for its own', async () => {
        const kek = await first();
        const plaintext = randomBytes(32);
        await during(harness.answerOfOther, async () => {
          await fails(kek.wrap(plaintext, {}, soon()), ['integrity'], plaintext);
        });
      });
    }
  });
}

/** Every class of position: each end, each boundary nearby, and a spread; then what is short, long and empty. */
function tamper(wrapped: Uint8Array, unread: number): Uint8Array[] {
  const length = wrapped.length;
  const spread = Array.from({ length: 8 }, (_, index) => Math.floor(unread + ((length - unread) * index) / 8));
  const positions = new Set([0, 1, 8, 12, 13, 16, 24, length - 17, length - 16, length - 1, ...spread]);
  const flipped = [...positions]
    .filter((position) => position >= unread && position < length)
    .map((position) => wrapped.map((byte, index) => (index === position ? byte ^ (1 << (position % 8)) : byte)));
  const short = [0, 1, 12, 16, 28, length - 1].filter((cut) => cut < length).map((cut) => wrapped.slice(0, cut));
  const long = Uint8Array.from([...wrapped, 0]);
  const foreign = [length, 200].map((size) => Uint8Array.from([...wrapped.slice(0, unread), ...randomBytes(size)]));
  // To RSA it is a number, which is the same without a zero at its front.
  const later = wrapped[0] === 0 ? [] : [wrapped.slice(1)];
  return [...flipped, ...short, ...later, long, ...foreign];
}

/** Neither the plaintext in any spelling nor a secret of the harness, at any depth of what an error shows. */
function assertNoSecrets(error: OcicryptError, secrets: readonly string[], plaintext?: Uint8Array): void {
  const bytes = Buffer.from(plaintext ?? []);
  const spellings =
    bytes.length < 16 ? [] : (['hex', 'base64', 'base64url', 'latin1'] as const).map((name) => bytes.toString(name));
  const shown = [error.message, error.hint ?? '', inspect(error, { depth: 12, showHidden: true })].join('\n');
  for (const secret of [...spellings, ...secrets]) {
    assert.ok(!shown.includes(secret), 'an error holds a secret');
  }
}

function includes(bytes: Uint8Array, part: Uint8Array): boolean {
  return Buffer.from(bytes).includes(Buffer.from(part));
}
