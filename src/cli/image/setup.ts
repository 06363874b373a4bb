// The composition root of the image commands: settings in; places and keys out.

import { checkedEnvironment } from '../../base/environment.ts';
import type { KeyRing } from '../../client/key-ring.ts';
import { readRecipientsFile } from '../../client/recipients.ts';
import { parseImageReference } from '../../image/model/reference.ts';
import { openImageSource, openImageStore } from '../../image/transports/open.ts';
import type { RegistrySettings } from '../../image/transports/registry/client.ts';
import type { ImageSource, ImageStore } from '../../image/transports/store.ts';
import type { CommandContext } from '../command.ts';
import type { Settings } from '../options/settings.ts';
import { openKeys } from './keys.ts';

/** What an image command has open; all of it is closed when the command ends. */
export class ImageTools {
  readonly #context: CommandContext;
  readonly #cleanups: (() => Promise<void>)[] = [];
  #keys: Promise<KeyRing> | undefined;

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
    const digestTag = this.#context.settings.switch('digest-tag');
    return this.#closing(openImageStore(parseImageReference(text ?? ''), { ...this.#registry(), digestTag }));
  }

  /** Where an image comes from and where it goes; in place, which one must know to replace it, they are one. */
  between(from: string | undefined, to: string | undefined): { source: ImageSource; destination: ImageStore } {
    const destination = this.store(to);
    return { source: from === to ? destination : this.source(from, 'copy'), destination };
  }

  /** The keys that the settings name. @throws OcicryptError `usage`, `configuration`, `not-written` */
  keys(): Promise<KeyRing> {
    this.#keys ??= this.#openKeys();
    return this.#keys;
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

  async #openKeys(): Promise<KeyRing> {
    const keys = await openKeys(this.#context);
    this.#cleanups.push(() => keys.close());
    return keys;
  }
}

/** The recipients that `--recipient` and `--recipients-file` name. */
export async function namedRecipients(settings: Settings): Promise<readonly string[]> {
  const files = await Promise.all(settings.list('recipients-file').map(readRecipientsFile));
  return [...settings.list('recipient'), ...files.flat()];
}
