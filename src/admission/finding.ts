// What was found about one image of a pod, and how it is said.

import type { ErrorCode } from '../base/errors.ts';
import type { RegistryReference } from '../image/model/reference.ts';
import { isFixed, showImage } from './image-name.ts';
import type { PodImage } from './pod.ts';
import type { NodeRuntime } from './policy.ts';

/** `ok`; `integrity` if it is not encrypted as it must be; else why it was not judged. */
export type ImageOutcome = 'ok' | ErrorCode;

export type Finding = {
  readonly image: PodImage;
  readonly outcome: ImageOutcome;
  /** What is wrong, to stand behind the image's name. */
  readonly problem: string;
  /** What the name says, if it is one. */
  readonly reference?: RegistryReference;
  /** Of an image that is ok. */
  readonly digest?: string;
};

/** The image is at fault, or its name. With all other codes nothing is known of it. */
const AT_FAULT: ReadonlySet<ImageOutcome> = new Set<ImageOutcome>(['integrity', 'bad-input', 'usage', 'not-allowed']);

export function isAtFault(outcome: ImageOutcome): boolean {
  return AT_FAULT.has(outcome);
}

/** `container "web" registry.example/app:1 is not …` */
export function sentenceOf({ image, problem }: Finding): string {
  return `${image.where} ${showImage(image.name)} ${problem}`;
}

/** That another image than the one that was looked at may run, and why; undefined if none can. */
export function looseName({ image, reference }: Finding, runtime: NodeRuntime | undefined): string | undefined {
  if (reference === undefined || isFixed(reference, runtime)) return undefined;
  const name = `${image.where} ${showImage(image.name)}`;
  if (reference.digest !== undefined) return `${name} is named by its digest, and CRI-O decrypts no image that is`;
  return `${name} is not pinned: nodes may run another image by this name, because ${LOOSE[runtime ?? 'unknown']}`;
}

const LOOSE = {
  containerd: 'no mutating webhook has put its digest there',
  'cri-o': 'it has no digest tag, or no mutating webhook has put that there',
  unknown: 'the policy does not say which runtime its nodes have, or they may have more than one',
} as const;

/** The first sentences, and how many more there are. */
export function joinSentences(sentences: readonly string[], shown: number): string {
  const more = sentences.length - shown;
  const rest = more > 0 ? `; and ${more} more image${more === 1 ? '' : 's'}` : '';
  return `${sentences.slice(0, shown).join('; ')}${rest}`;
}
