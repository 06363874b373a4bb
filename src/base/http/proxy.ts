// Reads HTTPS_PROXY and NO_PROXY: which proxy, if any, a host is reached through.

import { isLoopback } from '../address.ts';
import { OcicryptError } from '../errors.ts';

/**
 * The proxy for HTTPS to `host`, as curl and Go choose it: `HTTPS_PROXY` unless `NO_PROXY` lists the host. Lower-case
 * names win if both are set. An entry of NO_PROXY is a host, which covers its subdomains, with an optional leading
 * dot or `*.` and an optional port; an address; a network in CIDR form; or `*`. Loopback hosts need no entry.
 *
 * @param host a name or an address, without brackets
 * @param port the port that is connected to
 * @throws OcicryptError `configuration` if the proxy is not an `http:` or `https:` URL
 */
export function chooseProxy(host: string, port: number, environment: NodeJS.ProcessEnv): URL | undefined {
  const proxy = environment.https_proxy ?? environment.HTTPS_PROXY;
  if (proxy === undefined || proxy === '') return undefined;
  if (isLoopback(host) || isExempt(host, port, environment.no_proxy ?? environment.NO_PROXY ?? '')) return undefined;
  const text = proxy.includes('://') ? proxy : `http://${proxy}`;
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || !/^https?:$/.test(url.protocol)) {
    const name = environment.https_proxy === undefined ? 'HTTPS_PROXY' : 'https_proxy';
    throw new OcicryptError('configuration', `${name} is not an http or https URL`, {
      hint: 'it looks like http://HOST:PORT',
    });
  }
  return url;
}

/**
 * The `proxy-authorization` of a proxy whose URL has credentials (RFC 7617).
 *
 * @throws OcicryptError `configuration` if they are not percent-encoded as a URL's are
 */
export function proxyAuthorization({ username, password }: URL): string | undefined {
  if (username === '' && password === '') return undefined;
  try {
    const credentials = `${decodeURIComponent(username)}:${decodeURIComponent(password)}`;
    return `Basic ${Buffer.from(credentials).toString('base64')}`;
  } catch {
    // Without a cause, which may quote them.
    throw new OcicryptError('configuration', 'the credentials in HTTPS_PROXY are not percent-encoded', {
      hint: 'write a percent sign in a user name or password as %25',
    });
  }
}

function isExempt(host: string, port: number, list: string): boolean {
  return list
    .split(/[\s,]+/)
    .filter((entry) => entry !== '')
    .some((entry) => entry === '*' || matches(host.toLowerCase(), port, entry.toLowerCase()));
}

function matches(host: string, port: number, entry: string): boolean {
  // Not imported: loading it costs a start of the command some milliseconds, and most lists are empty.
  const { isIP } = process.getBuiltinModule('node:net');
  const network = /^(.+)\/(\d{1,3})$/.exec(entry);
  if (network !== null) return isWithin(host, network[1] ?? '', Number(network[2]));
  const parts = /^\[?(.*?)\]?(?::(\d+))?$/.exec(isIP(entry) === 6 ? `[${entry}]` : entry);
  if (parts?.[2] !== undefined && Number(parts[2]) !== port) return false;
  const name = (parts?.[1] ?? entry).replace(/^\*?\./, '');
  return host === name || (isIP(host) === 0 && host.endsWith(`.${name}`));
}

function isWithin(host: string, network: string, bits: number): boolean {
  const { BlockList, isIP } = process.getBuiltinModule('node:net');
  const family = isIP(network);
  if (family === 0 || family !== isIP(host) || bits > (family === 4 ? 32 : 128)) return false;
  const list = new BlockList();
  list.addSubnet(network, bits, family === 4 ? 'ipv4' : 'ipv6');
  return list.check(host, family === 4 ? 'ipv4' : 'ipv6');
}
