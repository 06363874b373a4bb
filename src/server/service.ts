// The key-provider service: its two RPCs are one provider's `handle`, and each client has the provider that its certificate allows.
// https://github.com/containers/ocicrypt/blob/main/utils/keyprovider/keyprovider.proto

import { wipe } from '../base/bytes.ts';
import { asOcicryptError, OcicryptError } from '../base/errors.ts';
import { decodeBytesField, encodeBytesField } from '../base/grpc.ts';
import { setting } from '../base/setting.ts';
import type { Provider } from '../provider/handle.ts';
import type { Operation } from '../provider/protocol.ts';
import type { Method, Peer } from './call.ts';

export const KEY_PROVIDER_SERVICE = 'keyprovider.KeyProviderService';
const [WRAP, UNWRAP] = [`/${KEY_PROVIDER_SERVICE}/WrapKey`, `/${KEY_PROVIDER_SERVICE}/UnWrapKey`];
export const KEY_PROVIDER_METHODS = [WRAP, UNWRAP];

/** A provider for those clients whose verified certificate has `name`, as `parseClientName` writes it. */
export type ClientRule = { readonly name: string; readonly provider: Provider };

/** Whose calls are answered, and by what policy. */
export type ServiceOptions = {
  /** For unix sockets, whose mode says who may call, and for TLS if no client is named. */
  readonly provider: Provider;
  /** If there are any, only clients whose certificate has one of the names may call over TLS; the first counts. */
  readonly clients: readonly ClientRule[];
};

/**
 * The two methods by path. Each takes its own operation only, whatever the request's "op" says: rules of a proxy or a
 * service mesh see the method alone.
 *
 * @param options those that hold at the moment: a call keeps to those that it has begun with
 */
export function keyProviderMethods(options: () => ServiceOptions): readonly (readonly [string, Method])[] {
  return [
    [WRAP, methodFor('wrap', options)],
    [UNWRAP, methodFor('unwrap', options)],
  ];
}

/** Every call comes to a provider, also one that is refused here: it leaves an audit line. */
function methodFor(operation: Operation, current: () => ServiceOptions): Method {
  return async (message, { peer, signal, userAgent }) => {
    const options = current();
    const spelling = READS_ARRAYS.test(userAgent) ? 'array' : undefined;
    const call = { caller: peer.caller, signal, operation, spelling } as const;
    const rule = ruleFor(peer, options);
    const request = rule instanceof OcicryptError ? rule : readRequest(message);
    const { provider } = rule instanceof OcicryptError ? options : rule;
    const reply =
      request instanceof OcicryptError
        ? await provider.handle(new Uint8Array(), { ...call, refusal: request })
        : await provider.handle(request, call);
    try {
      return encodeBytesField(reply);
    } finally {
      wipe(reply);
    }
  };
}

/**
 * Of ocicrypt-rs over gRPC, as the agents of Confidential Containers have it, and over ttrpc: it writes base64 when it
 * unwraps, and can read arrays of numbers alone.
 */
const READS_ARRAYS = /^(?:tonic\/|ttrpc$)/;

function readRequest(message: Uint8Array): Uint8Array | OcicryptError {
  try {
    return decodeBytesField(message);
  } catch (error) {
    return asOcicryptError(error);
  }
}

function ruleFor({ names }: Peer, options: ServiceOptions): Pick<ClientRule, 'provider'> | OcicryptError {
  const { clients } = options;
  if (names === undefined || clients.length === 0) return options;
  const rule = clients.find(({ name }) => names.includes(name));
  if (rule !== undefined) return rule;
  const shown = names.slice(0, 4).join(', ');
  return new OcicryptError('not-allowed', `no client named ${shown || '(nothing)'} is allowed here`, {
    hint:
      names[0] === undefined
        ? 'its certificate must have a name'
        : `to allow it, add ${setting('clients')}=${names[0]}`,
  });
}
