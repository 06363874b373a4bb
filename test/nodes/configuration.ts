// Writes what an operator would have written on a node: the runtime's configuration, the registry's authority and the drop-in.
import type { Registry } from '../real-clients/registry.ts';
import { imageName } from './images.ts';
import { type Containerd, isFirst } from './software.ts';

/** Whether the CRI of a containerd pulls by itself where it could use the transfer service: from 2.1. */
export type ConfigurationOptions = { readonly localPull?: boolean };

/** The node's files before anything is said of encryption; `conf.d` is imported. */
export function nodeFiles(
  containerd: Containerd,
  registry: Registry,
  authority: string,
  { localPull = false }: ConfigurationOptions = {},
): Readonly<Record<string, string>> {
  const imports = 'imports = ["/etc/containerd/conf.d/*.toml"]';
  const pause = JSON.stringify(imageName(registry, 'pause'));
  const settings = isFirst(containerd)
    ? [
        'version = 2',
        imports,
        `[plugins."io.containerd.grpc.v1.cri"]`,
        `sandbox_image = ${pause}`,
        'restrict_oom_score_adj = true',
        `[plugins."io.containerd.grpc.v1.cri".registry]`,
        'config_path = "/etc/containerd/certs.d"',
      ]
    : [
        'version = 3',
        imports,
        `[plugins."io.containerd.cri.v1.runtime"]`,
        'restrict_oom_score_adj = true',
        ...(localPull ? [`[plugins."io.containerd.cri.v1.images"]`, 'use_local_image_pull = true'] : []),
        `[plugins."io.containerd.cri.v1.images".pinned_images]`,
        `sandbox = ${pause}`,
        `[plugins."io.containerd.cri.v1.images".registry]`,
        'config_path = "/etc/containerd/certs.d"',
      ];
  const hosts = `server = "https://${registry.host}"\n[host."https://${registry.host}"]\nca = "/etc/containerd/registry.pem"\n`;
  return {
    '/etc/containerd/config.toml': `${settings.join('\n')}\n`,
    '/etc/containerd/registry.pem': authority,
    [`/etc/containerd/certs.d/${registry.host}/hosts.toml`]: hosts,
  };
}

/**
 * CRI-O's files before anything is said of encryption. Layers wait on the node's disk until they are unpacked.
 * https://github.com/cri-o/cri-o/blob/main/docs/crio.conf.5.md
 */
export function crioFiles(registry: Registry, authority: string): Readonly<Record<string, string>> {
  const settings = [
    '[crio.runtime]',
    'cgroup_manager = "cgroupfs"',
    'conmon_cgroup = "pod"',
    'disable_hostport_mapping = true',
    '[crio.image]',
    `pause_image = ${JSON.stringify(imageName(registry, 'pause'))}`,
    'pause_command = ""',
    'big_files_temporary_dir = "/var/lib/containers"',
  ];
  return {
    '/etc/crio/crio.conf': `${settings.join('\n')}\n`,
    '/etc/containers/policy.json': '{"default":[{"type":"insecureAcceptAnything"}]}\n',
    [`/etc/containers/certs.d/${registry.host}/ca.crt`]: authority,
  };
}

/** A decoder: ours gives back the plain tar, ctd-decoder what it finds below the encryption. */
export type Decoder = {
  readonly path: string;
  readonly args?: readonly string[];
  readonly env?: readonly string[];
  readonly uncompresses?: boolean;
};

/** A drop-in that names a decoder for every kind of layer; zstd stands with gzip, or CRI gives its decoder nothing. */
export function streamProcessors({ path, args = [], env = [], uncompresses = true }: Decoder): string {
  const processor = (type: string, compressions: readonly string[]) => [
    `[stream_processors."io.containerd.ocicrypt.decoder.v1.${type}"]`,
    `accepts = ${JSON.stringify(compressions.map((one) => `application/vnd.oci.image.layer.v1.tar${one}+encrypted`))}`,
    `returns = "application/vnd.oci.image.layer.v1.${uncompresses ? 'tar' : type.replace('.', '+')}"`,
    `path = ${JSON.stringify(path)}`,
    `args = ${JSON.stringify(args)}`,
    `env = ${JSON.stringify(env)}`,
  ];
  return ['version = 2', ...processor('tar', ['']), ...processor('tar.gzip', ['+gzip', '+zstd']), ''].join('\n');
}
