// How clients are named: as their certificates say it, and as an operator writes it.
// https://www.rfc-editor.org/rfc/rfc5280#section-4.2.1.6

import { isIP } from 'node:net';
import type { TLSSocket } from 'node:tls';
import { OcicryptError } from '../base/errors.ts';
import { showValue } from '../base/shown.ts';

/** The names of the client certificate that was verified on this connection, as {@link parseClientName} writes them. */
export function clientNames(socket: TLSSocket): readonly string[] {
  const { subjectaltname } = socket.getPeerCertificate();
  return typeof subjectaltname === 'string' ? parseNames(subjectaltname) : [];
}

/** What all connections that show one certificate are known by; undefined for one that shows none, or one without names. */
export function certificateClient({ names }: { readonly names?: readonly string[] }): string | undefined {
  return names?.join('\n') || undefined;
}

/**
 * Splits OpenSSL's text for alternative names. A name that needs quotes there could be two names or none; it is left
 * out, and so never allowed (CVE-2021-44532). A DNS name with a colon would pass for a name of another kind.
 */
export function parseNames(text: string): readonly string[] {
  if (text.includes('"')) return [];
  return text.split(', ').flatMap((name) => {
    const [, kind = '', value = ''] = /^(DNS|URI|email|IP Address):(.+)$/.exec(name) ?? [];
    const known = canonicalName(kind === 'IP Address' ? 'IP' : kind, value);
    return known === undefined ? [] : [known];
  });
}

/**
 * A name as an operator writes it: a DNS name as it is, the other kinds with theirs in front, so that no certificate has
 * a right by a name of a kind that was not meant.
 *
 * @throws OcicryptError `configuration`
 */
export function parseClientName(text: string): string {
  const [, kind = 'DNS', value = text] = /^(DNS|URI|email|IP):(.*)$/s.exec(text) ?? [];
  const name = value === text && isIP(value) !== 0 ? undefined : canonicalName(kind, value);
  if (name !== undefined) return name;
  throw new OcicryptError('configuration', `not the name of a client: ${showValue(text)}`, {
    hint: `write a DNS name, or ${likelyKind(value)}`,
  });
}

/** DNS names and addresses in one spelling; URIs and addresses of mail to the letter, since their issuer has one. */
function canonicalName(kind: string, value: string): string | undefined {
  switch (kind) {
    case 'DNS':
      return /^[A-Za-z0-9*._-]+$/.test(value) ? value.toLowerCase() : undefined;
    case 'IP':
      return /^[0-9A-Fa-f:.]+$/.test(value) && isIP(value) !== 0 ? `IP:${canonicalAddress(value)}` : undefined;
    default:
      return value === '' || kind === '' ? undefined : `${kind}:${value}`;
  }
}

/** Runtimes write the same IPv6 address in different ways. */
function canonicalAddress(address: string): string {
  return isIP(address) === 6 ? new URL(`http://[${address}]/`).hostname.slice(1, -1) : address;
}

function likelyKind(value: string): string {
  if (isIP(value) !== 0) return `IP:${value}`;
  if (value.includes('://')) return `URI:${value}`;
  return value.includes('@') ? `email:${value}` : 'URI:…, email:… or IP:… for a name of another kind';
}
