// Asks a containerd by its own client, ctr: namespaces, images, what they hold, and what is unpacked of them.

import { createHash } from 'node:crypto';
import { dirname } from 'node:path';
import { OcicryptError } from '../base/errors.ts';
import { asArray, asObject, asText, type JsonObject, type JsonValue, readObject } from '../base/json.ts';
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

/**
 * What is there of an image, as its manifests say. Each is read once, however often indexes name it.
 *
 * @throws OcicryptError `bad-input` if a document cannot be read, which containerd may have read otherwise; `unavailable`
 */
export async function readStored(
  ctr: Ctr,
  { namespace, digest }: Pick<NamedImage, 'namespace' | 'digest'>,
): Promise<StoredImage> {
  const there = new Set(words(await ctr.ask(namespace, ['content', 'ls', '-q'])));
  const read = async (one: string) => (there.has(one) ? readDocument(ctr, namespace, one) : undefined);
  const configs: string[] = [];
  const blobs: string[] = [];
  const manifests = new Set([digest]);
  // What is added meanwhile is read, too.
  for (const one of manifests) {
    const document = await read(one);
    for (const inner of digestsIn(asArray(document?.get('manifests')))) manifests.add(inner);
    configs.push(...digestsIn([document?.get('config')]));
    blobs.push(...digestsIn(asArray(document?.get('layers'))));
  }
  const chains: string[] = [];
  for (const one of new Set(configs)) {
    const rootfs = asObject((await read(one))?.get('rootfs'));
    chains.push(...chainsOf(asArray(rootfs?.get('diff_ids'))?.flatMap((id) => asText(id) ?? []) ?? []));
  }
  return { blobs: [...manifests, ...configs, ...blobs], chains };
}

function digestsIn(descriptors: readonly (JsonValue | undefined)[] = []): readonly string[] {
  return descriptors.flatMap((one) => asText(asObject(one)?.get('digest')) ?? []);
}

/** Undefined for what is no object of JSON. */
async function readDocument(ctr: Ctr, namespace: string, digest: string): Promise<JsonObject | undefined> {
  const ended = await ctr.try(namespace, ['content', 'get', digest]);
  const document = ended.status === 0 ? readObject(ended.output) : undefined;
  if (document !== undefined || (ended.status === 0 && !/^\s*\{/.test(Buffer.from(ended.output).toString('latin1'))))
    return document;
  throw new OcicryptError('bad-input', `${digest} cannot be read: what is unpacked of the image is not known`, {
    hint: `see ctr -n ${namespace} snapshots ls`,
  });
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
