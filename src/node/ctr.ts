// Asks a containerd by its own client, ctr: namespaces, images, what they hold, and what is unpacked of them.

import { createHash } from 'node:crypto';
import { dirname } from 'node:path';
import { OcicryptError } from '../base/errors.ts';
import { asArray, asObject, asText, readObject } from '../base/json.ts';
import { parseQuietly, table } from './containerd-config.ts';
import { findProgram, isDirectory } from './files.ts';
import { type Ended, lastComplaint, outputText, runProgram } from './programs.ts';
import { type Containerd, dumpConfig, runtimeName, SERVICE_DIRECTORIES } from './runtimes.ts';

/** An image as containerd has it: a name that stands for a manifest. */
export type NamedImage = { readonly namespace: string; readonly name: string; readonly digest: string };

/** What a node keeps of an image: blobs by their digests, and unpacked layers by their chain identifiers. */
export type StoredImage = { readonly blobs: readonly string[]; readonly chains: readonly string[] };

/** ctr, told which containerd to ask. */
export interface Ctr {
  /** @throws OcicryptError `unavailable` if ctr fails */
  ask(namespace: string, words: readonly string[]): Promise<string>;
  /** Whatever comes of it. */
  try(namespace: string, words: readonly string[], milliseconds?: number): Promise<Ended>;
}

/** @throws OcicryptError `not-found` if there is no ctr beside this containerd, or in the usual places */
export async function openCtr(containerd: Containerd): Promise<Ctr> {
  const near = containerd.program === undefined ? [] : [dirname(containerd.program)];
  const program = findProgram('/', [...near, ...SERVICE_DIRECTORIES], 'ctr');
  if (program === undefined)
    throw new OcicryptError('not-found', `there is no ctr for ${runtimeName(containerd)}`, {
      hint: 'install it: it comes with containerd',
    });
  const dump = await dumpConfig(containerd);
  const address = dump !== undefined && 'text' in dump ? addressOf(dump.text) : undefined;
  const run = (namespace: string, words: readonly string[], milliseconds = PATIENCE_MILLISECONDS) =>
    runProgram(
      [program, ...(address === undefined ? [] : ['--address', address]), '--namespace', namespace, ...words],
      { milliseconds },
    );
  return {
    async ask(namespace, words) {
      const ended = await run(namespace, words);
      const text = outputText(ended);
      if (text !== undefined) return text;
      throw new OcicryptError('unavailable', `ctr ${words.slice(0, 2).join(' ')} failed: ${lastComplaint(ended)}`, {
        hint: 'run this as root, with containerd running',
      });
    },
    try: run,
  };
}

const PATIENCE_MILLISECONDS = 120_000;
const HOSTS = '/etc/containerd/certs.d';

/** How ctr is told of the registries' settings that CRI has. */
export function hostWords(): readonly string[] {
  return isDirectory(HOSTS) ? ['--hosts-dir', HOSTS] : [];
}

/** In containerd 2.4 a plugin has it, before that the top table. */
function addressOf(text: string): string | undefined {
  const config = parseQuietly(text) ?? {};
  const plugin = table(table(config.plugins)['io.containerd.server.v1.grpc']);
  return [plugin.address, table(config.grpc).address].find((one) => typeof one === 'string' && one !== '')?.toString();
}

/** The images of all namespaces. */
export async function listImages(ctr: Ctr): Promise<readonly NamedImage[]> {
  const namespaces = words(await ctr.ask('default', ['namespaces', 'ls', '-q']));
  const found: NamedImage[] = [];
  for (const namespace of namespaces) {
    const [, ...rows] = (await ctr.ask(namespace, ['images', 'ls'])).trim().split('\n');
    for (const row of rows) {
      const [name = '', , digest = ''] = row.split(/\s+/);
      if (name !== '') found.push({ namespace, name, digest });
    }
  }
  return found;
}

/** The containers of a namespace that were made of one of these images. */
export async function listUsers(ctr: Ctr, namespace: string, names: readonly string[]): Promise<readonly string[]> {
  const [, ...rows] = (await ctr.ask(namespace, ['containers', 'ls'])).trim().split('\n');
  return rows.flatMap((row) => {
    const [id = '', image = ''] = row.split(/\s+/);
    return names.includes(image) ? [id] : [];
  });
}

/** What is there of an image, as its manifests say; what is not there, or no JSON, is passed over. */
export async function readStored(
  ctr: Ctr,
  { namespace, digest }: Pick<NamedImage, 'namespace' | 'digest'>,
): Promise<StoredImage> {
  const bytes = (await ctr.try(namespace, ['content', 'get', digest])).output;
  const blobs = [digest];
  const chains: string[] = [];
  const root = readObject(bytes);
  for (const entry of asArray(root?.get('manifests')) ?? []) {
    const inner = asText(asObject(entry)?.get('digest'));
    if (inner === undefined) continue;
    const stored = await readStored(ctr, { namespace, digest: inner });
    blobs.push(...stored.blobs);
    chains.push(...stored.chains);
  }
  const config = asText(asObject(root?.get('config'))?.get('digest'));
  if (config !== undefined) {
    blobs.push(
      config,
      ...(asArray(root?.get('layers')) ?? []).flatMap((layer) => asText(asObject(layer)?.get('digest')) ?? []),
    );
    const text = readObject((await ctr.try(namespace, ['content', 'get', config])).output);
    chains.push(
      ...chainsOf(asArray(asObject(text?.get('rootfs'))?.get('diff_ids'))?.flatMap((one) => asText(one) ?? []) ?? []),
    );
  }
  return { blobs, chains };
}

/** What of these is there in a namespace. */
export async function leftOf(ctr: Ctr, namespace: string, { blobs, chains }: StoredImage): Promise<readonly string[]> {
  const content = new Set(words(await ctr.ask(namespace, ['content', 'ls', '-q'])));
  const snapshots = new Set(
    (await ctr.ask(namespace, ['snapshots', 'ls'])).split('\n').map((row) => row.split(/\s+/)[0] ?? ''),
  );
  return [...blobs.filter((one) => content.has(one)), ...chains.filter((one) => snapshots.has(one))];
}

/** https://github.com/opencontainers/image-spec/blob/main/config.md#layer-chainid */
function chainsOf(diffIds: readonly string[]): readonly string[] {
  const chains: string[] = [];
  for (const diffId of diffIds) {
    const parent = chains.at(-1);
    chains.push(
      parent === undefined ? diffId : `sha256:${createHash('sha256').update(`${parent} ${diffId}`).digest('hex')}`,
    );
  }
  return chains;
}

function words(text: string): readonly string[] {
  return text.split(/\s+/).filter((word) => word !== '');
}
