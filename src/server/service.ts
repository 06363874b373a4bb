// The key-provider service: its two RPCs are one provider's `handle`, and each client has the provider that its certificate allows.
// https://github.com/containers/ocicrypt/blob/main/utils/keyprovider/keyprovider.proto

import { wipe } from '../base/bytes.ts';
import { OcicryptError } from '../base/errors.ts';
import { decodeBytesField, encodeBytesField } from '../base/grpc.ts';
import type { Provider } from '../provider/handle.ts';
import type { Method, Peer } from './call.ts';

export const KEY_PROVIDER_SERVICE = 'keyprovider.KeyProviderService';

/** A provider for those clients whose verified certificate has one of `names`. */
export type ClientRule = { readonly name: string; readonly provider: Provider };

/** Whose calls are answered, and by what policy. */
export type ServiceOptions = {
  /** For everybody whom no rule names; undefined where only named clients may call. */
  readonly provider: Provider | undefined;
  /** The first whose name the certificate has is taken. */
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

function providerFor(peer: Peer, { provider, clients }: ServiceOptions): Provider {
  const names = peer.names ?? [];
  const rule = clients.find(({ name }) => names.includes(name));
  const found = rule?.provider ?? provider;
  // Not for unix sockets: there the file's mode says who may call.
  if (found !== undefined) return found;
  throw new OcicryptError(
    'not-allowed',
    `no client ${names.slice(0, 4).join(', ') || 'without a certificate'} is allowed here`,
    {
      hint: names[0] === undefined ? 'call with a client certificate' : `to allow it, add --allow-client=${names[0]}`,
    },
  );
}
