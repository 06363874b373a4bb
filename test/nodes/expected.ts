// What is known of every containerd and each way to pull: the data that the matrix asserts, and docs/nodes.md is made of.
import type { Client } from './clients.ts';
import { CONTAINERDS, type Containerd, IS_COMPILED } from './software.ts';

/** A way to pull: by a client, where CRI pulls by itself or leaves it to the transfer service. */
export type Way = { readonly client: Client; readonly localPull: boolean };

/** What a decoder is given beside the layer: the payload with its descriptor, or nothing. */
export type Given = 'payload' | 'nothing';

/** The columns of the table in docs/nodes.md. */
export const WAYS: readonly (Way & { readonly said: string })[] = [
  { client: 'CRI', localPull: false, said: 'kubelet, `crictl`' },
  { client: 'CRI', localPull: true, said: 'the same with `use_local_image_pull`' },
  { client: 'ctr', localPull: false, said: '`ctr images pull`' },
  { client: 'ctr --local', localPull: false, said: '`ctr images pull --local`' },
  { client: 'nerdctl', localPull: false, said: '`nerdctl pull`' },
];

/** What a containerd gives by a way; undefined where it has no such way. */
export function given(containerd: Containerd, { client, localPull }: Way): Given | undefined {
  const { cri, local, nerdctl } = GIVEN[containerd];
  switch (client) {
    case 'CRI':
      return localPull ? local : cri;
    case 'ctr':
      return 'nothing';
    case 'ctr --local':
      return containerd === 'bookworm' ? undefined : 'nothing';
    case 'nerdctl':
      return nerdctl;
  }
}

/** The ways of a containerd that can be gone here. */
export function waysOf(containerd: Containerd, localPull: boolean): readonly (typeof WAYS)[number][] {
  return WAYS.filter(
    (way) =>
      way.localPull === localPull && given(containerd, way) !== undefined && (way.client !== 'nerdctl' || IS_COMPILED),
  );
}

type Known = { readonly cri: Given; readonly local?: Given; readonly nerdctl: Given };

const GIVEN: Readonly<Record<Containerd, Known>> = {
  bookworm: { cri: 'payload', nerdctl: 'payload' },
  trixie: { cri: 'payload', nerdctl: 'payload' },
  '2.0.14': { cri: 'nothing', nerdctl: 'nothing' },
  '2.1.5': { cri: 'nothing', local: 'nothing', nerdctl: 'nothing' },
  '2.1.9': { cri: 'nothing', local: 'payload', nerdctl: 'nothing' },
  '2.2.1': { cri: 'nothing', local: 'nothing', nerdctl: 'nothing' },
  '2.2.9': { cri: 'nothing', local: 'payload', nerdctl: 'nothing' },
  '2.3.7': { cri: 'nothing', local: 'payload', nerdctl: 'nothing' },
  '2.4.2': { cri: 'nothing', local: 'payload', nerdctl: 'nothing' },
};

/** How a containerd is called where users read of it: Debian corrects its own without another version. */
export function containerdName(containerd: Containerd): string {
  return { bookworm: '1.6 (Debian 12)', trixie: '1.7 (Debian 13)' }[String(containerd)] ?? containerd;
}

/** The table in docs/nodes.md. */
export function givenTable(): string {
  const head = ['containerd', ...WAYS.map(({ said }) => said)];
  const rows = CONTAINERDS.map((containerd) => [
    containerdName(containerd),
    ...WAYS.map((way) => given(containerd, way) ?? '–'),
  ]);
  return [head, head.map(() => '---'), ...rows].map((cells) => `| ${cells.join(' | ')} |\n`).join('');
}
