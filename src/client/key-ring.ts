// What a program's keys wrap and open layer keys with: our own provider in this process, private keys in PEM, and the
// providers that OCICRYPT_KEYPROVIDER_CONFIG configures.

import { OcicryptError } from '../base/errors.ts';
import { asKeyUri, formatKeyUri, type KeyUri } from '../base/key-uri.ts';
import { setting } from '../base/setting.ts';
import { showValue } from '../base/shown.ts';
import { createProvider, type ProviderOptions } from '../provider/handle.ts';
import type { Labels } from '../provider/labels.ts';
import { USUAL_NAMES } from '../provider/parameters.ts';
import { type AllowRule, hasOperatorParts, parseAllowRule } from '../provider/policy.ts';
import { selectKeyfile } from '../provider/unwrap.ts';
import { createUnwrapper, type KeyHolder } from './holders.ts';
import { createJweHolder, createJweWrapper } from './jwe.ts';
import type { LayerKeyUnwrapper, LayerKeyWrapper } from './layer-keys.ts';
import { createProviderHolder, createProviderWrapper, type ProviderCall } from './provider.ts';
import type { ConfiguredProvider } from './provider-config.ts';
import type { ProviderParameters } from './provider-messages.ts';
import { parseRecipients } from './recipients.ts';

/** What a ring is made of. */
export type Keys = {
  readonly options: ProviderOptions;
  readonly configured: ReadonlyMap<string, () => ConfiguredProvider>;
  /** PEM files of private keys. */
  readonly jwe: readonly string[];
  /** For the configured providers. */
  readonly parameters: ProviderParameters;
  readonly close: () => Promise<void>;
};

/** Those who may open a layer key. */
export type Holders = {
  readonly own: readonly KeyHolder[];
  /** By their names. */
  readonly configured: ReadonlyMap<string, KeyHolder>;
};

/** A key by the URI by which packets know it, and the rule that allows it. */
export type KnownKey = { readonly known: string; readonly rule: AllowRule };

type KeyFileUri = Extract<KeyUri, { scheme: 'keyfile' }>;

/** What packets of one image have in common: the name of the provider that its clients ask, and labels. */
export type PacketStyle = { readonly provider: string | undefined; readonly labels: Labels | undefined };

/** The keys that a command or program has, as what encrypts and decrypts images. */
export class KeyRing {
  readonly #keys: Keys;
  /** Our own provider's. */
  readonly #name: string;

  constructor(keys: Keys) {
    this.#keys = keys;
    this.#name = keys.options.names.configured ?? USUAL_NAMES[0];
  }

  /** Whether it names any key of our own. */
  get hasOwn(): boolean {
    return this.#keys.options.rules.length > 0;
  }

  /**
   * What wraps for these recipients.
   *
   * @param texts key URIs, `provider:NAME:VALUE`, `jwe:PUBLIC.pem`
   * @param old what new packets take over from those that the image has
   * @throws OcicryptError `usage`, `bad-input`, `configuration`, `not-found`
   */
  async wrappers(texts: readonly string[], old?: PacketStyle): Promise<readonly LayerKeyWrapper[]> {
    const { configured } = this.#keys;
    const name = old?.provider ?? this.#name;
    const { keys, providers, jwe } = parseRecipients(texts);
    const own = new Map(keys.length === 0 ? [] : [[name, [...keys]]]);
    const wrappers: LayerKeyWrapper[] = [];
    for (const [provider, values] of providers) {
      const other = configured.get(provider);
      if (other !== undefined) {
        wrappers.push(createProviderWrapper(provider, values, callOfConfigured(other)));
      } else if (provider === name) {
        own.set(name, [...(own.get(name) ?? []), ...values]);
      } else {
        throw new OcicryptError('configuration', `no key provider ${showValue(provider)} is configured`, {
          hint: 'OCICRYPT_KEYPROVIDER_CONFIG must name a file that has it',
        });
      }
    }
    for (const [provider, values] of own) wrappers.unshift(this.providerWrapper(provider, values, old?.labels));
    if (jwe.length > 0) wrappers.push(await createJweWrapper(jwe));
    return wrappers;
  }

