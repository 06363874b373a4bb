// What all image commands share: progress, interruption, the end of everything that was opened, the digest and its file.

import { asOcicryptError, OcicryptError } from '../../base/errors.ts';
import { printable, showValue } from '../../base/shown.ts';
import type { EncryptedImage } from '../../image/encrypt.ts';
import { nameByDigestTag } from '../../image/model/digest-tag.ts';
import { MEDIA_TYPES } from '../../image/model/manifest.ts';
import { parseImageReference } from '../../image/model/reference.ts';
import { runtimeName } from '../../image/runtimes.ts';
import type { CommandContext } from '../command.ts';
import { untilInterrupted } from '../interrupt.ts';
import type { Settings } from '../options/settings.ts';
import type { Terminal } from '../terminal.ts';
import { asciiJson } from '../text.ts';
import { checkDigestFile, writeDigest } from './digest-file.ts';
import { type ProgressEvent, startProgress } from './progress.ts';
import { ImageTools } from './setup.ts';

/** What is given to the work of a command. */
export type ImageRun = {
  readonly tools: ImageTools;
  readonly signal: AbortSignal;
  readonly onProgress: (event: ProgressEvent) => void;
  readonly onTotal: (bytes: number) => void;
  /** To be told the digest of the new image before its name moves: from then on it is no longer said that nothing was changed. */
  readonly onSwitch: (digest: string) => void;
};

/**
 * Runs the work of a command and closes what it opened.
 *
 * @param report says what came of it; a signal waits for that, since the image is written by then
 */
export async function runOnImage<Result>(
  context: CommandContext,
  work: (run: ImageRun) => Promise<Result>,
  report?: (result: Result) => Promise<void>,
): Promise<Result> {
  const { settings, terminal } = context;
  const digestFile = settings.text('digestfile');
  if (digestFile !== undefined) await checkDigestFile(digestFile);
  const tools = new ImageTools(context);
  const progress = startProgress(terminal);
  const onProgress = (event: ProgressEvent) => progress.update(event);
  const onTotal = (bytes: number) => progress.expect(bytes);
  let moving: string | undefined;
  const onSwitch = (digest: string) => {
    moving = digest;
  };
  try {
    return await untilInterrupted(
      terminal,
      async (interrupted) => {
        const limit = settings.duration('timeout');
        const late = () => ended(`not done within ${limit} ms (--timeout)`, settings.operands.at(-1) ?? '', moving);
        const result = await withinTime(limit, interrupted, late, (signal) =>
          work({ tools, signal, onProgress, onTotal, onSwitch }),
        ).finally(() => tools.close());
        progress.end();
        await report?.(result);
        return result;
      },
      () => ended('interrupted', settings.operands.at(-1) ?? '', moving),
    );
  } finally {
    progress.end();
  }
}

/** @param moving the digest that the image's name was about to stand for */
function ended(how: string, image: string, moving: string | undefined): OcicryptError {
  if (moving === undefined) return new OcicryptError('deadline-exceeded', `${how}, nothing was changed`);
  return new OcicryptError('deadline-exceeded', `${how} while ${image} was written: it may be ${moving} already`, {
    hint: `see ocicrypt-kms inspect ${image}`,
  });
}

/** Ends the work at its time, whatever it waits for. @param late makes the error */
function withinTime<Result>(
  limit: number | undefined,
  interrupted: AbortSignal,
  late: () => OcicryptError,
  work: (signal: AbortSignal) => Promise<Result>,
): Promise<Result> {
  if (limit === undefined) return work(interrupted);
  const { promise, resolve, reject } = Promise.withResolvers<Result>();
  const expired = new AbortController();
  const timer = setTimeout(() => {
    const error = late();
    expired.abort(error);
    reject(error);
  }, limit);
  work(AbortSignal.any([interrupted, expired.signal])).then(resolve, reject);
  return promise.finally(() => clearTimeout(timer));
}

/**
 * Writes the digest of a new image to `--digestfile`, and prints it, or all that is known of the image as JSON.
 *
 * @throws OcicryptError `not-written`, which has the digest: the image is there whatever becomes of this
 */
export async function printResult(
  { settings, terminal }: CommandContext,
  result: { readonly digest: string; readonly written?: boolean },
): Promise<void> {
  const failures: string[] = [];
  const failed = (error: unknown) => {
    failures.push(asOcicryptError(error).message);
  };
  const file = settings.text('digestfile');
  if (file !== undefined) await writeDigest(file, result.digest).catch(failed);
  try {
    terminal.write(settings.switch('json') ? `${asciiJson(result, 2)}\n` : `${result.digest}\n`);
  } catch (error) {
    failed(error);
  }
  if (failures.length === 0) return;
  const done = result.written === false ? 'nothing was changed' : `but the image was written: ${result.digest}`;
  throw new OcicryptError('not-written', `${failures.join(', ')}, ${done}`);
}

/** The result with the name that stands for this image alone, if it was given its digest tag. */
export function nameResult<Result extends { readonly digest: string }>(
  { settings }: CommandContext,
  image: string | undefined,
  result: Result,
): Result & { readonly digestTag?: string } {
  const reference = parseImageReference(image ?? '');
  if (!settings.switch('digest-tag') || settings.switch('dry-run') || reference.transport !== 'docker') return result;
  return { ...result, digestTag: runtimeName(nameByDigestTag(reference, result.digest)).name };
}

/** Says by which name to deploy the new image, that it must be signed, and what the old one had that does not cover it. */
export function adviseSigning(
  terminal: Terminal,
  image: string | undefined,
  result: Pick<EncryptedImage, 'digest' | 'mediaType' | 'previousDigest' | 'referrers' | 'referrersComplete'> & {
    readonly digestTag?: string;
  },
): void {
  const advise = (line: string) => terminal.say(line, 'advice');
  if (result.digestTag !== undefined) {
    advise(`deploy ${result.digestTag}: a tag made of the digest, by which every runtime decrypts`);
  }
  // Clients that check signatures look for one of the platform's own manifest, too (docs/runtimes.md).
  const deep = result.mediaType === MEDIA_TYPES.index ? ' --recursive' : '';
  const repository = /^docker:\/\/(.+?)(?::[^/:]+)?$/.exec(image ?? '')?.[1];
  advise(
    repository === undefined
      ? `sign ${result.digest} once it is in a registry: encryption does not say who made an image`
      : `sign the new image, encryption does not say who made it: cosign sign${deep} ${repository}@${result.digest}`,
  );
  if (result.digest === result.previousDigest) return;
  for (const referrer of result.referrers) {
    advise(
      `${printable(referrer)} refers to the old digest ${result.previousDigest}: create it again for the new image`,
    );
  }
  if (!result.referrersComplete) {
    advise('the registry did not say whether there are more signatures or attestations of the old image');
  }
}

/** The numbers of `--layer`, or undefined if all are meant. @throws OcicryptError `usage` */
export function layerNumbers(settings: Settings): readonly number[] | undefined {
  const texts = settings.list('layer');
  if (texts.length === 0) return undefined;
  return texts.map((text) => {
    if (/^-?\d{1,6}$/.test(text)) return Number(text);
    throw new OcicryptError('usage', `option --layer takes a number, not ${showValue(text)}`, {
      hint: 'layers are counted from 0, or from -1 backwards',
    });
  });
}

/** The selection of platforms as the library takes it. */
export function platformNames(settings: Settings): { readonly platforms?: readonly string[] } {
  const platforms = settings.list('platform');
  return platforms.length === 0 ? {} : { platforms };
}
