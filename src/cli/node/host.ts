// `node host`, for the agent of a cluster: leaves the container for the machine, brings files there, and becomes the program there.

import { join } from 'node:path';
import { OcicryptError } from '../../base/errors.ts';
import { asArray, asBytes, asNumber, asObject, asText, parseJson } from '../../base/json.ts';
import {
  bringFiles,
  CARRIAGE_LOCK,
  CARRIED_PROGRAM,
  type CarriedFile,
  isBelow,
  makeSocketDirectory,
  prepareDirectory,
  removeCarried,
} from '../../node/carried.ts';
import { enterHost } from '../../node/host-namespaces.ts';
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
  prepareDirectory(task);
  if (!host.lock(join(task.directory, CARRIAGE_LOCK))) {
    throw new OcicryptError('configuration', 'another agent is at work on this node', {
      hint: 'it ends by itself, or runs in a pod that was deleted by force: see which pods of the DaemonSet there are',
    });
  }
  if (task.socketUser !== undefined) makeSocketDirectory(task.socketUser);
  if (task.files !== undefined) bringFiles(task, task.files, '/proc/self/exe');
  if (task.words.length === 0) return removeCarried(task);
  host.become([join(task.directory, CARRIED_PROGRAM), ...task.words]);
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
