// The only code that decides which authorities TLS trusts: the system's, those of SSL_CERT_FILE and SSL_CERT_DIR, `--ca`.

import { createPrivateKey } from 'node:crypto';
import { type Dirent, readdirSync, readFileSync, statSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { OcicryptError } from '../errors.ts';
import { readSecretFile } from '../secret-file.ts';
import { showPath } from '../shown.ts';
import { findCertificates, KnownCertificates, readCertificateFile } from './certificates.ts';

/** Debian and its kin, Fedora and its kin, openSUSE, Alpine and macOS. */
const SYSTEM_ROOTS = [
  '/etc/ssl/certs/ca-certificates.crt',
  '/etc/pki/tls/certs/ca-bundle.crt',
  '/etc/ssl/ca-bundle.pem',
  '/etc/ssl/cert.pem',
];

/** Whom TLS trusts beside the system's roots. */
export type RootFiles = {
  /** PEM files of further roots (`--ca`). */
  readonly caFiles?: readonly string[] | undefined;
  /** A directory of such files, those in the directories below it too (VAULT_CAPATH). */
  readonly caDirectory?: string | undefined;
};

/**
 * The roots that clients of TLS trust, as PEM. SSL_CERT_FILE and SSL_CERT_DIR act as in Go's programs: each takes
 * the place of the system's file or directory, so that the system's roots are left out only if both are set.
 * The system's come from the one file of the distribution, because `tls.getCACertificates('system')` takes 42 ms on
 * Node 24 where this takes 5; a container that has no such file gets the roots that come with the runtime.
 *
 * @throws OcicryptError `configuration` if a named file cannot be read, or what it holds is no certificate
 */
export function readRoots(
  { caFiles = [], caDirectory }: RootFiles,
  environment: NodeJS.ProcessEnv,
): (Buffer | string)[] {
  const { SSL_CERT_FILE: file, SSL_CERT_DIR: directories } = environment;
  const system = file && directories ? undefined : readSystemRoots();
  const own = file && file !== system?.path ? file : undefined;
  const roots = system?.roots ?? [];
  if (own === undefined && caFiles.length === 0 && !directories && caDirectory === undefined) return roots;
  // Once each: twice the roots of a system would be twice the time to parse them.
  const isFew = !directories && caDirectory === undefined;
  const known = new KnownCertificates(isFew ? roots : []);
  if (!isFew) for (const text of roots) known.add(text);
  // As by OpenSSL and Go, what cannot be read or is something else is passed over, and directories are not entered.
  const found = directories ? directories.split(delimiter).flatMap((path) => findIn(path, false, known)) : [];
  const texts = [
    ...(own === undefined ? [] : [readCertificateFile(own, 'the file of SSL_CERT_FILE')]),
    ...caFiles.map((path) => readCertificateFile(path, 'the file of CA certificates')),
    ...(caDirectory === undefined ? [] : readDirectory(caDirectory)),
  ];
  return [...roots, ...found, ...texts.map((text) => known.add(text)).filter((text) => text !== '')];
}

/** Longer files are no certificate chains and no keys. */
const MAXIMUM_PEM_BYTES = 64 * 1024;

/**
 * A certificate chain and its private key, as TLS takes them.
 *
 * @throws OcicryptError `configuration` or `not-found`; the key's file must be readable by us alone
 */
export function readClientCertificate(files: { readonly certificate: string; readonly privateKey: string }): {
  readonly cert: string;
  readonly key: Buffer;
} {
  const key = Buffer.from(readSecretFile(files.privateKey, 'the private key', MAXIMUM_PEM_BYTES));
  const cert = readCertificateFile(files.certificate, 'the certificate');
  try {
    createPrivateKey(key);
    return { cert, key };
  } catch {
    // Without a cause: the error may quote the file.
    throw new OcicryptError('configuration', `${showPath(files.privateKey)} is not a private key that can be used`, {
      hint: 'it must be PEM without a passphrase',
    });
  }
}

type SystemRoots = { readonly path: string | undefined; readonly roots: (Buffer | string)[] };

function readSystemRoots(): SystemRoots {
  for (const path of SYSTEM_ROOTS) {
    try {
      return { path, roots: [readFileSync(path)] };
    } catch {}
  }
  // Not imported: no other path needs it, and loading it costs the command a fraction of a millisecond.
  return { path: undefined, roots: [...process.getBuiltinModule('node:tls').rootCertificates] };
}

/** As Vault's own clients read it. */
function readDirectory(directory: string): readonly string[] {
  const status = statSync(directory, { throwIfNoEntry: false });
  if (!status?.isDirectory()) {
    const problem = status === undefined ? 'does not exist' : 'is not a directory';
    throw new OcicryptError('configuration', `the directory of CA certificates ${showPath(directory)} ${problem}`, {
      hint: 'name a directory of PEM files with VAULT_CAPATH, or one PEM file with VAULT_CACERT',
    });
  }
  const found = findIn(directory, true, new KnownCertificates());
  if (found.length > 0) return found;
  throw new OcicryptError('configuration', `no CA certificate is in the directory ${showPath(directory)}`, {
    hint: 'it must hold files of PEM blocks that begin with -----BEGIN CERTIFICATE-----',
  });
}

/**
 * The certificates of a directory that are not known yet, and are then.
 *
 * @param deep whether directories are entered; links to them are not, since those may lead in circles
 */
function findIn(directory: string, deep: boolean, known: KnownCertificates): readonly string[] {
  let entries: readonly Dirent[];
  try {
    entries = readdirSync(directory, { withFileTypes: true });
  } catch {
    return [];
  }
  return entries
    .flatMap((entry) => {
      const path = join(directory, entry.name);
      if (entry.isDirectory()) return deep ? findIn(path, deep, known) : [];
      return [known.add(findCertificates(path, known))];
    })
    .filter((certificates) => certificates !== '');
}
