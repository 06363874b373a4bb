// The command that lets a build or an admission go on only with an image that is encrypted as it should be.

import { printable } from '../../base/shown.ts';
import { resolveKey } from '../../client/key-ring.ts';
import { digestTagCommand } from '../../image/model/digest-tag.ts';
import { type ImageReference, parseImageReference } from '../../image/model/reference.ts';
import { fixedNames, type RuntimeName } from '../../image/runtimes.ts';
import { notVerified, type Verification, verifyImage } from '../../image/verify.ts';
import type { CommandContext } from '../command.ts';
import type { Settings } from '../options/settings.ts';
import { asciiJson, count } from '../text.ts';
import { type ImageRun, runOnImage } from './run.ts';

/** Prints the verdict; an image that is not as it should be is a failure (76). */
export async function runVerify(context: CommandContext): Promise<void> {
  const { settings, terminal } = context;
  const verification = await runOnImage(context, (run) => verify(settings, run));
  const { ok, report } = verification;
  const image = parseImageReference(report.name);
  const deploy =
    ok && image.transport === 'docker' ? fixedNames(image, report.digest, settings.switch('digest-tag')) : [];
  const result = { ...verification, deploy };
  terminal.write(settings.switch('json') ? `${asciiJson(result, 2)}\n` : show(result));
  if (ok) return;
  throw notVerified(verification, hintFor(verification, image));
}

async function verify(settings: Settings, { tools, signal }: ImageRun): Promise<Verification> {
  const required = await Promise.all(settings.list('require').map((key) => resolveKey(key, () => tools.keys())));
  const only = await Promise.all(settings.list('only').map((key) => resolveKey(key, () => tools.keys())));
  const content = settings.switch('content');
  const unwrapper = content || settings.switch('unwrap') ? (await tools.keys()).unwrapperFor(required) : undefined;
  return verifyImage(tools.source(settings.operands[0]), {
    require: required.map(({ known }) => known),
    only: only.length === 0 ? undefined : only.map(({ known }) => known),
    content,
    digestTag: settings.switch('digest-tag'),
    allowAbsent: settings.switch('allow-absent'),
    postQuantum: settings.switch('post-quantum'),
    unwrapper,
    signal,
  });
}

/** A digest tag that is only missing can be made up for. */
function hintFor({ digestTag, reasons, report }: Verification, image: ImageReference): string | undefined {
  if (digestTag !== 'missing' || reasons.length > 1 || image.transport !== 'docker') return undefined;
  return `run ${digestTagCommand(image, report.digest)}`;
}

type VerifiedImage = Verification & { readonly deploy: readonly RuntimeName[] };

/** What each proof is for, and what gives it. */
const PROOFS = {
  keys: ['the layer keys were opened', 'that the keys open the layers (--unwrap)'],
  content: [
    'every layer is encrypted under its key',
    'that the layers are encrypted at all: clients without a key run plain ones of an encrypted type (--content)',
  ],
} as const;

function showProofs({ ok, notProved }: Verification): readonly string[] {
  if (!ok) return [];
  const proved = (['keys', 'content'] as const).filter((one) => !notProved.includes(one));
  return [
    ...(proved.length === 0 ? [] : [`      proved: ${proved.map((one) => PROOFS[one][0]).join('; ')}`]),
    ...(notProved.length === 0 ? [] : [`      not proved: ${notProved.map((one) => PROOFS[one][1]).join('; ')}`]),
  ];
}

function show(verification: VerifiedImage): string {
  const { ok, reasons, report, inClear, deploy } = verification;
  const { name, digest, platforms, attachments } = report;
  const layers = platforms.reduce((sum, platform) => sum + platform.layers.length, 0);
  const lines = ok
    ? [
        `ok    ${name}  ${digest}`,
        `      ${count(layers, 'layer')} on ${count(platforms.length, 'platform')}`,
        ...showProofs(verification),
      ]
    : [`FAIL  ${name}  ${digest}`, ...reasons.map(({ message }) => `      ${message}`)];
  const beside = attachments.map(
    (attachment) => `      beside it, not encrypted: ${attachment.artifactType}  ${attachment.digest}`,
  );
  const names = deploy.map(({ name, runtimes, refusing }) => {
    const others = refusing.length === 0 ? '' : `; ${refusing.join(', ')} decrypt nothing that is named by a digest`;
    return `      deploy ${name} with ${runtimes.join(', ')}${others}`;
  });
  return `${[...lines, ...names, ...beside, `      readable by anybody: ${inClear.join('; ')}`].map(printable).join('\n')}\n`;
}
