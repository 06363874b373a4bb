// Decides whether a certificate names the host that was asked for.

import { X509Certificate } from 'node:crypto';
import type { PeerCertificate } from 'node:tls';

/**
 * Why a certificate that is trusted is not that of `host`: an error with the runtimes' code for it, or undefined.
 * Alternative names only, and a wildcard is a whole label: Node and Bun would also take the common name of a certificate
 * that has none, which Go, curl and browsers do not (RFC 9525 sections 6.3 and 6.4; RFC 2818 is obsolete).
 *
 * The certificate itself is asked. `node:tls` has a check of its own, of a text that is made of the certificate, and to
 * load it takes as long as a handshake.
 */
export function checkIdentity(host: string, certificate: X509Certificate | undefined): Error | undefined {
  if (certificate !== undefined && isNamedBy(certificate, host)) return undefined;
  return Object.assign(new Error('not a certificate of this host'), { code: 'ERR_TLS_CERT_ALTNAME_INVALID' });
}

/** The same for `node:tls` and all that is made of it. @param serverName the name to expect, if it is not the host's */
export function identityCheck(serverName?: string | undefined) {
  return (host: string, { raw }: PeerCertificate): Error | undefined =>
    checkIdentity(serverName ?? host, raw instanceof Uint8Array ? new X509Certificate(raw) : undefined);
}

/** Only addresses hold a colon, or nothing but digits and dots. */
const ADDRESS = /:|^[\d.]+$/;
/** OpenSSL would take a dot at the beginning for any name below. A dot at the end names the same host (RFC 1034). */
const NAME = /^([\w-]+(?:\.[\w-]+)*)\.?$/;

function isNamedBy(certificate: X509Certificate, host: string): boolean {
  try {
    if (ADDRESS.test(host)) return certificate.checkIP(host) !== undefined;
    const [, name] = NAME.exec(host) ?? [];
    return name !== undefined && certificate.checkHost(name, ALTERNATIVE_NAMES) !== undefined;
  } catch {
    // What looks like an address and is none.
    return false;
  }
}

const ALTERNATIVE_NAMES = { subject: 'never', partialWildcards: false } as const;
