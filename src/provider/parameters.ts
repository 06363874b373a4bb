// Finds our own values among the parameters of a request: the protocol never says our name.

import { OcicryptError } from '../base/errors.ts';
import { asKeyUri, type KeyUri, MAXIMUM_LENGTH, parseKeyUri } from '../base/key-uri.ts';
import { setting } from '../base/setting.ts';
import type { Parameters, ParameterValues } from './protocol.ts';

/** What the caller named under our provider's name. */
export type NamedKeys = {
  /** Our name in this request, if it could be told; cut short, because a caller may send any. */
  readonly provider: string | undefined;
  /** Without duplicates; empty if the caller gave `Enabled`, nothing, or only other providers. */
  readonly keys: readonly KeyUri[];
};

/** How our name is found: the one that was configured, else this one and then the other of `USUAL_NAMES`. */
export type NameOptions = { readonly configured: string | undefined; readonly fallback: UsualName };

/** The names that users of the reference provider have for its command and its server; we tell users to use the first. */
export const USUAL_NAMES = ['kmscrypt', 'grpc-keyprovider'] as const satisfies readonly UsualName[];
/** A name by which clients know the reference provider. */
export type UsualName = 'grpc-keyprovider' | 'kmscrypt';

/** Parameters of ocicrypt's own schemes, private keys among them: https://github.com/containers/ocicrypt config/ */
export const SCHEME_PARAMETERS: ReadonlySet<string> = new Set([
  'gpg-client',
  'gpg-client-version',
  'gpg-privatekeys',
  'gpg-privatekeys-passwords',
  'gpg-pubkeyringfile',
  'gpg-recipients',
  'pkcs11-config',
  'pkcs11-yamls',
  'privkeys',
  'privkeys-passwords',
  'pubkeys',
  'x509s',
]);

/**
 * Finds the keys named under our own name: the configured name, else one of the usual names, else the sole name
 * that carries key URIs, else the sole provider there is.
 *
 * @throws OcicryptError `bad-input` if two names may be ours, or a value under our name is no key URI
 */
export function namedKeys(parameters: Parameters, names: NameOptions): NamedKeys {
  const provider = findProvider(parameters, names);
  const keys = new Map<string, KeyUri>();
  for (const value of provider === undefined ? [] : (parameters.get(provider) ?? [])) {
    const text = parameterText(value);
    if (text === undefined) {
      throw new OcicryptError('bad-input', `a parameter of provider ${shorten(provider ?? '')} is not text in base64`);
    }
    // ocicrypt puts this word if the user named a provider and no value.
    if (text !== '' && text !== 'Enabled') keys.set(text, parseKeyUri(text));
  }
  return { provider: provider === undefined ? undefined : shorten(provider), keys: [...keys.values()] };
}

function findProvider(parameters: Parameters, names: NameOptions): string | undefined {
  if (names.configured !== undefined) return parameters.has(names.configured) ? names.configured : undefined;
  const usual = [names.fallback, ...USUAL_NAMES].find((name) => parameters.has(name));
  if (usual !== undefined) return usual;
  const providers = [...parameters.keys()].filter((name) => !SCHEME_PARAMETERS.has(name));
  const withKeys = providers.filter((name) => carriesKeys(parameters.get(name) ?? []));
  if (withKeys.length > 1) {
    throw new OcicryptError('bad-input', `several providers carry key URIs: ${withKeys.map(shorten).join(', ')}`, {
      hint: `say which one this is: ${setting('names.configured')}=${shorten(withKeys[0] ?? '')}`,
    });
  }
  return withKeys[0] ?? (providers.length === 1 ? providers[0] : undefined);
}

function carriesKeys(values: ParameterValues): boolean {
  return values.some((value) => asKeyUri(parameterText(value) ?? '') !== undefined);
}

/** Only what can be a key URI becomes a string: the values of others may be private keys. */
function parameterText(value: Uint8Array | undefined): string | undefined {
  if (value === undefined || value.length > MAXIMUM_LENGTH) return undefined;
  if (value.some((byte) => byte <= 0x20 || byte >= 0x7f)) return undefined;
  return new TextDecoder().decode(value);
}

function shorten(name: string): string {
  return JSON.stringify(name.slice(0, 64)).slice(1, -1);
}
