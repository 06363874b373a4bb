// The command that changes who can open an image.

import { OcicryptError } from '../../base/errors.ts';
import { providerOf } from '../../client/layer-keys.ts';
import { reportOf } from '../../image/inspect.ts';
import type { PacketDescription, PacketFormat } from '../../image/model/packets.ts';
import {
  addKeys,
  type LayerKeyRewrapper,
  type RewrappedImage,
  removeKeys,
  replaceKeys,
  rewrapImage,
} from '../../image/rewrap.ts';
import type { ImageSource } from '../../image/transports/store.ts';
import { readImageTree, selectPlatforms } from '../../image/tree.ts';
import { createRecipientMatcher } from '../../image/verify.ts';
import { type Labels, showLabels } from '../../provider/labels.ts';
import type { CommandContext } from '../command.ts';
import type { Settings } from '../options/settings.ts';
import type { Terminal } from '../terminal.ts';
import { printable, shortDigest } from '../text.ts';
import { warnOfClassic } from './recipient-warning.ts';
import { adviseSigning, nameResult, platformNames, printResult, runOnImage } from './run.ts';
import { type ImageTools, namedRecipients, type PacketStyle } from './setup.ts';

/** Prints the digest of the changed image, and on standard error what changed. */
export async function runRewrap(context: CommandContext): Promise<void> {
  const { settings, terminal } = context;
  const [image] = settings.operands;
  const recipients = await namedRecipients(settings);
  const operations = [recipients, settings.list('add'), settings.list('remove')].filter(({ length }) => length > 0);
  if (operations.length !== 1) {
    throw new OcicryptError('usage', 'rewrap takes one of --recipient, --add and --remove', {
      hint: 'each may be given several times; run rewrap once for each change',
    });
  }
  const dryRun = settings.switch('dry-run');
  await runOnImage(
    context,
    async ({ tools, signal, onSwitch }) => {
      const store = tools.store(image);
      return rewrapImage(store, {
        keys: await rewrapper(tools, settings, recipients, await styleOf(store, settings, signal)),
        ...platformNames(settings),
        dryRun,
        onSwitch,
        signal,
      });
    },
    async (written) => {
      const result = nameResult(context, image, written);
      await printResult(context, result);
      describeChange(terminal, result);
      warnOfClassic(
        terminal,
        result.layers.flatMap(({ after }) => after),
      );
      if (dryRun) return terminal.say('nothing was written: --dry-run');
      adviseSigning(terminal, image, result);
      terminal.say(
        `no access was revoked: ${result.previousDigest} can still be pulled, and everybody who once obtained a layer key keeps it; after a leak, encrypt again`,
      );
    },
  );
}

async function rewrapper(
  tools: ImageTools,
  settings: Settings,
  recipients: readonly string[],
  style: PacketStyle,
): Promise<LayerKeyRewrapper> {
  const unwrapper = await tools.unwrapper();
  if (recipients.length > 0) return replaceKeys(unwrapper, await tools.wrappers(recipients, style));
  const added = settings.list('add');
  if (added.length > 0) return addKeys(unwrapper, await tools.wrappers(added, style));

  const removed = settings.list('remove');
  const schemes = new Set(removed.filter(isScheme).map((text) => text.replace(':', '.')));
  const keys = await Promise.all(removed.filter((text) => !isScheme(text)).map((text) => tools.resolveKey(text)));
  const matchers = keys.map(({ known }) => createRecipientMatcher(known));
  return removeKeys(
    unwrapper,
    (recipient, scheme) => schemes.has(scheme) || matchers.some((matches) => matches(recipient)),
    (scheme, staying) => {
      const name = providerOf(scheme);
      if (name === undefined) {
        throw new OcicryptError('bad-input', `one recipient of a ${scheme} key cannot be removed`, {
          hint: 'name all recipients that are to stay with --recipient',
        });
      }
      return tools.providerWrapper(name, staying, style.labels);
    },
  );
}

function isScheme(text: string): boolean {
  return /^(?:jwe|pgp|pkcs7|provider:[^:]+)$/.test(text);
}

/**
 * New packets keep the labels of the old ones and stand under the same provider's name, unless the settings say others:
 * clients that demand the labels, or know the provider by this name alone, would refuse the image otherwise.
 */
async function styleOf(source: ImageSource, settings: Settings, signal: AbortSignal): Promise<PacketStyle> {
  const [labels, provider] = [settings.pairs('context'), settings.text('provider')];
  if (labels !== undefined && provider !== undefined) return { labels, provider };
  const packets = await packetsOf(source, settings.list('platform'), signal);
  return { labels: labels ?? commonLabels(packets), provider: provider ?? commonProvider(packets) };
}

async function packetsOf(
  source: ImageSource,
  names: readonly string[],
  signal: AbortSignal,
): Promise<readonly PacketDescription[]> {
  const tree = await readImageTree(source, signal);
  const selected = new Set(selectPlatforms(tree, names, source.name).map(({ stored }) => stored.digest));
  const platforms = reportOf(source.name, tree).platforms.filter(({ digest }) => selected.has(digest));
  return platforms.flatMap(({ layers }) => layers.flatMap(({ keys }) => keys));
}

function commonLabels(packets: readonly PacketDescription[]): Labels {
  const found = new Map(
    packets.filter(({ format }) => format === 'v2').map(({ labels }) => [showLabels(labels), labels]),
  );
  if (found.size > 1) {
    throw new OcicryptError('usage', 'the layers of this image have different labels', {
      hint: `give one of them with --context: ${[...found.keys()].slice(0, 4).map(printable).join(' | ')}`,
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
      hint: `say whose clients are to open it, with --provider: ${names.slice(0, 4).map(printable).join(' | ')}`,
    });
  }
  return names[0];
}

/** Layers that change alike, as those of one image mostly do, are said together. */
function describeChange(terminal: Terminal, { layers }: RewrappedImage): void {
  const changes = Map.groupBy(layers, ({ before, after }) => changeOf(namesOf(before), namesOf(after)).join('\n'));
  for (const [change, alike] of changes) {
    terminal.say(`layer ${alike.map(({ digest }) => shortDigest(digest)).join(', ')}`);
    for (const line of change.split('\n')) terminal.say(`  ${line}`);
  }
}

function changeOf(old: ReadonlySet<string>, now: ReadonlySet<string>): readonly string[] {
  const lines = [
    ...[...now].filter((name) => !old.has(name)).map((name) => `+ ${name}`),
    ...[...old].filter((name) => !now.has(name)).map((name) => `- ${name}`),
    ...[...now].filter((name) => old.has(name)).map((name) => `  ${name}`),
  ];
  return lines.map(printable);
}

function namesOf(packets: readonly PacketDescription[]): ReadonlySet<string> {
  return new Set(
    packets.flatMap(({ scheme, format, recipients }) =>
      recipients.length === 0
        ? [`${scheme} (${format})`]
        : recipients.map(({ key }) => `${scheme} (${format}) ${key ?? 'an unnamed recipient'}`),
    ),
  );
}
