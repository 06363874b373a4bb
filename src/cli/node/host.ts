// `node host`, for the agent of a cluster: leaves the container for the machine, brings files there, and becomes the program there.

import { join } from 'node:path';
import { OcicryptError } from '../../base/errors.ts';
import { asArray, asBytes, asNumber, asObject, asText, parseJson } from '../../base/json.ts';
import {
  bringFiles,
  CARRIAGE_LOCK,
  CARRIED_PROGRAM,
  type CarriedFile,
  carrierOf,
  isBelow,
  makeSocketDirectory,
  prepareDirectory,
  removeCarried,
  removeSocketDirectory,
  SOCKET_DIRECTORY,
} from '../../node/carried.ts';
import { installedPaths } from '../../node/changes.ts';
import { isExecutable } from '../../node/files.ts';
import { enterHost, type Host } from '../../node/host-namespaces.ts';
import { claimNode, isOthers, ownerOf, refuseOthers, releaseNode } from '../../node/owner.ts';
import type { CommandContext } from '../command.ts';

/** What is to be done on the machine; the agent writes it to standard input, as JSON. */
export type HostTask = {
  readonly owner: string;
  readonly directory: string;
  /** Whose socket is to have a directory. */
  readonly socketUser?: number | undefined;
  /** What is brought before anything runs; undefined if what is there stays. */
  readonly files?: readonly CarriedFile[];
  /** The words of this program that run there; without any, all that was brought is removed. */
  readonly words: readonly string[];
};

/** Enough for the policy and the largest files of Secrets. */
const MAXIMUM_TASK_BYTES = 32 * 1024 * 1024;

export function encodeHostTask({ files, ...task }: HostTask): Uint8Array {
  const encoded = files?.map(({ path, content }) => ({ path, content: Buffer.from(content).toString('base64') }));
  return new TextEncoder().encode(JSON.stringify({ ...task, files: encoded ?? null }));
}

export async function runOnHost({ terminal }: CommandContext): Promise<void> {
  const task = decodeHostTask(await terminal.read(MAXIMUM_TASK_BYTES));
  const host = await enterHost();
  const words = prepareTask(task, { root: '/', program: '/proc/self/exe', lock: (path) => host.lock(path) });
  if (words !== undefined) host.become(words);
}

/** A machine: its root, the file of this program, and what takes a lock that this process holds to its end. */
export type Machine = { readonly root: string; readonly program: string } & Pick<Host, 'lock'>;

/**
 * Does what comes before a program of the machine: sees that the node is that of these agents, and brings their files.
 *
 * @returns what runs then; undefined if all was done
 * @throws OcicryptError `refused` if the node is that of other agents, `not-found` if these have set up nothing,
 * `configuration`, `not-written`
 */
export function prepareTask(
  task: HostTask,
  { root, program, lock }: Machine,
): readonly [program: string, ...words: string[]] | undefined {
  const { owner, directory, files, words } = task;
  const carried = join(directory, CARRIED_PROGRAM);
  const isOurs = carrierOf(directory) === owner;
  if (files !== undefined) claimNode(root, owner, isOurs);
  else if (words.length > 0) refuseOthers(root, owner);
  if (files !== undefined || isOurs) {
    prepareDirectory(task);
    if (!lock(join(directory, CARRIAGE_LOCK))) {
      throw new OcicryptError('configuration', 'another agent is at work on this node', {
        hint: 'it ends by itself, or runs in a pod that was deleted by force: see which pods of the DaemonSet there are',
      });
    }
  }
  const socket = join(root, SOCKET_DIRECTORY);
  if (task.socketUser !== undefined) makeSocketDirectory(task.socketUser, socket);
  if (files !== undefined) bringFiles(task, files, program);
  if (words.length === 0) {
    if (isOurs) removeCarried(task);
    if (!isOthers(root, owner)) removeSocketDirectory(socket);
    releaseNode(root, owner);
    return undefined;
  }
  const isThere = (files !== undefined || isOurs) && isExecutable(carried);
  if (ownerOf(root) !== owner || (!isThere && installedPaths(root).length === 0))
    throw new OcicryptError('not-found', 'these agents have set up nothing on this node');
  if (!isThere) {
    throw new OcicryptError('configuration', `${carried} is gone, and the node is still set up`, {
      hint: 'run ocicrypt-kms node uninstall there',
    });
  }
  return [carried, ...words];
}

function decodeHostTask(bytes: Uint8Array): HostTask {
  const task = asObject(parseJson(bytes, 'the task of the agent'));
  const [owner, directory] = [asText(task?.get('owner')), asText(task?.get('directory'))];
  const words = asArray(task?.get('words'))?.flatMap((word) => asText(word) ?? []);
  const files = asArray(task?.get('files'))?.map((file): CarriedFile => {
    const [path, content] = [asText(asObject(file)?.get('path')), asBytes(asObject(file)?.get('content'))];
    if (path !== undefined && isBelow(path) && content !== undefined) return { path, content };
    throw notTask();
  });
  if (owner === undefined || directory === undefined || words === undefined) throw notTask();
  const socketUser = asNumber(task?.get('socketUser'));
  return { owner, directory, words, socketUser, ...(files === undefined ? {} : { files }) };
}

function notTask(): OcicryptError {
  return new OcicryptError('usage', 'node host is for node agent alone', { hint: 'run ocicrypt-kms node --help' });
}
