// Reads the address of a service that an operator gave in an option or a variable.

import { OcicryptError } from './errors.ts';
import { isSecret, showValue } from './shown.ts';

/**
 * The address without the slashes at its end. Without a scheme it is one of TLS, and must look like a host: with a dot,
 * a port, or this machine.
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
