// Whose installation a node has: that of one set of agents, whatever directory they bring files to, or one made by hand.

import { mkdirSync, rmdirSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { OcicryptError, showSystemCode } from '../base/errors.ts';
import { carrierOf } from './carried.ts';
import { installedPaths, KEPT_DIRECTORY } from './changes.ts';
import { readText } from './files.ts';
import { placeOf } from './root.ts';

/** Beside the list of what was installed: it goes with that. */
const OWNER = join(KEPT_DIRECTORY, 'owner');

/** The agents whose node this is; undefined if there are none. */
export function ownerOf(root: string): string | undefined {
  return readText(placeOf(root, OWNER)) || undefined;
}

/** Whether this node is that of other agents. */
export function isOthers(root: string, owner: string): boolean {
  return (ownerOf(root) ?? owner) !== owner;
}

/** @throws OcicryptError `refused` if this node is that of other agents */
export function refuseOthers(root: string, owner: string): void {
  if (!isOthers(root, owner)) return;
  throw new OcicryptError('refused', `this node is set up by other agents already: those of ${ownerOf(root)}`, {
    hint: 'remove one of the two, or have them select different nodes',
  });
}

/**
 * Makes a node that of these agents.
 *
 * @param isKnown whether an installation that has no owner is theirs nevertheless: they have brought files before
 * @throws OcicryptError `refused` if it is that of others, `configuration` if it was set up by hand, `not-written`
 */
export function claimNode(root: string, owner: string, isKnown: boolean): void {
  refuseOthers(root, owner);
  if (ownerOf(root) === owner) return;
  if (!isKnown && installedPaths(root).length > 0) {
    throw new OcicryptError('configuration', 'this node is set up by hand already: by ocicrypt-kms node install', {
      hint: 'run ocicrypt-kms node uninstall there, or have the agents select other nodes',
    });
  }
  const path = join(root, OWNER);
  try {
    mkdirSync(dirname(path), { recursive: true, mode: 0o755 });
    // One that is empty was left by a run that was killed.
    if (readText(path) === '') rmSync(path);
    writeFileSync(path, owner, { mode: 0o600, flag: 'wx' });
  } catch (cause) {
    // Of two sets of agents at once the other one was faster.
    refuseOthers(root, owner);
    throw new OcicryptError('not-written', `cannot write ${path}${showSystemCode(cause)}`, {
      cause,
      hint: 'its file system must be writable',
    });
  }
}

/**
 * Lets no installation by hand replace that of agents, who would not see it until they set the node up again.
 *
 * @param program the file of the program that installs: the one that these agents brought is theirs
 * @throws OcicryptError `refused`
 */
export function refuseByHand(root: string, program: string): void {
  const owner = ownerOf(root);
  if (owner === undefined || carrierOf(dirname(dirname(program))) === owner) return;
  throw new OcicryptError('refused', `this node is set up by the agents of a cluster: those of ${owner}`, {
    hint: 'change their policy, or have them select other nodes and run ocicrypt-kms node uninstall here',
  });
}

/** Takes back {@link claimNode}. */
export function releaseNode(root: string, owner: string): void {
  if (ownerOf(root) !== owner) return;
  rmSync(join(root, OWNER), { force: true });
  try {
    rmdirSync(join(root, KEPT_DIRECTORY));
  } catch {
    // Copies of what was there before are in it.
  }
}
