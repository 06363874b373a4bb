// Reads addresses: those of services, HOST:PORT, unix:PATH, and which of them are this machine.

import { OcicryptError } from './errors.ts';
import { isSecret, showValue } from './shown.ts';

/** Where something listens or is called. `tcp` is without TLS; the path of an abstract socket begins with a zero. */
export type Address = { readonly kind: 'unix'; readonly path: string } | NetworkAddress;
export type NetworkAddress = { readonly kind: 'tls' | 'tcp'; readonly host: string; readonly port: number };

/** Whether a host (without brackets) is this machine itself, by name or address; `127.example.com` is not. */
export function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || /^127(?:\.(?:25[0-5]|2[0-4]\d|1?\d?\d)){3}$/.test(host);
}

/** The host of an address, an IPv6 address without its brackets. */
export function bareHost(url: URL): string {
  return url.hostname.replace(/^\[(.*)\]$/, '$1');
}

/** `HOST:PORT`, an IPv6 address in brackets; undefined for anything else. */
export function parseHostPort(text: string): { readonly host: string; readonly port: number } | undefined {
  const [, bracketed, plain, port] = /^(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+)):(\d{1,5})$/.exec(text) ?? [];
  const host = bracketed ?? plain;
  if (host === undefined || Number(port) > 65_535) return undefined;
  if (bracketed !== undefined && !URL.canParse(`http://[${bracketed}]`)) return undefined;
  return { host, port: Number(port) };
}

/** What stands after `unix:` or `unix://`, which may be no path; undefined for what begins otherwise. */
export function parseUnix(text: string): string | undefined {
  return /^unix:(?:\/\/)?(.*)$/.exec(text)?.[1];
}

/** The address as it is read: `unix:///PATH`, `tls://HOST:PORT`, `tcp://HOST:PORT`. */
export function formatAddress(address: Address): string {
  if (address.kind === 'unix') return `unix://${address.path}`;
  const host = address.host.includes(':') ? `[${address.host}]` : address.host;
  return `${address.kind}://${host}:${address.port}`;
}

/**
 * Where a service is, as an operator gave it in an option or a variable: the address without the slashes at its end.
 * Without a scheme it is one of TLS, and must look like a host: with a dot, a port, or this machine.
 *
 * @param name of the option or variable, for the error
 * @throws OcicryptError `configuration` for what is no address, before anybody is asked for a host of that name
 */
export function readEndpoint(text: string, name: string): string {
  const isWhole = text.includes('://');
  const address = isWhole ? text : `https://${text}`;
  const url = URL.canParse(address) ? new URL(address) : undefined;
  const hasPlainHost =
    // The parser would make a host of what follows further slashes.
    /^https?:\/\/[^/\\@?#\s]+(?:\/[^?#\s]*)?$/.test(address) &&
    url !== undefined &&
    (isWhole || /[.:]/.test(url.host) || url.host === 'localhost');
  if (hasPlainHost && !isSecret(text)) return address.replace(/\/+$/, '');
  throw new OcicryptError('configuration', `${name} is not the address of a service: ${showValue(text)}`, {
    hint: 'it looks like https://HOST or https://HOST:PORT',
  });
}
