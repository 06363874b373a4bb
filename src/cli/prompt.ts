// The only code that asks a person: a question on the controlling terminal, an answer that is not shown.

import { closeSync, openSync, writeSync } from 'node:fs';
import { ReadStream } from 'node:tty';
import { wipe } from '../base/bytes.ts';
import { OcicryptError } from '../base/errors.ts';

const INTERRUPT = 3;
const END_OF_TRANSMISSION = 4;
const BACKSPACE = new Set([8, 127]);
const LINE_END = new Set([10, 13]);
const MAXIMUM_ANSWER_BYTES = 4096;

/** A person who has given up is asked nothing else by this process, however many keys it has. */
let refusal: OcicryptError | undefined;

/**
 * Asks on /dev/tty, because standard input belongs to the protocol. Undefined if there is no terminal.
 *
 * @returns the bytes that were typed before the line's end; the caller wipes them
 * @throws OcicryptError `usage` if the person gave up
 */
export async function promptSecret(question: string): Promise<Uint8Array | undefined> {
  if (refusal !== undefined) throw refusal;
  let output: number;
  let input: ReadStream;
  try {
    output = openSync('/dev/tty', 'w');
    input = new ReadStream(openSync('/dev/tty', 'r'));
  } catch {
    return undefined;
  }
  const answer = new Uint8Array(MAXIMUM_ANSWER_BYTES);
  try {
    input.setRawMode(true);
    writeSync(output, question);
    const length = await readLine(input, answer);
    return answer.slice(0, length);
  } finally {
    input.setRawMode(false);
    input.destroy();
    writeSync(output, '\n');
    closeSync(output);
    wipe(answer);
  }
}

/** Raw mode leaves the editing of the line to us. */
function readLine(input: ReadStream, answer: Uint8Array): Promise<number> {
  const { promise, resolve, reject } = Promise.withResolvers<number>();
  const giveUp = () => {
    refusal = new OcicryptError('usage', 'nothing was typed');
    reject(refusal);
  };
  let length = 0;
  const take = (byte: number) => {
    if (byte === INTERRUPT || (byte === END_OF_TRANSMISSION && length === 0)) giveUp();
    else if (LINE_END.has(byte)) resolve(length);
    else if (BACKSPACE.has(byte)) length = Math.max(0, length - 1);
    else if (length < answer.length) answer[length++] = byte;
  };
  input.on('data', (chunk: Buffer) => {
    for (const byte of chunk) take(byte);
    wipe(chunk);
  });
  input.on('end', giveUp);
  input.on('error', giveUp);
  return promise;
}
