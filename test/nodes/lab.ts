// What every test on nodes shares: a registry with the images of the matrix, a key, and nodes that are set up for them.
import { readFile } from 'node:fs/promises';
import { createWorkspace, type LocalKey, type Workspace } from '../end-to-end/workspace.ts';
import { type Registry, startRegistry } from '../real-clients/registry.ts';
import { crictlFiles } from './clients.ts';
import { crioFiles, nodeFiles } from './configuration.ts';
import { IMAGE_KINDS, type ImageKind, pushImage, pushImages } from './images.ts';
import { type Node, type NodeOptions, startNode } from './node.ts';
import {
  CONTAINERD_SOCKET,
  type Containerd,
  CRIO_SOCKET,
  containerdService,
  crioService,
  fetchCrictl,
  fetchNerdctl,
  IS_COMPILED,
} from './software.ts';

type Cleanup = { readonly after: (cleanup: () => unknown) => void };

/** What a node of the lab has beside the software; `/etc/containerd/conf.d/*.toml` is imported. */
export type LabNodeOptions = Omit<NodeOptions, 'service'> & {
  readonly containerd: Containerd;
  readonly localPull?: boolean;
};

export interface Lab extends Workspace {
  readonly registry: Registry;
  readonly key: LocalKey;
  /** Pushes an image `NAME:1` to its registry, encrypted to another key, which the options say how to reach. */
  push(name: string, key: string, options: readonly string[]): Promise<void>;
  start(t: Cleanup, options: LabNodeOptions): Promise<Node>;
  /** A node with CRI-O instead, and crictl for it. @param program as {@link crioService} takes it */
  startCrio(t: Cleanup, program: string, options?: Omit<NodeOptions, 'service'>): Promise<Node>;
}

/** Everything in it is removed by `t`. */
export async function createLab(t: Cleanup, kinds: readonly ImageKind[] = IMAGE_KINDS): Promise<Lab> {
  const workspace = await createWorkspace(t);
  const key = await workspace.keygen('node.key');
  const registry = await startRegistry();
  t.after(registry.stop);
  const authority = await readFile(registry.authority, 'utf8');
  await pushImages(workspace.directory, registry, key, kinds);
  return {
    ...workspace,
    registry,
    key,
    push: (name, recipient, options) => pushImage(workspace.directory, registry, name, recipient, options),
    async start(context, { containerd, localPull = false, files = {}, programs: own = {}, ...rest }) {
      const fetched = IS_COMPILED ? { crictl: await fetchCrictl(), nerdctl: await fetchNerdctl() } : {};
      const settings = nodeFiles(containerd, registry, authority, { localPull });
      const node = await startNode({
        service: await containerdService(containerd),
        files: { ...crictlFiles(CONTAINERD_SOCKET), ...settings, ...files },
        programs: { ...fetched, ...own },
        ...rest,
      });
      context.after(node.stop);
      return node;
    },
    async startCrio(context, program, options = {}) {
      const settings = crioFiles(registry, authority);
      const node = await startNode({
        service: await crioService(program),
        ...options,
        files: { ...crictlFiles(CRIO_SOCKET), ...settings, ...options.files },
      });
      context.after(node.stop);
      return node;
    },
  };
}

/** Removes pods, images, their content and what was unpacked of them: the next pull begins from nothing. */
export async function clearNode(node: Node): Promise<void> {
  // Whoever removes a lease may wait for what nothing refers to any more, as after a pull that failed.
  const script = `command -v crictl >/dev/null && crictl rmp --all --force
for space in default k8s.io; do
  ctr -n "$space" images ls -q | while read -r image; do ctr -n "$space" images rm "$image"; done
  ctr -n "$space" leases create
  ctr -n "$space" leases ls -q | while read -r lease; do ctr -n "$space" leases rm --sync "$lease"; done
done`;
  const { stderr } = await node.run(['sh', '-c', script]);
  const left = await node.run(['find', '/var/lib/containerd/io.containerd.content.v1.content/blobs', '-type', 'f']);
  if (left.stdout.length > 0) {
    throw new Error(`a node could not be cleared: ${stderr}${new TextDecoder().decode(left.stdout)}`);
  }
}

/** Removes pods and images of CRI-O with all layers: the next pull begins from nothing. */
export async function clearCrio(node: Node): Promise<void> {
  const { stderr } = await node.run(['sh', '-c', 'crictl rmp --all --force; crictl rmi --all']);
  const layers = await readFile(node.path('/var/lib/containers/storage/overlay-layers/layers.json'), 'utf8');
  if (layers !== '[]') throw new Error(`a node could not be cleared: ${stderr}${layers}`);
}
