// The library for the common case: keys in; images encrypted, decrypted, rewrapped, inspected and verified with them.

import { checkedEnvironment } from '../base/environment.ts';
import { OcicryptError } from '../base/errors.ts';
import { KeyRing, resolveKey } from '../client/key-ring.ts';
import { readProviderConfig } from '../client/provider-config.ts';
import { type SortedKeys, sortKeys } from '../client/recipients.ts';
import type { BackendSettings } from '../kms/open.ts';
import type { OwnSchemes } from '../kms/own.ts';
import { createKekStore } from '../kms/store.ts';
import type { AuditSink } from '../provider/audit.ts';
import type { ProviderOptions } from '../provider/handle.ts';
import type { Labels } from '../provider/labels.ts';
import { USUAL_NAMES } from '../provider/parameters.ts';
import { type AllowRule, parseAllowRule } from '../provider/policy.ts';
import { type DecryptOptions, decryptImage } from './decrypt.ts';
import { type EncryptedImage, type EncryptOptions, encryptImage } from './encrypt.ts';
import { type ImageReport, inspectImage } from './inspect.ts';
import { parseImageReference } from './model/reference.ts';
import type { WrittenImage } from './result.ts';
import { type RewrapOptions, type RewrappedImage, rewrapTree } from './rewrap.ts';
import { checkChange, planRewrap, type RecipientChange } from './rewrap-plan.ts';
import { openImageSource, openImageStore } from './transports/open.ts';
import type { RegistrySettings } from './transports/registry/client.ts';
import type { ImageSource } from './transports/store.ts';
import { notVerified, type Verification, type VerifyOptions, verifyImage } from './verify.ts';

/** What an {@link ImageKeys} is made with, beside its keys. All of it may be left out. */
export type ImageKeysOptions = {
  /** Where credentials and addresses of key services and registries are found; the process's environment by default. */
  readonly environment?: NodeJS.ProcessEnv;
  /** Settings of single key services, where the environment does not say them. */
  readonly backends?: ServiceSettings;
  /** What opens keys of schemes of your own, as in `{ 'x-acme': open }`. */
  readonly own?: OwnSchemes;
  /** How registries are reached, and with which logins. */
  readonly registry?: RegistrySettings;
  /** The name by which clients of the images know the provider: `kmscrypt` by default. */
  readonly provider?: string;
  /** Public names and values that new packets are bound to, and that packets must carry to be opened. */
  readonly labels?: Labels;
  /** Gets a line for each wrapped and unwrapped layer key; a key whose line it does not take is not released. */
  readonly audit?: AuditSink;
};

/** Each service's settings, of which none must be given. */
export type ServiceSettings = {
  readonly [Name in Exclude<keyof BackendSettings, 'own'>]?: Partial<NonNullable<BackendSettings[Name]>>;
};

/** What concerns the place that is written, in registries only. */
export type DigestTagOption = {
  /** Whether the image also gets a tag that is made of its digest, `digest-HEX`. */
  readonly digestTag?: boolean;
};

/** {@link ImageKeys.encrypt} */
export type EncryptImageOptions = Partial<Omit<EncryptOptions, 'recipients'>> &
  DigestTagOption & {
    /** Key URIs, `jwe:PUBLIC.pem` or `provider:NAME:VALUE`; by default the keys that were opened. */
    readonly recipients?: readonly string[];
  };

/** {@link ImageKeys.decrypt} */
export type DecryptImageOptions = Omit<DecryptOptions, 'keys'>;

/** {@link ImageKeys.rewrap}: one of `recipients`, `add` and `remove`, and how. */
export type RewrapImageOptions = RecipientChange & Omit<RewrapOptions, 'keys'> & DigestTagOption;

/** {@link ImageKeys.verify} */
export type VerifyImageOptions = Omit<VerifyOptions, 'unwrapper'> & {
  /** Whether each required key, or any if none is required, must really open each layer key. */
  readonly unwrap?: boolean;
};

