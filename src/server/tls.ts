// The server's certificates: TLS versions, client certificates, and reloading without a dropped call.

import { statSync } from 'node:fs';
import { createSecureContext, type TlsOptions } from 'node:tls';
import { OcicryptError } from '../base/errors.ts';
import { readCertificateFile } from '../base/http/certificates.ts';
import { readSecretFile } from '../base/secret-file.ts';
import { setting } from '../base/setting.ts';
import { showPath } from '../base/shown.ts';

/** PEM files, and the oldest TLS that is spoken. */
export type TlsFiles = {
  readonly certificate: string;
  readonly privateKey: string;
  /** Authorities of client certificates; without them no client certificate is asked for. */
  readonly clientAuthority: string | undefined;
  readonly minVersion: 'TLSv1.2' | 'TLSv1.3';
};

/** With TLS 1.2: forward secrecy and AEAD only, and none of the suites that HTTP/2 forbids (RFC 9113, appendix A). */
const CIPHERS = [
  ...['TLS_AES_128_GCM_SHA256', 'TLS_AES_256_GCM_SHA384', 'TLS_CHACHA20_POLY1305_SHA256'],
  ...['ECDHE-ECDSA-AES128-GCM-SHA256', 'ECDHE-ECDSA-AES256-GCM-SHA384', 'ECDHE-ECDSA-CHACHA20-POLY1305'],
  ...['ECDHE-RSA-AES128-GCM-SHA256', 'ECDHE-RSA-AES256-GCM-SHA384', 'ECDHE-RSA-CHACHA20-POLY1305'],
].join(':');
/** TLS 1.2 would also sign with SHA-1. */
const SIGNATURES = [
  'ed25519',
  ...['ECDSA', 'RSA-PSS', 'RSA'].flatMap((key) => [256, 384, 512].map((bits) => `${key}+SHA${bits}`)),
].join(':');

/** More is no chain of certificates. */
const MAXIMUM_PEM_BYTES = 256 * 1024;

/**
 * Reads the files into what `tls.createServer` and `setSecureContext` take.
 *
 * @throws OcicryptError `configuration` if a file is missing, is not PEM, or does not belong to the others
 */
export function readTlsOptions(files: TlsFiles): TlsOptions {
  const key = Buffer.from(readKey(files.privateKey));
  const cert = readCertificateFile(files.certificate, 'the certificate');
  const ca =
    files.clientAuthority === undefined
      ? undefined
      : readCertificateFile(files.clientAuthority, 'the client authorities');
  const options: TlsOptions = {
    key,
    cert,
    minVersion: files.minVersion,
    ...(files.minVersion === 'TLSv1.2' ? { ciphers: CIPHERS, sigalgs: SIGNATURES, honorCipherOrder: true } : {}),
    // Explicit, because NODE_TLS_REJECT_UNAUTHORIZED changes what is otherwise the default.
    ...(ca === undefined ? { requestCert: false } : { ca, requestCert: true, rejectUnauthorized: true }),
  };
  try {
    createSecureContext(options);
  } catch (cause) {
    throw new OcicryptError(
      'configuration',
      `the certificate ${showPath(files.certificate)} cannot be used with ${showPath(files.privateKey)}`,
      {
        cause,
        hint: 'both must be PEM, and the key the one that the certificate was issued for',
      },
    );
  }
  return options;
}

export function tlsFilesState(files: TlsFiles): string {
  return filesState([files.certificate, files.privateKey, files.clientAuthority]);
}

/** What changes when one of the files is written or replaced, a symbolic link's target included. */
export function filesState(paths: readonly (string | undefined)[]): string {
  return paths
    .map((path) => {
      const stat = path === undefined ? undefined : statSync(path, { throwIfNoEntry: false });
      return `${stat?.ino}:${stat?.size}:${stat?.mtimeMs}:${stat?.ctimeMs}`;
    })
    .join(' ');
}

function readKey(path: string): Uint8Array {
  try {
    return readSecretFile(path, 'the private key', MAXIMUM_PEM_BYTES);
  } catch (error) {
    // A missing file is "not found" where a key file is asked for; here the configuration is wrong.
    if (!(error instanceof OcicryptError) || error.code !== 'not-found') throw error;
    throw error.with({ code: 'configuration', hint: `see ${setting('tls.privateKey')}` });
  }
}
