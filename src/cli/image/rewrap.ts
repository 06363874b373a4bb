// The command that changes who can open an image.

import { printable } from '../../base/shown.ts';
import type { PacketDescription } from '../../image/model/packets.ts';
import { type RewrappedImage, rewrapTree } from '../../image/rewrap.ts';
import { checkChange, planRewrap } from '../../image/rewrap-plan.ts';
import type { CommandContext } from '../command.ts';
import type { Terminal } from '../terminal.ts';
import { shortDigest } from '../text.ts';
import { warnOfClassic } from './recipient-warning.ts';
import { adviseSigning, nameResult, platformNames, printResult, runOnImage } from './run.ts';
import { namedRecipients } from './setup.ts';

/** Prints the digest of the changed image, and on standard error what changed. */
export async function runRewrap(context: CommandContext): Promise<void> {
  const { settings, terminal } = context;
  const [image] = settings.operands;
  const change = checkChange({
    recipients: await namedRecipients(settings),
    add: settings.list('add'),
    remove: settings.list('remove'),
  });
  const style = { labels: settings.pairs('context'), provider: settings.text('provider') };
  const platforms = platformNames(settings);
  const dryRun = settings.switch('dry-run');
  await runOnImage(
    context,
    async ({ tools, signal, onSwitch }) => {
      const store = tools.store(image);
      const { keys, tree } = await planRewrap(store, await tools.keys(), change, { ...style, ...platforms }, signal);
      return rewrapTree(store, tree, { keys, ...platforms, dryRun, onSwitch, signal });
    },
    async (written) => {
      const result = nameResult(context, image, written);
      await printResult(context, result);
      describeChange(terminal, result);
      warnOfClassic(
        terminal,
        result.layers.flatMap(({ after }) => after),
      );
      if (dryRun) return terminal.say('nothing was written: --dry-run', 'advice');
      adviseSigning(terminal, image, result);
      terminal.say(
        `no access was revoked: ${result.previousDigest} can still be pulled, and everybody who once obtained a layer key keeps it; after a leak, encrypt again`,
        'advice',
      );
    },
  );
}

/** Layers that change alike, as those of one image mostly do, are said together. */
function describeChange(terminal: Terminal, { layers }: RewrappedImage): void {
  const changes = Map.groupBy(layers, ({ before, after }) => changeOf(namesOf(before), namesOf(after)).join('\n'));
  for (const [change, alike] of changes) {
    terminal.say(`layer ${alike.map(({ digest }) => shortDigest(digest)).join(', ')}`, 'advice');
    for (const line of change.split('\n')) terminal.say(`  ${line}`, 'advice');
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