/** Keys, and what can be done with them to images. Images are named as for the command: `oci:DIR:TAG`, `docker://…`. */
export interface ImageKeys {
  /**
   * Encrypts an image, by default all layers of all platforms to all keys. `to` may be `from`.
   *
   * @returns what was written; sign its `digest`
   * @throws OcicryptError as {@link encryptImage}; `to` then stands for what it stood for
   */
  encrypt(from: string, to: string, options?: EncryptImageOptions): Promise<EncryptedImage>;
  /**
   * Decrypts an image, all selected layers or none. `to` may be `from`.
   *
   * @throws OcicryptError as {@link decryptImage}; `to` then stands for what it stood for
   */
  decrypt(from: string, to: string, options?: DecryptImageOptions): Promise<WrittenImage>;
  /**
   * Changes who can open an image, in place. Layers stay as they are, and so do labels and the name of the provider.
   *
   * @throws OcicryptError as {@link rewrapImage}, and `usage` unless one of `recipients`, `add` and `remove` is given
   */
  rewrap(image: string, options: RewrapImageOptions): Promise<RewrappedImage>;
  /** Says who can open what, as manifests claim it. No key is used. @throws OcicryptError as {@link inspectImage} */
  inspect(image: string, signal?: AbortSignal): Promise<ImageReport>;
  /**
   * Resolves only if the image is encrypted as it should be.
   *
   * @returns what was proved and what was not
   * @throws OcicryptError `integrity` if it is not, with the first reason; else as {@link verifyImage}, which returns the
   *   verdict whatever it is
   */
  verify(image: string, options?: VerifyImageOptions): Promise<Verification>;
  /** Ends connections and wipes key material. */
  close(): Promise<void>;
}

/**
 * Opens keys for work on images. Nothing but files of keys is looked at before a key is needed, and no key but these
 * opens anything, whatever an image asks for.
 *
 * @param keys key URIs, key files, identity files of age, private keys in PEM, `provider:NAME[:VALUE]`
 * @throws OcicryptError `bad-input` for a key URI that is none
 * @example
 * const keys = await openImageKeys(['gcpkms://projects/acme/locations/global/keyRings/images/cryptoKeys/app']);
 * const { digest } = await keys.encrypt('oci:app:latest', 'docker://registry.example/app:1');
 * await keys.verify('docker://registry.example/app:1', { unwrap: true });
 * await keys.close();
 */
export async function openImageKeys(keys: readonly string[], options: ImageKeysOptions = {}): Promise<ImageKeys> {
  const sorted = await sortKeys(keys);
  const environment = checkedEnvironment(options.environment ?? process.env);
  const store = createKekStore(backendSettings(sorted, environment, options));
  const rules = [
    ...sorted.keys.map(parseAllowRule),
    ...sorted.files.map((path): AllowRule => ({ kind: 'key', uri: { scheme: 'keyfile', path } })),
  ];
  const provider: ProviderOptions = {
    openKek: (uri) => store.open(uri),
    rules,
    callerKeysAllowed: true,
    names: { configured: options.provider ?? USUAL_NAMES[0], fallback: USUAL_NAMES[0] },
    labels: options.labels,
    audit: options.audit,
  };
  const configured = await readProviderConfig(environment.OCICRYPT_KEYPROVIDER_CONFIG);
  const { jwe, parameters } = sorted;
  const ring = new KeyRing({ options: provider, configured, jwe, parameters, close: () => store.close() });
  return new RingKeys(ring, sorted, { environment, ...options.registry });
}

class RingKeys implements ImageKeys {
  readonly #ring: KeyRing;
  readonly #keys: SortedKeys;
  readonly #registry: RegistrySettings;

  constructor(ring: KeyRing, keys: SortedKeys, registry: RegistrySettings) {
    this.#ring = ring;
    this.#keys = keys;
    this.#registry = registry;
  }

