// A server that did not get to run for a while, because its processor was taken: its callers are not to blame.
import assert from 'node:assert/strict';
import { stat } from 'node:fs';
import { test } from 'node:test';
import { encodeBytesField, encodeFrame } from '../../src/base/grpc.ts';
import { CALL_HEADERS, END_HEADERS, END_STREAM, FRAME, frame, headerBlock, openRaw } from './raw-http2.ts';
import { startRunning, wrapRequest } from './running.ts';

/** Milliseconds that callers have, and that the server does not run. */
const LIMIT = 100;
const DELAY = 700;

const HEADERS = frame(FRAME.headers, END_HEADERS, 1, headerBlock(CALL_HEADERS));
const BODY = frame(FRAME.data, END_STREAM, 1, encodeFrame(encodeBytesField(wrapRequest())));

const stopRunning = () => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, DELAY);
const pause = (milliseconds: number) => new Promise<void>((resolve) => setTimeout(resolve, milliseconds));

for (const [what, before, meanwhile] of [
  ['a connection whose first request comes meanwhile', [], [HEADERS, BODY]],
  ['a call whose message comes meanwhile', [HEADERS], [BODY]],
] as const) {
  test(`P11 ${what} is answered`, async (t) => {
    const { target } = await startRunning(t, { limits: { firstRequest: LIMIT, request: LIMIT } });
    assert.ok(target.kind === 'unix');
    const connection = openRaw(target.path);
    t.after(() => connection.socket.destroy());
    connection.send(...before);
    while (connection.received.length === 0) await pause(5);
    await new Promise<void>((resolve) =>
      // Between what the system has told of already and the clocks: what is sent here is read after them.
      stat('/', () => {
        connection.send(...meanwhile);
        stopRunning();
        resolve();
      }),
    );
    const isAnswered = () => connection.received.some(({ type }) => type === FRAME.data);
    while (!isAnswered() && !connection.socket.destroyed) await pause(10);
    assert.ok(isAnswered(), 'the server ended the connection');
  });
}
