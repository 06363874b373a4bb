// The command that lets a build or an admission go on only with an image that is encrypted as it should be.

import { OcicryptError } from '../base/errors.ts';
import type { LayerKeyUnwrapper } from '../client/layer-keys.ts';
import { type Verification, verifyImage } from '../image/verify.ts';
import type { CommandContext } from './command.ts';
import { type ImageRun, runOnImage } from './image-run.ts';
import type { Settings } from './settings.ts';
import { count, printable } from './text.ts';

/** Prints the verdict; an image that is not as it should be is a failure (76). */
export async function runVerify(context: CommandContext): Promise<void> {
  const { settings, terminal } = context;
  const verification = await runOnImage(context, (run) => verify(settings, run));
  terminal.write(settings.switch('json') ? `${JSON.stringify(verification, null, 2)}\n` : show(verification));
  const { ok, reasons, report } = verification;
  if (ok) return;
  const [first = '', ...others] = reasons;
  const more = others.length === 0 ? '' : ` (and ${count(others.length, 'further reason')})`;
  throw new OcicryptError('integrity', `${report.name} is not encrypted as it should be: ${first}${more}`, {
    hint: `see ocicrypt-kms inspect ${report.name}`,
  });
}

async function verify(settings: Settings, { tools, signal }: ImageRun): Promise<Verification> {
  const required = await Promise.all(settings.list('require').map((key) => tools.resolveKey(key)));
  const only = await Promise.all(settings.list('only').map((key) => tools.resolveKey(key)));
  const unwrappers = new Map<string | undefined, LayerKeyUnwrapper>();
  if (settings.switch('unwrap')) {
    unwrappers.set(undefined, await tools.unwrapper());
    for (const { known, rule } of required) unwrappers.set(known, await tools.singleUnwrapper(rule));
  }
  const any = unwrappers.get(undefined);
  return verifyImage(tools.source(settings.operands[0]), {
    require: required.map(({ known }) => known),
    ...(only.length === 0 ? {} : { only: only.map(({ known }) => known) }),
    ...(any === undefined ? {} : { unwrapper: (key) => unwrappers.get(key) ?? any }),
    signal,
  });
}

function show({ ok, reasons, proven, report, inClear }: Verification): string {
  const { name, digest, platforms, attachments } = report;
  const layers = platforms.reduce((sum, platform) => sum + platform.layers.length, 0);
  const basis = proven ? 'the layer keys were opened' : 'this is what the metadata claims; --unwrap proves it';
  const lines = ok
    ? [
        `ok    ${name}  ${digest}`,
        `      ${count(layers, 'layer')} on ${count(platforms.length, 'platform')}; ${basis}`,
      ]
    : [`FAIL  ${name}  ${digest}`, ...reasons.map((reason) => `      ${reason}`)];
  const beside = attachments.map(
    (attachment) => `      beside it, not encrypted: ${attachment.artifactType}  ${attachment.digest}`,
  );
  return `${[...lines, ...beside, `      readable by anybody: ${inClear.join('; ')}`].map(printable).join('\n')}\n`;
}
