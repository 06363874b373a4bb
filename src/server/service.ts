// The key-provider service: its two RPCs are one provider's `handle`, and each client has the provider that its certificate allows.
// https://github.com/containers/ocicrypt/blob/main/utils/keyprovider/keyprovider.proto

import { wipe } from '../base/bytes.ts';
import { OcicryptError } from '../base/errors.ts';
import { decodeBytesField, encodeBytesField } from '../base/grpc.ts';
import type { Provider } from '../provider/handle.ts';
import type { Method, Peer } from './call.ts';

export const KEY_PROVIDER_SERVICE = 'keyprovider.KeyProviderService';

/** A provider for those clients whose verified certificate has `name`. */
export type ClientRule = { readonly name: string; readonly provider: Provider };

/** Whose calls are answered, and by what policy. */
export type ServiceOptions = {
  /** For unix sockets, whose mode says who may call, and for TLS where no client is named. */
  readonly provider: Provider;
  /** Where there are any, only clients whose certificate has one of the names may call over TLS; the first counts. */
  readonly clients: readonly ClientRule[];
};

/**
 * The two methods by path. Both take either operation, as the request's own "op" decides in every client and in the
 * reference server.
 */
export function keyProviderMethods(options: ServiceOptions): readonly (readonly [string, Method])[] {
  const method: Method = async (request, { peer, signal }) => {
    const reply = await providerFor(peer, options).handle(decodeBytesField(request), { caller: peer.caller, signal });
    try {
      return encodeBytesField(reply);
    } finally {
      wipe(reply);
    }
  };
  return ['WrapKey', 'UnWrapKey'].map((name) => [`/${KEY_PROVIDER_SERVICE}/${name}`, method] as const);
}

function providerFor({ names }: Peer, { provider, clients }: ServiceOptions): Provider {
  if (names === undefined || clients.length === 0) return provider;
  const rule = clients.find(({ name }) => names.includes(name));
  if (rule !== undefined) return rule.provider;
  const shown = names.slice(0, 4).join(', ');
  throw new OcicryptError('not-allowed', `no client named ${shown || '(nothing)'} is allowed here`, {
    hint: names[0] === undefined ? 'its certificate must have a name' : `to allow it, add --allow-client=${names[0]}`,
  });
}