  /** Our own provider under a name of the caller's choice. */
  providerWrapper(name: string, keys: readonly string[], labels?: Labels): LayerKeyWrapper {
    const { options } = this.#keys;
    // What is named here is the operator's own word: an endpoint or module in it counts.
    const uris = keys
      .map(asKeyUri)
      .filter((uri) => uri !== undefined)
      .filter(hasOperatorParts);
    const named = uris.map((uri): AllowRule => ({ kind: 'key', uri }));
    const call = callOf({ ...options, rules: [...named, ...options.rules], labels: labels ?? options.labels });
    return createProviderWrapper(name, keys, call);
  }

  /**
   * What opens layer keys: the private keys given, our own provider, then those that are configured.
   *
   * @param parameters what a client named for providers, ours among them
   */
  unwrapper(parameters?: ProviderParameters): LayerKeyUnwrapper {
    const { own, configured } = this.holders(parameters);
    return createUnwrapper([...own, ...configured.values()], `name a key that can open it with ${setting('keys')}`);
  }

  /** The same, one by one. */
  holders(parameters: ProviderParameters = {}): Holders {
    const { options, configured, jwe, parameters: theirs } = this.#keys;
    const own = createProviderHolder(undefined, parameters, callOf(options));
    const others = [...configured].map(([name, provider]): [string, KeyHolder] => [
      name,
      createProviderHolder(new Set([name]), { ...parameters, ...theirs }, callOfConfigured(provider)),
    ]);
    return { own: jwe.length === 0 ? [own] : [createJweHolder(jwe), own], configured: new Map(others) };
  }

  /** What opens layer keys with one key and no other. */
  singleUnwrapper(rule: AllowRule): LayerKeyUnwrapper {
    const { options } = this.#keys;
    return createUnwrapper([createProviderHolder(undefined, {}, callOf({ ...options, rules: [rule] }))], '');
  }

  /** What opens layer keys with one of these keys alone; where none of them is meant, with any key of the ring. */
  unwrapperFor(keys: readonly KnownKey[]): (key: string | undefined) => LayerKeyUnwrapper {
    const all = this.unwrapper();
    const single = new Map<string | undefined, LayerKeyUnwrapper>(
      keys.map(({ known, rule }) => [known, this.singleUnwrapper(rule)]),
    );
    return (key) => single.get(key) ?? all;
  }

  /** What a key file holds, as packets know it, and the rule that allows the file. */
  async findFile(uri: KeyFileUri): Promise<KnownKey> {
    const { options } = this.#keys;
    if ('path' in uri) return { known: (await options.openKek(uri)).key, rule: { kind: 'key', uri } };
    const known = formatKeyUri(uri);
    for (const rule of options.rules)
      if ((await selectKeyfile(rule, { key: known }, options)) !== undefined) return { known, rule };
    return { known, rule: { kind: 'key', uri } };
  }

  close(): Promise<void> {
    return this.#keys.close();
  }
}

/**
 * The URI by which packets know a key, and the rule that allows it: a key file is known by what it holds, which only
 * opening it tells.
 *
 * @param open is called for a key file alone
 * @throws OcicryptError `bad-input`, `configuration`, `not-found`
 */
export async function resolveKey(text: string, open: () => Promise<KeyRing>): Promise<KnownKey> {
  const rule = parseAllowRule(text);
  if (rule.kind === 'prefix' || rule.uri.scheme !== 'keyfile') return { known: text, rule };
  return (await open()).findFile(rule.uri);
}

/** Our own provider as what answers a request. */
function callOf(options: ProviderOptions): ProviderCall {
  const provider = createProvider(options);
  const caller = `uid:${process.getuid?.()} pid:${process.pid}`;
  return (request, _operation, signal) => provider.handle(request, { caller, signal });
}

/** The code of other providers is loaded when one is asked. */
function callOfConfigured(provider: () => ConfiguredProvider): ProviderCall {
  return async (...request) => {
    const { createConfiguredCall } = await import('./configured.ts');
    return createConfiguredCall(provider())(...request);
  };
}
