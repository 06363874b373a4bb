// P5 P6: connections that only do harm are closed, memory stays bounded, and good callers are served meanwhile.
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { asOcicryptError } from '../../../src/base/errors.ts';
import { proving } from '../../fixtures/seed.ts';
import { callKeyProvider, wrapRequest } from '../../server/running.ts';
import { FLOODS, LARGE, startAttack } from './floods.ts';
import { PROGRAMS, pause, peakMemoryMiB, startSubject } from './served.ts';

/** The time to the first request is 2 s and the clock is looked at four times a second; the rest is for a busy machine. */
const CLOSED_WITHIN = 6000;
/** What leaves most behind. */
const HEAVY = [
  ...['rapid reset', 'CONTINUATION frames', 'a little of many messages'],
  ...(proving ? ['half of many messages', ...LARGE] : LARGE.slice(-1)),
];
/** Where promises are proved, attackers that come again as soon as they are closed, too. */
const CASES = HEAVY.flatMap((flood) => (proving ? [false, true] : [false]).map((again) => [flood, again] as const));
const SECONDS = proving ? 10 : 2;

for (const { name, program, memoryMiB } of PROGRAMS) {
  describe(`P6 a connection that only does harm is closed, and the others go on (${name})`, { concurrency: 4 }, () => {
    for (const flood of Object.keys(FLOODS)) {
      test(flood, async (t) => {
        const { path, target, sample } = await startSubject(t, program);
        const attack = startAttack({ path, flood, connections: 1, again: false });
        t.after(attack.stop);
        for (let calls = 0; calls < 3; calls++) await callKeyProvider(target, wrapRequest());
        const closedAfter = await attack.closed;
        assert.ok(closedAfter < CLOSED_WITHIN, `${closedAfter} ms`);
        await callKeyProvider(target, wrapRequest());
        const streams = await sample('ocicrypt_kms_calls_total');
        assert.ok(streams < 2500, `${streams} streams were looked at`);
      });
    }
  });

  describe(`P5 memory stays bounded with 300 hostile connections (${name})`, () => {
    for (const [flood, again] of CASES) {
      test(again ? `${flood}, again and again` : flood, async (t) => {
        const { path, target, child } = await startSubject(t, program);
        const attack = startAttack({ path, flood, connections: 300, again });
        t.after(attack.stop);
        const times: number[] = [];
        let turnedAway = 0;
        for (const until = performance.now() + SECONDS * 1000; performance.now() < until; await pause(10)) {
          const started = performance.now();
          await callKeyProvider(target, wrapRequest()).catch((error) => {
            // Hundreds of newer connections may displace one before its request is read: it may try again.
            if (!again && asOcicryptError(error).code !== 'unavailable') throw error;
            turnedAway++;
          });
          times.push(performance.now() - started);
        }
        const peak = Math.ceil(peakMemoryMiB(child.pid));
        const p99 = Math.ceil(times.sort((a, b) => a - b)[Math.floor(times.length * 0.99)] ?? 0);
        const shown = `${name}, ${flood}${again ? ', again and again' : ''}`;
        t.diagnostic(
          `figures: ${shown}: ${peak} MiB at the most, good callers' p99 ${p99} ms, ${turnedAway} of ${times.length} turned away`,
        );
        assert.ok(!(peak > memoryMiB[again ? 'again' : 'once']), `${peak} MiB`);
        assert.ok(turnedAway < times.length / (again ? 1 : 10), `${turnedAway} of ${times.length}`);
        // On a machine that has other things to do everybody waits.
        if (proving && !again) assert.ok(p99 < 1000, `${p99} ms`);
      });
    }
  });
}
