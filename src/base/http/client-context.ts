// Makes contexts of TLS from the roots that clients trust: one for all clients that trust the same.

import { createHash } from 'node:crypto';
import { createSecureContext, type SecureContext } from 'node:tls';

const contexts = new Map<string, WeakRef<SecureContext>>();

/**
 * Parsing the roots of a system takes tens of milliseconds on Node, and each key has a client of its own.
 *
 * @param ca the roots, as PEM; nothing else is trusted
 * @returns a context for TLS 1.2 and later, without a certificate of ours
 */
export function trustingContext(ca: readonly (Buffer | string)[]): SecureContext {
  const hash = createHash('sha256');
  // The lengths tell [a, b] from [ab].
  for (const text of ca) hash.update(`${Buffer.byteLength(text)}\n`).update(text);
  const name = hash.digest('hex');
  const context = contexts.get(name)?.deref() ?? createSecureContext({ ca: [...ca], minVersion: 'TLSv1.2' });
  contexts.set(name, new WeakRef(context));
  return context;
}
