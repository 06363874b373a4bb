// The command that shows who can open what in an image.

import { printable } from '../../base/shown.ts';
import { type ImageReport, type InspectedLayer, type InspectedPlatform, inspectImage } from '../../image/inspect.ts';
import type { PacketDescription, PacketRecipient } from '../../image/model/packets.ts';
import { showLabels } from '../../provider/labels.ts';
import type { CommandContext } from '../command.ts';
import { asciiJson, count, formatSize } from '../text.ts';
import { runOnImage } from './run.ts';

/** Prints what the image's manifests claim. */
export async function runInspect(context: CommandContext): Promise<void> {
  const { settings, terminal } = context;
  const report = await runOnImage(context, ({ tools, signal }) =>
    inspectImage(tools.source(settings.operands[0]), signal),
  );
  terminal.write(settings.switch('json') ? `${asciiJson(report, 2)}\n` : showReport(report));
}

/** The report as text; every text of the image's own is made harmless. */
export function showReport(report: ImageReport): string {
  const { name, digest, platforms, attachments, unknown, absent } = report;
  const parts = [
    count(platforms.length, 'platform'),
    ...(attachments.length > 0 ? [count(attachments.length, 'attachment')] : []),
  ];
  const lines = [
    `${name}  ${digest}  ${parts.join(', ')}`,
    ...platforms.flatMap(showPlatform),
    ...absent.map(({ digest: own, platform }) => `\n${platform}  ${own}  not here`),
    ...unknown.map(({ digest: own, mediaType }) => `\nof an unknown type or digest, not read: ${mediaType}  ${own}`),
    ...attachments.map(({ digest: own, artifactType }) => `\nbeside it, not encrypted: ${artifactType}  ${own}`),
  ];
  return `${lines.map(printable).join('\n')}\n`;
}

function showPlatform({ platform, digest, layers }: InspectedPlatform): readonly string[] {
  return ['', `${platform}  ${digest}`, ...layers.flatMap((layer, index) => showLayer(layer, index))];
}

function showLayer(layer: InspectedLayer, index: number): readonly string[] {
  const { size, mediaType, encrypted, cipher, keys, problem } = layer;
  const state = encrypted ? (problem === undefined ? (cipher ?? '') : `makes no sense: ${problem}`) : 'PLAIN';
  const head = `  ${String(index).padEnd(3)} ${formatSize(size).padStart(10)}  ${shortType(mediaType).padEnd(10)} ${state}`;
  return [head, ...keys.flatMap(showPacket)];
}

function showPacket({ scheme, format, recipients, labels, problem }: PacketDescription): readonly string[] {
  const shownLabels = Object.keys(labels).length === 0 ? [] : [showLabels(labels)];
  const head = `      ${[`${scheme} (${format})`, ...shownLabels].join('  ')}`;
  if (problem !== undefined) return [`${head}  cannot be read: ${problem}`];
  return [head, ...recipients.map(showRecipient)];
}

function showRecipient({ key, version, algorithm, postQuantum }: PacketRecipient): string {
  const name = key ?? 'an unnamed recipient';
  const parts = [
    name.length > 300 ? `${name.slice(0, 60)}…` : name,
    ...(version === undefined ? [] : [`version ${version}`]),
    ...(algorithm === undefined ? [] : [algorithm]),
    ...(postQuantum ? [] : ['not post-quantum']),
  ];
  return `        ${parts.join('  ')}`;
}

/** `tar+gzip` of the long name, without the word that the next column says. */
function shortType(mediaType: string): string {
  return mediaType
    .replace(/^application\/vnd\.(?:oci\.image\.layer\.(?:nondistributable\.)?v1|docker\.image\.rootfs\.diff)\./, '')
    .replace(/\+encrypted$/, '');
}
