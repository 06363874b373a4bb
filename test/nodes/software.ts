// Obtains the software of a node: containerd of Debian and from Go modules, crictl, nerdctl and runc; and the CRI-O that is at hand.
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fetchGo, fetchGoPrograms, fetchGoProgramWithout } from '../peers/fetched.ts';
import { fetchFromDebian } from '../real-clients/debian.ts';
import { CLIENT_PACKAGES } from '../real-clients/tools.ts';
import type { NodeService } from './node.ts';

/**
 * Every containerd that the matrix runs: Debian's by the release that carries them, the others by their version. Of each
 * minor version the last one; 2.1.5 and 2.2.1 are from before 2.1.7 and 2.2.2, which gave the decoder its payload back.
 */
export const CONTAINERDS = [
  'bookworm',
  'trixie',
  '2.0.14',
  '2.1.5',
  '2.1.9',
  '2.2.1',
  '2.2.9',
  '2.3.7',
  '2.4.2',
] as const;
export type Containerd = (typeof CONTAINERDS)[number];

/** Those that are there without a compiler. */
const DEBIAN_CONTAINERDS = ['bookworm', 'trixie'] as const satisfies readonly Containerd[];

/** Whether it is a containerd 1. */
export function isFirst(containerd: Containerd): containerd is (typeof DEBIAN_CONTAINERDS)[number] {
  return containerd === 'bookworm' || containerd === 'trixie';
}

/** Which of them to run: Debian's, unless OCICRYPT_NODES names others, with commas. Then crictl and nerdctl are there, too. */
export const CHOSEN: readonly Containerd[] = choose(process.env.OCICRYPT_NODES);
export const IS_COMPILED = process.env.OCICRYPT_NODES !== undefined;

function choose(words: string | undefined): readonly Containerd[] {
  if (words === undefined) return DEBIAN_CONTAINERDS;
  const names = words.split(',');
  const strangers = names.filter((name) => !CONTAINERDS.some((one) => one === name));
  if (strangers.length > 0)
    throw new Error(`there is no containerd ${strangers.join(', ')}: ${CONTAINERDS.join(', ')}`);
  return CONTAINERDS.filter((one) => names.includes(one));
}

const CRICTL = 'sigs.k8s.io/cri-tools/cmd/crictl@v1.34.0';
const NERDCTL = 'github.com/containerd/nerdctl/v2@v2.3.5';
const CONTAINERD = 'github.com/containerd/containerd/v2';

export const CONTAINERD_SOCKET = '/run/containerd/containerd.sock';
export const CRIO_SOCKET = '/run/crio/crio.sock';

/** One containerd, over Debian's with runc and ctd-decoder and the libraries of all: it is where services look for one. */
export async function containerdService(containerd: Containerd): Promise<NodeService> {
  const roots = [await fetchFromDebian(['containerd', 'runc'], 'trixie'), await fetchFromDebian(CLIENT_PACKAGES)];
  return {
    name: 'containerd',
    layers: [dirname(await fetchContainerd(containerd)), ...roots.map((root) => join(root, 'usr'))],
    probe: `[ -S ${CONTAINERD_SOCKET} ] && ctr --connect-timeout=1s version`,
  };
}

/** @param program a CRI-O with its pinns beside it, unless the machine has one; conmon and crun are Debian's */
export async function crioService(program: string): Promise<NodeService> {
  const pinns = join(dirname(program), 'pinns');
  return {
    name: 'crio',
    layers: [join(await fetchFromDebian(CLIENT_PACKAGES), 'usr')],
    programs: { crio: program, crictl: await fetchCrictl(), ...(existsSync(pinns) ? { pinns } : {}) },
    probe: `[ -S ${CRIO_SOCKET} ] && crictl version`,
  };
}

/** The directory that holds containerd, ctr and the shim of one version. */
async function fetchContainerd(containerd: Containerd): Promise<string> {
  if (isFirst(containerd)) {
    return join(await fetchFromDebian(['containerd', 'runc'], containerd), 'usr/bin');
  }
  return fetchGoPrograms({
    module: `${CONTAINERD}@v${containerd}`,
    programs: ['cmd/containerd', 'cmd/ctr', 'cmd/containerd-shim-runc-v2'],
    // What needs C, and storage that no test uses.
    tags: ['no_aufs', 'no_btrfs', 'no_devmapper', 'no_zfs'],
    variables: { [`${CONTAINERD}/version.Version`]: `v${containerd}` },
  });
}

export function fetchCrictl(): Promise<string> {
  return fetchGo(CRICTL);
}

/** nerdctl's command imports a file of its tests, and that what is in its repository alone. */
export async function fetchNerdctl(): Promise<string> {
  const directory = await fetchGoProgramWithout(
    { module: NERDCTL, programs: ['cmd/nerdctl'] },
    ['cmd/nerdctl/helpers/testing_linux.go'],
    { 'github.com/containerd/nerdctl/mod/tigron': 'mod/tigron' },
  );
  return join(directory, 'nerdctl');
}

/** docker of Debian 13, 26.1, to be laid over a node's /usr. */
export function fetchDocker(): Promise<string> {
  return fetchFromDebian(['docker.io', 'docker-cli'], 'trixie');
}
