// Reads what `--listen` and `--grpcport` mean.

import { dirname, isAbsolute, join } from 'node:path';
import { type Address, parseHostPort, parseUnix } from '../base/address.ts';
import { OcicryptError } from '../base/errors.ts';
import { setting } from '../base/setting.ts';
import { showPath, showValue } from '../base/shown.ts';

/** A path longer than this does not fit in `sockaddr_un` beside its terminating zero. */
const MAXIMUM_PATH_BYTES = 107;
/** The name of a socket until it is finished, in a directory beside its place. */
const UNFINISHED = '.XXXXXX/s';

/**
 * Reads `unix:///PATH`, `tls://HOST:PORT` or `tcp://HOST:PORT`.
 *
 * @throws OcicryptError `configuration`
 */
export function parseListenAddress(text: string): Address {
  const path = parseUnix(text);
  if (path !== undefined) return { kind: 'unix', path: checkPath(path) };
  const network = /^(tls|tcp):\/\/(.+)$/.exec(text);
  const place = network === null ? undefined : parseHostPort(network[2] ?? '');
  if (network === null || place === undefined) {
    throw new OcicryptError('configuration', `not an address to listen on: ${showValue(text)}`, {
      hint: 'addresses look like unix:///run/ocicrypt-kms/ocicrypt-kms.sock, tls://0.0.0.0:50051 or tcp://127.0.0.1:50051',
    });
  }
  return { kind: network[1] === 'tls' ? 'tls' : 'tcp', ...place };
}

/**
 * Reads what `--listen` says: an address, or `ttrpc:///PATH`.
 *
 * @throws OcicryptError `configuration`
 */
export function parseListenTarget(text: string): Address | { readonly kind: 'ttrpc'; readonly path: string } {
  const [, path] = /^ttrpc:\/\/(.*)$/.exec(text) ?? [];
  return path === undefined ? parseListenAddress(text) : { kind: 'ttrpc', path: checkPath(path) };
}

/**
 * Reads the reference server's `--grpcport`: `:50051`, which there means every interface and here the loopback only.
 *
 * @throws OcicryptError `configuration`
 */
export function parseGrpcPort(text: string): Address {
  const place = parseHostPort(/^:?\d+$/.test(text) ? `127.0.0.1:${text.replace(':', '')}` : text);
  if (place !== undefined) return { kind: 'tcp', ...place };
  throw new OcicryptError('configuration', `not a port: ${showValue(text)}`, {
    hint: `it looks like :50051; use ${setting('listen')} for all else`,
  });
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
  if (Math.max(length, unfinished) > MAXIMUM_PATH_BYTES) {
    throw new OcicryptError('configuration', `the socket path has ${length} bytes`, {
      hint: `at most ${MAXIMUM_PATH_BYTES} are possible, and ${MAXIMUM_PATH_BYTES - UNFINISHED.length} before its name: ${showPath(path)}`,
    });
  }
  return path;
}
