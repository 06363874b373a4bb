// The only code that decides whom TLS trusts: the system's roots, those of SSL_CERT_FILE and SSL_CERT_DIR, `--ca` files.

import { createPrivateKey } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { OcicryptError } from './errors.ts';
import { readSecretFile } from './secret-file.ts';

/** Debian and its kin, Fedora and its kin, openSUSE, Alpine and macOS. */
const SYSTEM_ROOTS = [
  '/etc/ssl/certs/ca-certificates.crt',
  '/etc/pki/tls/certs/ca-bundle.crt',
  '/etc/ssl/ca-bundle.pem',
  '/etc/ssl/cert.pem',
];

/**
 * The roots that clients of TLS trust, as PEM files. SSL_CERT_FILE and SSL_CERT_DIR act as in Go's programs: each takes
 * the place of the system's file or directory, so that the system's roots are left out only where both are set.
 * The system's come from the one file of the distribution, because `tls.getCACertificates('system')` takes 42 ms on
 * Node 24 where this takes 5; a container that has no such file gets the roots that come with the runtime.
 *
 * @param caFiles PEM files of further roots (`--ca`)
 * @throws OcicryptError `configuration` where a named file cannot be read or holds no certificate
 */
export function readRoots(caFiles: readonly string[], environment: NodeJS.ProcessEnv): (Buffer | string)[] {
  const { SSL_CERT_FILE: file, SSL_CERT_DIR: directories } = environment;
  return [
    ...(file && directories ? [] : readSystemRoots()),
    ...(directories ? directories.split(delimiter).flatMap(readDirectory) : []),
    ...(file ? [readCertificates(file)] : []),
    ...caFiles.map(readCertificates),
  ];
}

/** Longer files are no certificate chains and no keys. */
const MAXIMUM_PEM = 64 * 1024;

/**
 * A certificate chain and its private key, as TLS takes them.
 *
 * @throws OcicryptError `configuration` or `not-found`; the key's file must be readable by us alone
 */
export function readClientCertificate(files: { readonly certificate: string; readonly privateKey: string }): {
  readonly cert: Buffer;
  readonly key: Buffer;
} {
  const key = Buffer.from(readSecretFile(files.privateKey, 'the private key', MAXIMUM_PEM));
  const cert = readCertificates(files.certificate);
  try {
    createPrivateKey(key);
    return { cert, key };
  } catch {
    // Without a cause: the error may quote the file.
    throw new OcicryptError('configuration', `${files.privateKey} is not a private key that can be used`, {
      hint: 'it must be PEM without a passphrase',
    });
  }
}

function readSystemRoots(): readonly (Buffer | string)[] {
  for (const path of SYSTEM_ROOTS) {
    try {
      return [readFileSync(path)];
    } catch {}
  }
  // Not imported: no other path needs it, and loading it costs the command a fraction of a millisecond.
  return process.getBuiltinModule('node:tls').rootCertificates;
}

/** The certificates of a directory; what cannot be read or is something else is passed over, as by OpenSSL. */
function readDirectory(directory: string): Buffer[] {
  try {
    return readdirSync(directory)
      .map((name) => tryRead(join(directory, name)))
      .filter((file) => file !== undefined);
  } catch {
    return [];
  }
}

function tryRead(path: string): Buffer | undefined {
  try {
    return readCertificates(path);
  } catch {
    return undefined;
  }
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
