// The composition root of the image commands: settings in; places, recipients and what can open layer keys out.

import { checkedEnvironment } from '../../base/environment.ts';
import { OcicryptError } from '../../base/errors.ts';
import { asKeyUri, formatKeyUri } from '../../base/key-uri.ts';
import { showValue } from '../../base/shown.ts';
import { createConfiguredCall } from '../../client/configured.ts';
import { createUnwrapper } from '../../client/holders.ts';
import { createJweWrapper } from '../../client/jwe.ts';
import type { LayerKeyUnwrapper, LayerKeyWrapper } from '../../client/layer-keys.ts';
import { createProviderHolder, createProviderWrapper } from '../../client/provider.ts';
import { parseRecipients, readRecipientsFile } from '../../client/recipients.ts';
import { digestInName } from '../../image/model/digest-tag.ts';
import { parseImageReference } from '../../image/model/reference.ts';
import { openImageSource, openImageStore } from '../../image/transports/open.ts';
import type { RegistrySettings } from '../../image/transports/registry/client.ts';
import type { ImageSource, ImageStore } from '../../image/transports/store.ts';
import type { Labels } from '../../provider/labels.ts';
import { type AllowRule, hasOperatorParts, parseAllowRule } from '../../provider/policy.ts';
import type { CommandContext } from '../command.ts';
import type { Settings } from '../options/settings.ts';
import { callOf, createHolders, type Holders, type Keys, NO_HOLDER, openKeys } from './keys.ts';

/** What an image command has open; all of it is closed when the command ends. */
export class ImageTools {
  readonly #context: CommandContext;
  readonly #cleanups: (() => Promise<void>)[] = [];
  #keys: Promise<Keys> | undefined;

  constructor(context: CommandContext) {
    this.#context = context;
  }

  /**
   * An image to read.
   *
   * @param use `inspect` where only manifests and configs are read
   * @throws OcicryptError `usage`
   */
  source(text: string | undefined, use: 'copy' | 'inspect' = 'inspect'): ImageSource {
    return this.#closing(openImageSource(parseImageReference(text ?? ''), this.#registry(), use));
  }

  /** An image to write; a name that holds a digest cannot stand for another image. @throws OcicryptError `usage` */
  store(text: string | undefined): ImageStore {
    const image = parseImageReference(text ?? '');
    if (image.transport === 'docker' && digestInName(image) !== undefined) {
      throw new OcicryptError('usage', `${text} names a digest, and the new image has another`, {
        hint: 'name the image to write by a tag',
      });
    }
    const digestTag = this.#context.settings.switch('digest-tag');
    return this.#closing(openImageStore(image, { ...this.#registry(), digestTag }));
  }

  /** Where an image comes from and where it goes; in place, which one must know to replace it, they are one. */
  between(from: string | undefined, to: string | undefined): { source: ImageSource; destination: ImageStore } {
    const destination = this.store(to);
    return { source: from === to ? destination : this.source(from, 'copy'), destination };
  }

  /**
   * What wraps for these recipients.
   *
   * @param old what new packets take over from those that the image has
   */
  async wrappers(texts: readonly string[], old?: PacketStyle): Promise<readonly LayerKeyWrapper[]> {
    const { name: usual, configured } = await this.#open();
    const name = old?.provider ?? usual;
    const { keys, providers, jwe } = parseRecipients(texts);
    const own = new Map(keys.length === 0 ? [] : [[name, [...keys]]]);
    const wrappers: LayerKeyWrapper[] = [];
    for (const [provider, values] of providers) {
      const other = configured.get(provider);
      if (other !== undefined) {
        wrappers.push(createProviderWrapper(provider, values, createConfiguredCall(other())));
      } else if (provider === name) {
        own.set(name, [...(own.get(name) ?? []), ...values]);
      } else {
        throw new OcicryptError('configuration', `no key provider ${showValue(provider)} is configured`, {
          hint: 'OCICRYPT_KEYPROVIDER_CONFIG must name a file that has it',
        });
      }
    }
    for (const [provider, values] of own) wrappers.unshift(await this.providerWrapper(provider, values, old?.labels));
    if (jwe.length > 0) wrappers.push(await createJweWrapper(jwe));
    return wrappers;
  }

