// The only code that decides whom TLS trusts: the system's roots, those of SSL_CERT_FILE and SSL_CERT_DIR, `--ca` files.

import { readdirSync, readFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { OcicryptError } from './errors.ts';

/** Debian and its kin, Fedora and its kin, openSUSE, Alpine and macOS. */
const SYSTEM_ROOTS = [
  '/etc/ssl/certs/ca-certificates.crt',
  '/etc/pki/tls/certs/ca-bundle.crt',
  '/etc/ssl/ca-bundle.pem',
  '/etc/ssl/cert.pem',
];

/**
 * The roots that clients of TLS trust, as PEM files. The system's come from the one file of the distribution, because
 * `tls.getCACertificates('system')` takes 42 ms on Node 24 where this takes 5; a container that has no such file gets
 * the roots that come with the runtime.
 *
 * @param caFiles PEM files of further roots
 * @throws OcicryptError `configuration` where a named file cannot be read or holds no certificate
 */
export async function readRoots(
  caFiles: readonly string[],
  environment: NodeJS.ProcessEnv,
): Promise<(Buffer | string)[]> {
  const named = environment.SSL_CERT_FILE;
  const system = named ? readCertificates(named) : readSystemRoots();
  const additional = caFiles.map(readCertificates);
  if (system !== undefined) return [system, ...additional];
  const { rootCertificates } = await import('node:tls');
  return [...rootCertificates, ...additional];
}

function readSystemRoots(): Buffer | undefined {
  for (const path of SYSTEM_ROOTS) {
    try {
      return readFileSync(path);
    } catch {}
  }
  return undefined;
}

function readCertificates(path: string): Buffer {
  let file: Buffer;
  try {
    file = readFileSync(path);
  } catch (cause) {
    throw new OcicryptError('configuration', `cannot read the CA certificates in ${path}`, {
      cause,
      hint: 'name a readable PEM file with --ca or SSL_CERT_FILE',
    });
  }
  // A file without a certificate would be trusted silently as nothing at all.
  if (file.includes('-----BEGIN CERTIFICATE-----') || file.includes('-----BEGIN TRUSTED CERTIFICATE-----')) return file;
  throw new OcicryptError('configuration', `no CA certificate in ${path}`, {
    hint: 'it must hold PEM blocks that begin with -----BEGIN CERTIFICATE-----',
  });
}
