// The contracts of what wraps and unwraps layer keys for the image commands.

/** One wrapped layer key: `scheme` is `provider.NAME`, `jwe`, `pgp`, `pkcs7` or `pkcs11`; `packet` is what base64 held. */
export type WrappedLayerKey = { readonly scheme: string; readonly packet: Uint8Array };

const PROVIDER = 'provider.';

/** The provider that wraps keys of this scheme; undefined for schemes that are a way of encryption themselves. */
export function providerOf(scheme: string): string | undefined {
  return scheme.startsWith(PROVIDER) && scheme !== PROVIDER ? scheme.slice(PROVIDER.length) : undefined;
}

/** The scheme of keys that a provider wraps. */
export function providerScheme(name: string): string {
  return PROVIDER + name;
}

/** One kind of recipients of an image. */
export interface LayerKeyWrapper {
  /** What stands in the annotation's name: `provider.NAME`, `jwe`. */
  readonly scheme: string;
  /**
   * Wraps a layer-key record for all recipients of this kind, or throws.
   *
   * @param record the layer-key record, 193 bytes; holds the key and is wiped when the promise settles: not to be kept
   * @returns packets as they go into the annotation, before base64; at least one
   */
  wrap(record: Uint8Array, signal: AbortSignal): Promise<readonly Uint8Array[]>;
}

/** What can open layer keys. */
export interface LayerKeyUnwrapper {
  /**
   * Opens one of the keys, whichever it can.
   *
   * @param keys everything that the layer's annotations hold, hostile
   * @returns the layer-key record, which the caller wipes
   * @throws OcicryptError when none can be opened
   */
  unwrap(keys: readonly WrappedLayerKey[], signal: AbortSignal): Promise<Uint8Array>;
}
