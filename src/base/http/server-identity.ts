// Decides whether a certificate names the host that was asked for.

import type { PeerCertificate } from 'node:tls';

/**
 * The check of a server's name for TLS clients. Alternative names only: Node and Bun would take the common name of a
 * certificate that has none, which Go, curl and browsers do not (RFC 9525 section 6.3; RFC 2818 is obsolete).
 *
 * @param serverName the name to expect, if it is not the host's
 */
export function identityCheck(serverName?: string | undefined) {
  return (host: string, certificate: PeerCertificate): Error | undefined => {
    const { subjectaltname } = certificate;
    if (typeof subjectaltname !== 'string' || subjectaltname === '') return noAlternativeName();
    // Not imported: loading it costs a path that has no TLS a fraction of a millisecond.
    return process.getBuiltinModule('node:tls').checkServerIdentity(serverName ?? host, certificate);
  };
}

/** With the code that the runtimes give to a certificate of another name. */
function noAlternativeName(): Error {
  return Object.assign(new Error('no alternative name'), { code: 'ERR_TLS_CERT_ALTNAME_INVALID' });
}
