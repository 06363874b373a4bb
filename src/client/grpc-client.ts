// Calls gRPC servers: one unary call, over a connection of its own: a unix socket, TLS, or the loopback in clear.

import { type ClientHttp2Session, connect, constants, type IncomingHttpHeaders } from 'node:http2';
import { connect as connectSocket } from 'node:net';
import { createSecureContext, type SecureContext } from 'node:tls';
import type { Address } from '../base/address.ts';
import { concatBytes, wipe } from '../base/bytes.ts';
import { waitFor } from '../base/deadline.ts';
import { checkedEnvironment } from '../base/environment.ts';
import {
  ERROR_STATUS,
  type ErrorCode,
  isErrorCode,
  OcicryptError,
  showSystemCode,
  systemCode,
} from '../base/errors.ts';
import { CONTENT_TYPE, decodeStatusMessage, encodeFrame, FRAME_HEADER, formatTimeout } from '../base/grpc.ts';
import { readCertificateFile } from '../base/http/certificates.ts';
import { prospectsOf } from '../base/http/errors.ts';
import { readRoots } from '../base/http/roots.ts';
import { identityCheck } from '../base/http/server-identity.ts';
import { readSecretFile } from '../base/secret-file.ts';
import { setting } from '../base/setting.ts';
import { showPath } from '../base/shown.ts';
import { socketWeakness } from './socket-trust.ts';

/** PEM files, and whom to expect. */
export type GrpcTls = {
  /** Authorities of the server's certificate; the system's if it is left out. */
  readonly authority?: string | undefined;
  /** The name that the server's certificate must carry, if it is not the address's. */
  readonly serverName?: string | undefined;
  /** Our own certificate and its key, if the server wants one. */
  readonly certificate?: string;
  readonly privateKey?: string;
};

export type GrpcCall = {
  /** `/package.Service/Method` */
  readonly method: string;
  /** A protobuf message. */
  readonly message: Uint8Array;
  /** Milliseconds that the server is told; `signal` is what ends the call here. */
  readonly timeout: number;
  /** Bytes of the reply. */
  readonly maximumReply: number;
  readonly signal: AbortSignal;
};

/**
 * Dials, calls once and hangs up.
 *
 * @returns the reply's protobuf message
 * @throws OcicryptError with the code that the server named, or the first that has the server's status;
 * `unavailable` if there is no server, `configuration` for files that cannot be used
 */
export async function callOnce(target: Address, tls: GrpcTls | undefined, call: GrpcCall): Promise<Uint8Array> {
  const session = dial(target, tls);
  try {
    const wait = {
      name: describeTarget(target),
      hint: `it is slow or does not answer: see its log, or allow more time with ${setting('limits.total')}`,
    };
    return await waitFor(call.signal, wait, 'on', () => request(session, call, target));
  } finally {
    session.destroy();
  }
}

function dial(target: Address, tls: GrpcTls | undefined): ClientHttp2Session {
  // One call is made, and its reply is small: nothing of HTTP/2 has to be tuned.
  const settings = { enablePush: false };
  if (target.kind === 'unix') {
    checkSocket(target.path);
    return connect('http://localhost', { settings, createConnection: () => connectSocket(target.path) });
  }
  const authority = `${target.host.includes(':') ? `[${target.host}]` : target.host}:${target.port}`;
  if (target.kind === 'tcp') return connect(`http://${authority}`, { settings });
  const { serverName } = tls ?? {};
  return connect(`https://${authority}`, {
    settings,
    rejectUnauthorized: true,
    checkServerIdentity: identityCheck(serverName),
    secureContext: createContext(tls),
    servername: serverName,
  });
}

/** The process that answers on a socket is handed layer keys. @throws OcicryptError `configuration` */
function checkSocket(path: string): void {
  const weakness = socketWeakness(path);
  if (weakness === undefined) return;
  const shown = describeTarget({ kind: 'unix', path });
  throw new OcicryptError('configuration', `${shown} is not trusted: ${weakness.problem}`, { hint: weakness.hint });
}

function createContext(tls: GrpcTls | undefined): SecureContext {
  if (tls === undefined) {
    throw new OcicryptError('configuration', 'calling a server over TLS needs its authorities', {
      hint: `give ${setting('tls.authority')}=FILE`,
    });
  }
  const { authority, certificate, privateKey } = tls;
  try {
    return createSecureContext({
      ca:
        authority === undefined
          ? readRoots({}, checkedEnvironment(process.env))
          : readCertificateFile(authority, 'the authorities'),
      minVersion: 'TLSv1.3',
      cert: certificate === undefined ? undefined : readCertificateFile(certificate, 'the certificate'),
      key:
        privateKey === undefined
          ? undefined
          : Buffer.from(readSecretFile(privateKey, 'the private key', MAXIMUM_PEM_BYTES)),
    });
  } catch (cause) {
    if (cause instanceof OcicryptError) throw cause;
    throw new OcicryptError(
      'configuration',
      `cannot use the certificates ${[authority, certificate].flatMap((file) => (file === undefined ? [] : [showPath(file)])).join(' ')}`,
      {
        cause,
        hint: `they must be readable PEM files, and ${setting('tls.privateKey')} the key of ${setting('tls.certificate')}`,
      },
    );
  }
}

