// Says how each layer's wrapped keys are to change: recipients replaced, added or removed, in the style of the image.

import { OcicryptError } from '../base/errors.ts';
import { setting } from '../base/setting.ts';
import { type KeyRing, type PacketStyle, resolveKey } from '../client/key-ring.ts';
import { providerOf } from '../client/layer-keys.ts';
import { type Labels, showLabels } from '../provider/labels.ts';
import { reportOf } from './inspect.ts';
import type { PacketDescription, PacketFormat } from './model/packets.ts';
import { addKeys, type LayerKeyRewrapper, removeKeys, replaceKeys } from './rewrap.ts';
import type { ImageSource } from './transports/store.ts';
import { type ImageNode, readImageTree, selectPlatforms } from './tree.ts';
import { createRecipientMatcher } from './verify.ts';

/** Recipients as users write them; one of the three lists has any. */
export type RecipientChange = {
  /** In place of all. */
  readonly recipients?: readonly string[] | undefined;
  /** Beside those that are there. */
  readonly add?: readonly string[] | undefined;
  /** Keys that packets know, or `jwe`, `pgp`, `pkcs7` or `provider:NAME` for all packets of that kind. */
  readonly remove?: readonly string[] | undefined;
};

/** @throws OcicryptError `usage` unless there is one change */
export function checkChange(change: RecipientChange): RecipientChange {
  const { recipients = [], add = [], remove = [] } = change;
  if ([recipients, add, remove].filter(({ length }) => length > 0).length === 1) return change;
  throw new OcicryptError(
    'usage',
    `rewrap takes one of ${setting('recipients')}, ${setting('add')} and ${setting('remove')}`,
    {
      hint: 'each may be given several times; run rewrap once for each change',
    },
  );
}

/** What new packets are to be like, as far as they are not to be like those of the image. */
export type RewrapStyle = PacketStyle & {
  /** Whose packets are looked at; all if it is left out. */
  readonly platforms?: readonly string[] | undefined;
};

/** How wrapped keys change, and the image's manifests, which were read for it. */
export type RewrapPlan = { readonly keys: LayerKeyRewrapper; readonly tree: ImageNode };

/**
 * @throws OcicryptError `usage` if the layers differ in what new packets would take over from them; what naming
 *   recipients and reading manifests throws
 */
export async function planRewrap(
  source: ImageSource,
  ring: KeyRing,
  change: RecipientChange,
  wanted: RewrapStyle,
  signal?: AbortSignal,
): Promise<RewrapPlan> {
  const { labels, provider } = wanted;
  // What was named is judged before anything is read.
  if (labels !== undefined && provider !== undefined) {
    const keys = await rewrapperFor(ring, change, { labels, provider });
    return { keys, tree: await readImageTree(source, signal) };
  }
  const tree = await readImageTree(source, signal);
  const packets = packetsOf(tree, source.name, wanted.platforms ?? []);
  const style = { labels: labels ?? commonLabels(packets), provider: provider ?? commonProvider(packets) };
  return { keys: await rewrapperFor(ring, change, style), tree };
}

async function rewrapperFor(
  ring: KeyRing,
  { recipients = [], add = [], remove = [] }: RecipientChange,
  style: PacketStyle,
): Promise<LayerKeyRewrapper> {
  const unwrapper = ring.unwrapper();
  if (recipients.length > 0) return replaceKeys(unwrapper, await ring.wrappers(recipients, style));
  if (add.length > 0) return addKeys(unwrapper, await ring.wrappers(add, style));

  const schemes = new Set(remove.filter(isScheme).map((text) => text.replace(':', '.')));
  const named = remove.filter((text) => !isScheme(text));
  const keys = await Promise.all(named.map((text) => resolveKey(text, async () => ring)));
  const matchers = keys.map(({ known }) => createRecipientMatcher(known));
  return removeKeys(
    unwrapper,
    (recipient, scheme) => schemes.has(scheme) || matchers.some((matches) => matches(recipient)),
    (scheme, staying) => {
      const name = providerOf(scheme);
      if (name === undefined) {
        throw new OcicryptError('bad-input', `one recipient of a ${scheme} key cannot be removed`, {
          hint: `name all recipients that are to stay with ${setting('recipients')}`,
        });
      }
      return ring.providerWrapper(name, staying, style.labels);
    },
  );
}

function isScheme(text: string): boolean {
  return /^(?:jwe|pgp|pkcs7|provider:[^:]+)$/.test(text);
}

/**
 * The packets that new ones take after: they keep their labels and stand under the same provider's name, unless others
 * are asked for. Clients that demand the labels, or know the provider by this name alone, would refuse the image otherwise.
 */
function packetsOf(tree: ImageNode, image: string, names: readonly string[]): readonly PacketDescription[] {
  const selected = new Set(selectPlatforms(tree, names, image).map(({ stored }) => stored.digest));
  const platforms = reportOf(image, tree).platforms.filter(({ digest }) => selected.has(digest));
  return platforms.flatMap(({ layers }) => layers.flatMap(({ keys }) => keys));
}

function commonLabels(packets: readonly PacketDescription[]): Labels {
  const found = new Map(
    packets.filter(({ format }) => format === 'v2').map(({ labels }) => [showLabels(labels), labels]),
  );
  if (found.size > 1) {
    throw new OcicryptError('usage', 'the layers of this image have different labels', {
      hint: `give one of them with ${setting('labels')}: ${[...found.keys()].slice(0, 4).join(' | ')}`,
    });
  }
  return [...found.values()][0] ?? {};
}

/** Packets that a provider like ours may have made: those of others stand under names that only they answer to. */
const OUR_FORMATS: ReadonlySet<PacketFormat> = new Set(['v1', 'v2', 'aws-kms-ocicrypt']);

function commonProvider(packets: readonly PacketDescription[]): string | undefined {
  const ours = packets.filter(({ format }) => OUR_FORMATS.has(format));
  const names = [...new Set(ours.flatMap(({ scheme }) => providerOf(scheme) ?? []))];
  if (names.length > 1) {
    throw new OcicryptError('usage', 'this image has keys for several providers', {
      hint: `say whose clients are to open it, with ${setting('provider')}: ${names.slice(0, 4).join(' | ')}`,
    });
  }
  return names[0];
}
