// Key providers as what wraps and unwraps layer keys, wherever they are: in this process, a command, a gRPC server.

import { wipe } from '../base/bytes.ts';
import type { KeyHolder } from './holders.ts';
import { type LayerKeyWrapper, providerOf, providerScheme } from './layer-keys.ts';
import {
  decodeUnwrapReply,
  decodeWrapReply,
  encodeUnwrapRequest,
  encodeWrapRequest,
  type ProviderParameters,
} from './provider-messages.ts';

/** The operations of the protocol; gRPC has a method for each. */
export type ProviderOperation = 'wrap' | 'unwrap';

/**
 * One request of the key-provider protocol and its reply, both as bytes. Must not keep either: both are wiped.
 *
 * @throws OcicryptError
 */
export type ProviderCall = (
  request: Uint8Array,
  operation: ProviderOperation,
  signal: AbortSignal,
) => Promise<Uint8Array>;

/**
 * The recipients that a provider wraps for, all in one call.
 *
 * @param call asks the provider
 * @param name stands in the annotation's name, and before the values in the request
 * @param values what the user named: key URIs for ours, whatever another provider takes
 * @throws nothing; what it makes throws what the provider answers
 * @example
 * const recipient = createProviderWrapper('kmscrypt', [key], (request, _, signal) => provider.handle(request, { signal }));
 */
export function createProviderWrapper(name: string, values: readonly string[], call: ProviderCall): LayerKeyWrapper {
  const parameters = { [name]: values };
  return {
    scheme: providerScheme(name),
    async wrap(record, signal) {
      const request = encodeWrapRequest(parameters, record);
      try {
        return [decodeWrapReply(await call(request, 'wrap', signal), `provider ${name}`)];
      } finally {
        wipe(request);
      }
    },
  };
}

/**
 * A provider that may open packets.
 *
 * @param parameters what the user named for providers
 * @param call asks the provider
 * @param names the names under whose annotations its packets are; undefined for a provider that knows its own packets
 *   wherever they are
 * @throws nothing; what it makes throws what the provider answers
 * @example
 * const holder = createProviderHolder(undefined, {}, (request, _, signal) => provider.handle(request, { signal }));
 */
export function createProviderHolder(
  names: ReadonlySet<string> | undefined,
  parameters: ProviderParameters,
  call: ProviderCall,
): KeyHolder {
  return {
    opens: (scheme) => {
      const name = providerOf(scheme);
      return name !== undefined && (names?.has(name) ?? true);
    },
    async open({ scheme, packet }, signal) {
      const reply = await call(encodeUnwrapRequest(parameters, packet), 'unwrap', signal);
      try {
        return decodeUnwrapReply(reply, scheme);
      } finally {
        wipe(reply);
      }
    },
  };
}
