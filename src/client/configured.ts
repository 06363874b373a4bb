// Asks a provider that OCICRYPT_KEYPROVIDER_CONFIG configures, in the way that its entry says.

import { decodeBytesField, encodeBytesField, messageLimit } from '../base/grpc.ts';
import { DEFAULT_LIMITS, withRetries } from '../provider/attempts.ts';
import { callOnce } from './grpc-client.ts';
import type { ProviderCall } from './provider.ts';
import { runProviderCommand } from './provider-command.ts';
import type { ConfiguredProvider } from './provider-config.ts';

/** No client of the protocol has a deadline; longer than any provider of ours takes. */
const PATIENCE_MILLISECONDS = 60_000;
const MAXIMUM_REPLY = 1024 * 1024;
const METHODS = {
  wrap: '/keyprovider.KeyProviderService/WrapKey',
  unwrap: '/keyprovider.KeyProviderService/UnWrapKey',
};

/**
 * How a configured provider is called; it is neither run nor connected to before that.
 *
 * @throws OcicryptError `configuration` if layer keys would be sent in clear, or to anybody
 */
export function createConfiguredCall(provider: ConfiguredProvider): ProviderCall {
  if (provider.kind === 'grpc' && provider.refusal !== undefined) throw provider.refusal;
  return async (request, operation, outer) => {
    const signal = AbortSignal.any([outer, AbortSignal.timeout(PATIENCE_MILLISECONDS)]);
    if (provider.kind === 'command') return runProviderCommand(provider, request, signal);
    const call = {
      method: METHODS[operation],
      message: encodeBytesField(request),
      timeout: PATIENCE_MILLISECONDS,
      maximumReply: messageLimit(MAXIMUM_REPLY),
      signal,
    };
    // A server that answers has tried again by itself; one that restarts is back within a moment.
    const reply = await withRetries(DEFAULT_LIMITS, signal, () => callOnce(provider.target, provider.tls, call));
    return decodeBytesField(reply);
  };
}
