// The two ways in which clients reach a key provider: a command that is started for each request, and a gRPC server.

import { spawn } from 'node:child_process';
import { connect, type IncomingHttpHeaders } from 'node:http2';
import { connect as connectSocket } from 'node:net';
import {
  CONTENT_TYPE,
  decodeBytesField,
  decodeStatusMessage,
  encodeBytesField,
  encodeFrame,
  FRAME_HEADER,
} from '../../src/base/grpc.ts';

/** What came of one request. `broken` is neither a reply nor a failure that a client could show. */
export type Outcome =
  | { readonly kind: 'reply'; readonly reply: Buffer }
  | { readonly kind: 'failure'; readonly status: number; readonly text: string }
  | { readonly kind: 'broken'; readonly why: string };

export type Operation = 'wrap' | 'unwrap';

/** Words are added to a command's own, `reference` chooses its other name; a server has neither. */
export type CallOptions = { readonly words?: readonly string[]; readonly reference?: boolean };

export interface Door {
  readonly kind: 'cmd' | 'grpc';
  call(request: Uint8Array, operation: Operation, options?: CallOptions): Promise<Outcome>;
}

/**
 * A command as ocicrypt runs it: the request on standard input, which is closed, and the reply on standard output.
 *
 * @param command a POSIX shell's text: the program and its fixed arguments
 * @param referenceCommand the same under the reference provider's name, where there is one
 * @param patience milliseconds until the command counts as hanging, and is killed with all it has started
 */
export function commandDoor(command: string, referenceCommand: string | undefined, patience: number): Door {
  return {
    kind: 'cmd',
    call: (request, _operation, { words = [], reference = false } = {}) =>
      runCommand((reference ? referenceCommand : undefined) ?? command, words, request, patience),
  };
}

/** What another program says, as a terminal may show it. */
export function firstLine(text: string): string {
  return (text.split('\n')[0] ?? '').replace(/[\p{Cc}\p{Cf}]+/gu, ' ').slice(0, 200);
}

/** Traces of Go, Node, Python and Rust: the program fell over, whatever its exit status. */
const TRACE = /^panic: |^goroutine \d+ |^\s+at .+:\d+:\d+\)?$|^Traceback \(most recent|^thread '.*' .*panicked/m;

function runCommand(
  command: string,
  words: readonly string[],
  request: Uint8Array,
  patience: number,
): Promise<Outcome> {
  // A group of its own, so that what a wrapper has started is ended with it.
  const child = spawn('/bin/sh', ['-c', `exec ${command} "$@"`, 'sh', ...words], { detached: true });
  const { promise, resolve } = Promise.withResolvers<Outcome>();
  const stdout: Buffer[] = [];
  const stderr: Buffer[] = [];
  const timer = setTimeout(() => {
    resolve({ kind: 'broken', why: `no end within ${patience / 1000} s` });
    if (child.pid !== undefined) process.kill(-child.pid, 'SIGKILL');
  }, patience);
  child.stdout.on('data', (chunk: Buffer) => stdout.push(chunk));
  child.stderr.on('data', (chunk: Buffer) => stderr.push(chunk));
  // Not reading a request to its end is the command's right.
  child.stdin.on('error', () => undefined);
  child.stdin.end(Buffer.from(request));
  child.once('error', (error) => resolve({ kind: 'broken', why: error.message }));
  child.once('close', (status, signal) => {
    const [output, text] = [Buffer.concat(stdout), Buffer.concat(stderr).toString().trimEnd()];
    if (status === 0) resolve({ kind: 'reply', reply: output });
    else if (status === null) resolve({ kind: 'broken', why: `ended by ${signal}` });
    else if (output.length > 0)
      resolve({ kind: 'broken', why: `exit ${status} after ${output.length} bytes of output` });
    else if (text === '') resolve({ kind: 'broken', why: `exit ${status} without a word on standard error` });
    else if (TRACE.test(text)) resolve({ kind: 'broken', why: `fell over: ${firstLine(text)}` });
    else resolve({ kind: 'failure', status, text });
  });
  return promise.finally(() => clearTimeout(timer));
}

/**
 * A server as ocicrypt calls it: a connection for each call, and no deadline.
 *
 * @param target `unix:///PATH`, `unix:/PATH`, `HOST:PORT` or `dns:///HOST:PORT`, without TLS
 * @param patience milliseconds until a call counts as hanging
 */
export function grpcDoor(target: string, patience: number): Door {
  const [, path] = /^unix:(?:\/\/)?(\/.*)$/.exec(target) ?? [];
  const address = target.replace(/^dns:\/\/\//, '');
  return {
    kind: 'grpc',
    call(request, operation) {
      const { promise, resolve } = Promise.withResolvers<Outcome>();
      const session =
        path === undefined
          ? connect(`http://${address}`)
          : connect('http://localhost', { createConnection: () => connectSocket(path) });
      const lost = (error: Error) => resolve({ kind: 'broken', why: `no answer: ${error.message}` });
      session.once('error', lost);
      const timer = setTimeout(() => lost(new Error(`none within ${patience / 1000} s`)), patience);
      const stream = session.request({
        ':method': 'POST',
        ':path': `/keyprovider.KeyProviderService/${operation === 'wrap' ? 'WrapKey' : 'UnWrapKey'}`,
        'content-type': CONTENT_TYPE,
        te: 'trailers',
        'user-agent': 'grpc-go/1.72.0',
      });
      const chunks: Buffer[] = [];
      let headers: IncomingHttpHeaders = {};
      stream.on('error', lost);
      stream.on('response', (received) => {
        headers = received;
      });
      stream.on('trailers', (received) => {
        headers = { ...headers, ...received };
      });
      stream.on('data', (chunk: Buffer) => chunks.push(chunk));
      stream.once('close', () => resolve(readAnswer(headers, Buffer.concat(chunks))));
      stream.end(encodeFrame(encodeBytesField(request)));
      return promise.finally(() => {
        clearTimeout(timer);
        session.destroy();
      });
    },
  };
}

function readAnswer(headers: IncomingHttpHeaders, data: Buffer): Outcome {
  const { 'grpc-status': status, 'grpc-message': text } = headers;
  if (typeof status !== 'string') return { kind: 'broken', why: 'the call ended without a status' };
  if (status === '0') {
    if (data.length < FRAME_HEADER || data.readUInt32BE(1) !== data.length - FRAME_HEADER) {
      return { kind: 'broken', why: 'the reply is not one message' };
    }
    return { kind: 'reply', reply: Buffer.from(decodeBytesField(data.subarray(FRAME_HEADER))) };
  }
  if (data.length > 0) return { kind: 'broken', why: `status ${status} after ${data.length} bytes of a reply` };
  return { kind: 'failure', status: Number(status), text: decodeStatusMessage(typeof text === 'string' ? text : '') };
}
