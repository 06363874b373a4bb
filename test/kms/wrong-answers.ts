/**
 * What a key service that speaks HTTP never says, and what every backend makes of it alike: never a wrong key, the same
 * code and the same word about a retry, and the next call works. A backend adds the answers that only its service has.
 */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { describe, test } from 'node:test';
import type { ErrorCode } from '../../src/base/errors.ts';
import type { Kek } from '../../src/kms/kek.ts';
import type { Fault, WireServer } from '../fakes/wire.ts';
import { code, soon } from './expect.ts';

type Method = 'unwrap' | 'wrap';
export type WrongAnswer = readonly [what: string, method: Method, code: ErrorCode, retryable: boolean, fault: Fault];

const json = (body: string): Fault => ({ kind: 'answer', status: 200, body });
const status = (number: number, body = 'no'): Fault => ({ kind: 'answer', status: number, body });

const OF_ALL: readonly (readonly [what: string, code: ErrorCode, retryable: boolean, fault: Fault])[] = [
  ['an empty answer', 'integrity', true, json('')],
  ['an empty object', 'integrity', true, json('{}')],
  ['an array', 'integrity', true, json('[]')],
  ['a page', 'unavailable', false, json('<html>login</html>')],
  ['a page with a byte order mark', 'unavailable', false, json('\ufeff\n<!DOCTYPE html>')],
  ['a deep answer', 'integrity', true, json('['.repeat(20_000))],
  ['a long answer', 'unavailable', false, json('"'.padEnd(300_000, 'x'))],
  ['a truncated body', 'unavailable', true, { kind: 'truncated' }],
  ['a length too long', 'unavailable', true, { kind: 'length-too-long' }],
  ['a reset before the head', 'unavailable', true, { kind: 'reset-before-headers' }],
  ['a reset after the head', 'unavailable', true, { kind: 'reset-after-headers' }],
  ['another protocol', 'unavailable', true, { kind: 'not-http' }],
  ['a redirect', 'unavailable', false, { kind: 'answer', status: 307, headers: { Location: '/' }, body: '' }],
  ...[408, 500, 502, 503, 504].map((n) => [`status ${n}`, 'unavailable', true, status(n)] as const),
  ['status 429', 'throttled', true, status(429)],
  ...[400, 401, 403, 404, 405, 409, 412, 418].map(
    (n) => [`a page with status ${n}`, 'unavailable', false, status(n, '<html>blocked</html>')] as const,
  ),
];

/** Runs the suite. @param start gives a key and its service, anew for each test */
export function describeWrongAnswers(
  start: () => { readonly kek: Kek; readonly server: WireServer },
  own: readonly WrongAnswer[],
  /** Wrapping asks with GET, which a runtime may make again by itself after a reset. */
  { wrapsByGet = false }: { readonly wrapsByGet?: boolean } = {},
): void {
  const shared = (['wrap', 'unwrap'] as const).flatMap((method) =>
    OF_ALL.filter(([what]) => !(wrapsByGet && method === 'wrap' && what === 'a reset before the head')).map(
      ([what, ...rest]): WrongAnswer => [what, method, ...rest],
    ),
  );
  describe('refuses every wrong answer, and never returns a wrong key', () => {
    for (const [what, method, expected, retryable, fault] of [...own, ...shared]) {
      test(`${method}: ${what}`, async () => {
        const { kek, server } = start();
        const plaintext = randomBytes(32);
        const context = { purpose: 'test' };
        const wrapped = await kek.wrap(plaintext, context, soon());
        // A token that is not taken is replaced once.
        if (what.endsWith('401')) server.setFault(() => fault);
        else server.faults.push(fault);
        const call = method === 'wrap' ? kek.wrap(plaintext, context, soon()) : kek.unwrap(wrapped, context, soon());
        const error = await code(call, expected).finally(() => server.setFault(undefined));
        assert.equal(error.retryable, retryable, error.message);
        assert.ok(!error.message.includes('\n'));
        assert.deepEqual(Buffer.from(await kek.unwrap(wrapped, context, soon())), plaintext);
      });
    }

    test('but takes a late one', async () => {
      const { kek, server } = start();
      server.faults.push({ kind: 'latency', milliseconds: 40 });
      const plaintext = randomBytes(32);
      const wrapped = await kek.wrap(plaintext, {}, soon());
      server.faults.push({ kind: 'latency', milliseconds: 40 });
      assert.deepEqual(Buffer.from(await kek.unwrap(wrapped, {}, soon())), plaintext);
    });

    test('silence, before and after the head', async () => {
      const { kek, server } = start();
      await kek.wrap(randomBytes(32), {}, soon());
      for (const kind of ['silent', 'silent-after-headers'] as const) {
        // The time is over once the request is there, however busy the machine: it must not meet the next test.
        const time = new AbortController();
        server.setFault(() => {
          setTimeout(() => time.abort(), 20);
          return { kind };
        });
        await code(kek.wrap(randomBytes(32), {}, time.signal), 'deadline-exceeded').finally(() => {
          server.setFault(undefined);
        });
      }
    });
  });
}

/** Changes the members of the answer's JSON object. */
export function edit(change: (answer: Record<string, unknown>) => unknown): Fault {
  return { kind: 'body', change: (body) => JSON.stringify(change({ ...JSON.parse(body) })) };
}

export function without(member: string): Fault {
  return edit((answer) => Object.fromEntries(Object.entries(answer).filter(([name]) => name !== member)));
}

export function set(member: string, value: unknown): Fault {
  return edit((answer) => ({ ...answer, [member]: value }));
}