  async encrypt(from: string, to: string, options: EncryptImageOptions = {}): Promise<EncryptedImage> {
    const { recipients, digestTag = false, ...rest } = options;
    const wrappers = await this.#ring.wrappers(recipients ?? (await this.#ownRecipients()));
    return this.#between(from, to, digestTag, (source, destination) =>
      encryptImage(source, destination, { ...rest, recipients: wrappers }),
    );
  }

  async decrypt(from: string, to: string, options: DecryptImageOptions = {}): Promise<WrittenImage> {
    const keys = this.#ring.unwrapper();
    return this.#between(from, to, false, (source, destination) =>
      decryptImage(source, destination, { ...options, keys }),
    );
  }

  async rewrap(image: string, options: RewrapImageOptions): Promise<RewrappedImage> {
    const { recipients, add, remove, digestTag = false, ...rest } = options;
    const change = checkChange({ recipients, add, remove });
    const store = openImageStore(parseImageReference(image), { ...this.#registry, digestTag });
    return using(store, async () => {
      const style = { labels: undefined, provider: undefined, platforms: rest.platforms };
      const { keys, tree } = await planRewrap(store, this.#ring, change, style, rest.signal);
      return rewrapTree(store, tree, { ...rest, keys });
    });
  }

  async inspect(image: string, signal?: AbortSignal): Promise<ImageReport> {
    const source = this.#source(image, 'inspect');
    return using(source, () => inspectImage(source, signal));
  }

  async verify(image: string, options: VerifyImageOptions = {}): Promise<Verification> {
    const { unwrap = false, require: required = [], only, ...rest } = options;
    const resolve = (key: string) => resolveKey(key, async () => this.#ring);
    const known = await Promise.all(required.map(resolve));
    const allowed = only && (await Promise.all(only.map(resolve))).map(({ known: key }) => key);
    const source = this.#source(image, 'inspect');
    const verification = await using(source, () =>
      verifyImage(source, {
        ...rest,
        require: known.map(({ known: key }) => key),
        only: allowed,
        unwrapper: unwrap || rest.content === true ? this.#ring.unwrapperFor(known) : undefined,
      }),
    );
    if (!verification.ok) throw notVerified(verification);
    return verification;
  }

  close(): Promise<void> {
    return this.#ring.close();
  }

  /** A key file goes by what it holds, since not every path fits into a URI. */
  async #ownRecipients(): Promise<readonly string[]> {
    const { keys, files, jwe, parameters } = this.#keys;
    if (jwe.length > 0 || Object.keys(parameters).length > 0 || keys.length + files.length === 0) {
      throw new OcicryptError('usage', 'the keys that were opened do not say for whom to encrypt', {
        hint: 'name recipients: encrypt(from, to, { recipients: [KEY] })',
      });
    }
    const held = await Promise.all(files.map((path) => this.#ring.findFile({ scheme: 'keyfile', path })));
    return [...keys, ...held.map(({ known }) => known)];
  }

  #source(image: string, use: 'copy' | 'inspect'): ImageSource {
    return openImageSource(parseImageReference(image), this.#registry, use);
  }

  /** In place, which one must know to replace it, they are one. */
  async #between<Result>(
    from: string,
    to: string,
    digestTag: boolean,
    work: (source: ImageSource, destination: ReturnType<typeof openImageStore>) => Promise<Result>,
  ): Promise<Result> {
    const destination = openImageStore(parseImageReference(to), { ...this.#registry, digestTag });
    return using(destination, async () => {
      if (from === to) return work(destination, destination);
      const source = this.#source(from, 'copy');
      return using(source, () => work(source, destination));
    });
  }
}

/** Closes the place after the work, which also removes what a failed run has begun. */
async function using<Result>(place: ImageSource, work: () => Promise<Result>): Promise<Result> {
  try {
    return await work();
  } finally {
    await place.close().catch(() => undefined);
  }
}

/** Every key service is found as its own tools find it. */
function backendSettings(
  { files }: SortedKeys,
  environment: NodeJS.ProcessEnv,
  { backends = {}, own = {} }: ImageKeysOptions,
): BackendSettings {
  return {
    age: { identityFiles: files, ...backends.age },
    awskms: { environment, ...backends.awskms },
    azurekms: { environment, ...backends.azurekms },
    gcpkms: { environment, ...backends.gcpkms },
    hashivault: { environment, ...backends.hashivault },
    kbs: { files: new Map(), ...backends.kbs },
    pkcs11: { environment, modules: [], ...backends.pkcs11 },
    own,
  };
}
