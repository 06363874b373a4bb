// Pulls and runs on a node as its operator does: by CRI, crictl, ctr and nerdctl.
import { describeError } from '../../src/base/errors.ts';
import { pullImageByCri } from '../peers/cri.ts';
import type { Node } from './node.ts';
import { CONTAINERD_SOCKET } from './software.ts';

/** How an image is pulled. */
export type Client = 'CRI' | 'ctr' | 'ctr --local' | 'nerdctl';

/** What an operator sees. */
export type Outcome = { readonly exitCode: number; readonly text: string };

/** Where crictl looks for its settings. @param socket of the service that it asks */
export function crictlFiles(socket: string): Readonly<Record<string, string>> {
  return { '/etc/crictl.yaml': `runtime-endpoint: unix://${socket}\ntimeout: 60\n` };
}
const HOSTS = '/etc/containerd/certs.d';

/** Pulls by a client; which of its two ways CRI takes is the configuration's affair. */
export async function pull(node: Node, client: Client, image: string): Promise<Outcome> {
  switch (client) {
    case 'CRI':
      return node.has('crictl') ? say(node, ['crictl', 'pull', image]) : pullByCall(node, image);
    case 'ctr':
      return say(node, ['ctr', 'images', 'pull', `--hosts-dir=${HOSTS}`, image]);
    case 'ctr --local':
      return say(node, ['ctr', 'images', 'pull', '--local', `--hosts-dir=${HOSTS}`, image]);
    case 'nerdctl':
      return say(node, ['nerdctl', `--hosts-dir=${HOSTS}`, 'pull', '--quiet', image]);
  }
}

/** What crictl does, where it is not: it takes a compiler to have it. */
async function pullByCall(node: Node, image: string): Promise<Outcome> {
  return pullImageByCri(node.path(CONTAINERD_SOCKET), image).then(
    () => ({ exitCode: 0, text: '' }),
    (error: unknown) => ({ exitCode: 1, text: describeError(error) }),
  );
}

/** Runs an image that CRI has pulled, and answers what its command says: in a pod, where crictl is there to make one. */
export async function runImage(node: Node, image: string, name = 'hello'): Promise<Outcome> {
  if (node.has('crictl')) return runPod(node, image, name);
  const words = ['--rm', '--net-host', `--cgroup=${node.controlGroup}/${name}`];
  return say(node, ['ctr', '-n', 'k8s.io', 'run', ...words, image, name]);
}

/** A pod of one container in the machine's network, which succeeds once the container has said something. */
async function runPod(node: Node, image: string, name: string): Promise<Outcome> {
  // 2 is NODE; 1 is CONTAINER, as kubelet has it: then CRI-O needs no container for the pod itself.
  const linux = { security_context: { namespace_options: { network: 2, pid: 1 } } };
  const pod = {
    metadata: { name, namespace: 'default', uid: name, attempt: 0 },
    log_directory: `/run/pods/${name}`,
    linux: { cgroup_parent: node.controlGroup, ...linux },
  };
  const container = { metadata: { name }, image: { image }, log_path: 'log', linux };
  await node.write(`/run/${name}-pod.json`, JSON.stringify(pod));
  await node.write(`/run/${name}-container.json`, JSON.stringify(container));
  const script = `id=$(crictl run "/run/$1-container.json" "/run/$1-pod.json") || exit 1
for i in 1 2 3 4 5 6 7 8 9 10; do crictl logs "$id" | grep . && exit 0; sleep 0.2; done; exit 1`;
  return say(node, ['sh', '-c', script, 'sh', name]);
}

async function say(node: Node, argv: readonly [string, ...string[]]): Promise<Outcome> {
  const { exitCode, stdout, stderr } = await node.run(argv);
  return { exitCode, text: `${new TextDecoder().decode(stdout)}${stderr}` };
}