const MAXIMUM_PEM_BYTES = 256 * 1024;

function request(session: ClientHttp2Session, call: GrpcCall, target: Address): Promise<Uint8Array> {
  const shown = describeTarget(target);
  const { promise, resolve, reject } = Promise.withResolvers<Uint8Array>();
  const lost = (cause: unknown) =>
    reject(
      new OcicryptError('unavailable', `no answer from ${shown}${showSystemCode(cause)}`, {
        cause,
        ...prospectsOf(systemCode(cause) ?? ''),
        hint:
          target.kind === 'unix'
            ? 'start the server: systemctl start ocicrypt-kms.socket, or ocicrypt-kms serve'
            : 'is the server running, and are the certificates the right ones?',
      }),
    );
  if (call.signal.aborted) {
    reject(call.signal.reason);
    return promise;
  }
  const stop = () => {
    reject(call.signal.reason);
    session.destroy();
  };
  call.signal.addEventListener('abort', stop, { once: true });
  session.once('error', lost);
  const stream = session.request({
    ':method': 'POST',
    ':path': call.method,
    'content-type': CONTENT_TYPE,
    te: 'trailers',
    'grpc-timeout': formatTimeout(call.timeout),
    'user-agent': 'ocicrypt-kms',
  });
  const chunks: Uint8Array[] = [];
  let length = 0;
  let status: IncomingHttpHeaders = {};
  stream.on('error', lost);
  stream.on('response', (headers) => {
    status = headers;
  });
  stream.on('trailers', (headers) => {
    status = { ...status, ...headers };
  });
  stream.on('data', (chunk: Uint8Array) => {
    length += chunk.length;
    chunks.push(chunk);
    if (length > FRAME_HEADER + call.maximumReply) stream.close(constants.NGHTTP2_CANCEL);
  });
  stream.once('close', () => {
    try {
      resolve(readReply(status, chunks, shown));
    } catch (error) {
      reject(error);
    } finally {
      wipe(...chunks);
    }
  });
  stream.end(encodeFrame(call.message));
  return promise.finally(() => call.signal.removeEventListener('abort', stop));
}

/** Status first: a reply without one is no reply, whatever it holds. */
function readReply(headers: IncomingHttpHeaders, chunks: readonly Uint8Array[], shown: string): Uint8Array {
  const status = headers['grpc-status'];
  if (typeof status !== 'string') {
    throw new OcicryptError('unavailable', `no gRPC answer from ${shown}`, {
      hint: 'is it a gRPC server?',
      retryable: true,
    });
  }
  const text = headers['grpc-message'];
  if (status !== '0') throw errorOf(Number(status), decodeStatusMessage(typeof text === 'string' ? text : ''), shown);
  const frame = concatBytes(...chunks);
  const message = frame.subarray(FRAME_HEADER);
  if (frame.length < FRAME_HEADER || frame[0] !== 0 || new DataView(frame.buffer).getUint32(1) !== message.length) {
    throw new OcicryptError('unavailable', `the answer of ${shown} is not one message`);
  }
  return message;
}

/** Our own servers begin the text with the code; others are understood by their status. */
function errorOf(status: number, text: string, shown: string): OcicryptError {
  const [, name = '', rest = ''] = /^([a-z-]{1,24}): (.*)$/s.exec(text) ?? [];
  const named = isErrorCode(name) && ERROR_STATUS[name].grpc === status ? name : undefined;
  const code = named ?? CODE_OF_STATUS.get(status) ?? 'unavailable';
  const message = (named === undefined ? text : rest).slice(0, 1000);
  return new OcicryptError(code, message === '' ? `${shown} answered with status ${status}` : message, {
    retryable: code === 'unavailable' || code === 'throttled',
  });
}

/** For servers that are not ours. */
const CODE_OF_STATUS: ReadonlyMap<number, ErrorCode> = new Map([
  [3, 'bad-input'],
  [4, 'deadline-exceeded'],
  [5, 'not-found'],
  [7, 'refused'],
  [8, 'throttled'],
  [9, 'key-disabled'],
  [12, 'configuration'],
  [13, 'internal'],
  [14, 'unavailable'],
  [15, 'integrity'],
  [16, 'unauthenticated'],
]);

/** The target as people write it. */
export function describeTarget(target: Address): string {
  if (target.kind !== 'unix') return `${target.kind}://${target.host}:${target.port}`;
  return target.path.startsWith('\0') ? `unix-abstract:${target.path.slice(1)}` : `unix:${target.path}`;
}
