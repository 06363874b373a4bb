// Removes images from this node, with what was unpacked of them: until then a withdrawn key means nothing here.

import { asOcicryptError, OcicryptError } from '../../base/errors.ts';
import { showName, showValue } from '../../base/shown.ts';
import { type Ctr, leftOf, listImages, listUsers, type NamedImage, openCtr, readStored } from '../../node/ctr.ts';
import { findProgram } from '../../node/files.ts';
import { lastComplaint, runProgram } from '../../node/programs.ts';
import { SERVICE_DIRECTORIES } from '../../node/runtimes.ts';
import type { CommandContext } from '../command.ts';
import { runtimeImage, someRuntimes } from './setup.ts';

export async function purgeImages({ settings, terminal }: CommandContext): Promise<void> {
  const [, ...images] = settings.operands;
  if (images.length === 0)
    throw new OcicryptError('usage', 'node purge takes images', { hint: 'name them as ctr -n k8s.io images ls does' });
  const { containerds, crio } = await someRuntimes('/', settings);
  for (const image of images.map(runtimeImage)) {
    let removed = 0;
    for (const containerd of containerds) {
      const lines = await purgeFrom(await openCtr(containerd), image, settings.switch('dry-run'));
      terminal.write(lines.map((line) => `${line}\n`).join(''));
      removed += lines.length;
    }
    if (crio !== undefined) {
      if (!settings.switch('dry-run')) await purgeFromCrio(image);
      terminal.write(`${removal(settings.switch('dry-run'))}  ${showName(image)} (CRI-O)\n`);
      removed++;
    }
    if (removed === 0)
      throw new OcicryptError('not-found', `no image ${showValue(image)} is on this node`, {
        hint: 'name it as ctr -n k8s.io images ls does',
      });
  }
}

function removal(isDryRun: boolean): string {
  return isDryRun ? 'would remove' : 'removed';
}

/** Every name of what the image's name stands for, in every namespace. */
async function purgeFrom(ctr: Ctr, image: string, isDryRun: boolean): Promise<readonly string[]> {
  const all = await listImages(ctr);
  const spellings = [image, `docker.io/${image}`, `docker.io/library/${image}`];
  const digests = new Set(
    all.filter(({ name, digest }) => spellings.includes(name) || digest === image).map(({ digest }) => digest),
  );
  const targets = all.filter(({ digest }) => digests.has(digest));
  const lines: string[] = [];
  for (const namespace of new Set(targets.map((one) => one.namespace))) {
    const here = targets.filter((one) => one.namespace === namespace);
    const names = here.map(({ name }) => name);
    const users = await listUsers(ctr, namespace, names);
    if (users.length > 0) {
      throw new OcicryptError(
        'configuration',
        `${showName(image)} is in use by containers of namespace ${namespace}: ${users.join(', ')}`,
        { hint: 'remove them first, as by kubectl drain' },
      );
    }
    if (!isDryRun) await remove(ctr, namespace, here, all);
    lines.push(...names.map((name) => `${removal(isDryRun)}  ${name} (${namespace})`));
  }
  return lines;
}

/** @throws OcicryptError `configuration` if another image keeps a part of it here, `bad-input` if it is not known what is here of it */
async function remove(
  ctr: Ctr,
  namespace: string,
  images: readonly NamedImage[],
  all: readonly NamedImage[],
): Promise<void> {
  const [first] = images;
  if (first === undefined) return;
  const stored = await readStored(ctr, first).catch(asOcicryptError);
  if (stored instanceof OcicryptError && stored.code !== 'bad-input') throw stored;
  await ctr.ask(namespace, ['images', 'rm', '--sync', ...images.map(({ name }) => name)]);
  if (stored instanceof OcicryptError)
    throw new OcicryptError(stored.code, `${showName(first.name)} has no name here any more; ${stored.message}`, {
      cause: stored,
      hint: stored.hint,
    });
  const left = await leftOf(ctr, namespace, stored);
  if (left.length === 0) return;
  const others: string[] = [];
  for (const other of all.filter((one) => one.namespace === namespace && !images.includes(one))) {
    const theirs = await readStored(ctr, other).catch(() => undefined);
    if (theirs !== undefined && [...theirs.blobs, ...theirs.chains].some((one) => left.includes(one)))
      others.push(other.name);
  }
  const by =
    others.length > 0
      ? `of ${others.join(', ')}`
      : 'of a pull that is under way, or of one that failed less than a day ago';
  throw new OcicryptError(
    'configuration',
    `${left.length} parts of ${showName(first.name)} are still on this node: they are also parts ${by}`,
    {
      hint:
        others.length > 0
          ? 'purge those as well; layers that images share cannot be removed for one of them'
          : `see ctr -n ${namespace} leases ls`,
    },
  );
}

async function purgeFromCrio(image: string): Promise<void> {
  const crictl = findProgram('/', SERVICE_DIRECTORIES, 'crictl');
  if (crictl === undefined)
    throw new OcicryptError('not-found', 'there is no crictl to remove an image from CRI-O', {
      hint: 'install cri-tools, or run podman rmi as root',
    });
  const ended = await runProgram([crictl, '--runtime-endpoint', CRIO_SOCKET, 'rmi', image]);
  if (ended.status !== 0)
    throw new OcicryptError('unavailable', `crictl rmi failed: ${lastComplaint(ended)}`, {
      hint: 'remove its containers first',
    });
}

const CRIO_SOCKET = 'unix:///var/run/crio/crio.sock';