  /** Our own provider under a name of the caller's choice. */
  async providerWrapper(name: string, keys: readonly string[], labels?: Labels): Promise<LayerKeyWrapper> {
    const { options } = await this.#open();
    // What is named here is the operator's own word: an endpoint or module in it counts.
    const uris = keys
      .map(asKeyUri)
      .filter((uri) => uri !== undefined)
      .filter(hasOperatorParts);
    const named = uris.map((uri): AllowRule => ({ kind: 'key', uri }));
    const call = callOf({ ...options, rules: [...named, ...options.rules], labels: labels ?? options.labels });
    return createProviderWrapper(name, keys, call);
  }

  /** What opens layer keys: the private keys given, our own provider, then those that are configured. */
  async unwrapper(): Promise<LayerKeyUnwrapper> {
    const { own, configured } = await this.holders();
    return createUnwrapper([...own, ...configured.values()], NO_HOLDER);
  }

  /** The same, one by one. `named` says whether the settings name any key of our own. */
  async holders(): Promise<Holders & { readonly named: boolean }> {
    const keys = await this.#open();
    return { ...createHolders(keys), named: keys.options.rules.length > 0 };
  }

  /** What opens layer keys with one key and no other. */
  async singleUnwrapper(rule: AllowRule): Promise<LayerKeyUnwrapper> {
    const { options } = await this.#open();
    return createUnwrapper([createProviderHolder(undefined, {}, callOf({ ...options, rules: [rule] }))], '');
  }

  /**
   * The URI by which packets know a key, and the rule that allows it: a key file is known by what it holds, which only
   * opening it tells.
   */
  async resolveKey(text: string): Promise<{ readonly known: string; readonly rule: AllowRule }> {
    const rule = parseAllowRule(text);
    if (rule.kind === 'prefix') return { known: text, rule };
    const { options } = await this.#open();
    if (rule.uri.scheme !== 'keyfile') return { known: text, rule };
    if ('path' in rule.uri) return { known: (await options.openKek(rule.uri)).key, rule };
    const known = formatKeyUri(rule.uri);
    for (const other of options.rules) {
      if (other.kind !== 'key' || other.uri.scheme !== 'keyfile' || !('path' in other.uri)) continue;
      if ((await options.openKek(other.uri)).key === known) return { known, rule: other };
    }
    return { known, rule };
  }

  async close(): Promise<void> {
    for (const cleanup of this.#cleanups.reverse()) await cleanup().catch(() => undefined);
  }

  #closing<Place extends ImageSource>(place: Place): Place {
    this.#cleanups.push(() => place.close());
    return place;
  }

  #registry(): RegistrySettings {
    const { settings } = this.#context;
    return {
      caFiles: settings.list('ca'),
      authFile: settings.text('authfile'),
      environment: checkedEnvironment(process.env),
    };
  }

  #open(): Promise<Keys> {
    this.#keys ??= this.#openKeys();
    return this.#keys;
  }

  async #openKeys(): Promise<Keys> {
    const keys = await openKeys(this.#context);
    this.#cleanups.push(keys.close);
    return keys;
  }
}

/** What packets of one image have in common: the name of the provider that its clients ask, and labels. */
export type PacketStyle = { readonly provider: string | undefined; readonly labels: Labels };

/** The recipients that `--recipient` and `--recipients-file` name. */
export async function namedRecipients(settings: Settings): Promise<readonly string[]> {
  const files = await Promise.all(settings.list('recipients-file').map(readRecipientsFile));
  return [...settings.list('recipient'), ...files.flat()];
}
