// Reads what `--listen` and `--grpcport` mean.

import { isIP } from 'node:net';
import { dirname, isAbsolute, join } from 'node:path';
import { OcicryptError } from '../base/errors.ts';
import { showPath, showValue } from '../base/shown.ts';

/** Where to listen. `tcp` is without TLS. */
export type ListenAddress = { readonly kind: 'unix'; readonly path: string } | NetworkAddress;
export type NetworkAddress = { readonly kind: 'tls' | 'tcp'; readonly host: string; readonly port: number };

/** A path longer than this does not fit in `sockaddr_un` beside its terminating zero. */
const MAXIMUM_PATH = 107;
/** The name of a socket until it is finished, in a directory beside its place. */
const UNFINISHED = '.XXXXXX/s';

/**
 * Reads `unix:///PATH`, `tls://HOST:PORT` or `tcp://HOST:PORT`.
 *
 * @throws OcicryptError `configuration`
 */
export function parseListenAddress(text: string): ListenAddress {
  const unix = /^unix:(?:\/\/)?(.*)$/.exec(text);
  if (unix !== null) return { kind: 'unix', path: checkPath(unix[1] ?? '') };
  const network = /^(tls|tcp):\/\/(.+)$/.exec(text);
  const place = network === null ? undefined : parsePlace(network[2] ?? '');
  if (network === null || place === undefined) {
    throw new OcicryptError('configuration', `not an address to listen on: ${showValue(text)}`, {
      hint: 'addresses look like unix:///run/ocicrypt-kms/ocicrypt-kms.sock, tls://0.0.0.0:50051 or tcp://127.0.0.1:50051',
    });
  }
  return { kind: network[1] === 'tls' ? 'tls' : 'tcp', ...place };
}

/**
 * Reads the reference server's `--grpcport`: `:50051`, which there means every interface and here the loopback only.
 *
 * @throws OcicryptError `configuration`
 */
export function parseGrpcPort(text: string): ListenAddress {
  const place = parsePlace(/^:?\d+$/.test(text) ? `127.0.0.1:${text.replace(':', '')}` : text);
  if (place !== undefined) return { kind: 'tcp', ...place };
  throw new OcicryptError('configuration', `not a port: ${showValue(text)}`, {
    hint: 'it looks like :50051; use --listen for all else',
  });
}

/** The address as {@link parseListenAddress} reads it, which clients take for `unix` and `tls` too. */
export function formatListenAddress(address: ListenAddress): string {
  if (address.kind === 'unix') return `unix://${address.path}`;
  const host = isIP(address.host) === 6 ? `[${address.host}]` : address.host;
  return `${address.kind}://${host}:${address.port}`;
}

/** Whether only this machine can reach `host`. */
export function isLoopbackHost(host: string): boolean {
  return host === 'localhost' || host === '::1' || (isIP(host) === 4 && host.startsWith('127.'));
}

function parsePlace(text: string): { readonly host: string; readonly port: number } | undefined {
  const match = /^(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9.-]+)):(\d{1,5})$/.exec(text);
  const host = match?.[1] ?? match?.[2];
  const port = Number(match?.[3]);
  if (host === undefined || port > 65_535 || (match?.[1] !== undefined && isIP(host) !== 6)) return undefined;
  return { host, port };
}

function checkPath(path: string): string {
  if (path.startsWith('@') || path.includes('\0')) {
    throw new OcicryptError('configuration', 'abstract sockets are not protected by file modes', {
      hint: 'name a path, as in unix:///run/ocicrypt-kms/ocicrypt-kms.sock',
    });
  }
  if (!isAbsolute(path)) {
    throw new OcicryptError('configuration', `the socket path ${showValue(path)} is not absolute`, {
      hint: 'it begins with a slash, as in unix:///run/ocicrypt-kms/ocicrypt-kms.sock',
    });
  }
  const [length = 0, unfinished = 0] = [path, join(dirname(path), UNFINISHED)].map((one) => Buffer.byteLength(one));
  if (Math.max(length, unfinished) > MAXIMUM_PATH) {
    throw new OcicryptError('configuration', `the socket path has ${length} bytes`, {
      hint: `at most ${MAXIMUM_PATH} are possible, and ${MAXIMUM_PATH - UNFINISHED.length} before its name: ${showPath(path)}`,
    });
  }
  return path;
}
