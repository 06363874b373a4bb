// The command that prints configuration files that work: paths of this executable, options as they were given.

import { basename, resolve } from 'node:path';
import { OcicryptError } from '../base/errors.ts';
import { showValue } from '../base/shown.ts';
import type { CommandContext } from './command.ts';
import { DEFAULT_OPTIONS, SOCKET_UNIT, serviceUnit } from './config-systemd.ts';
import { nearest, type Settings } from './options/settings.ts';
import type { OptionName } from './options/table.ts';

/** Prints one file to standard output; where it belongs is its first line or said on standard error. */
export async function runConfig({ settings, terminal }: CommandContext): Promise<void> {
  const kind = settings.operands[0] ?? '';
  const file = FILES.get(kind);
  if (file === undefined) {
    const near = await nearest(kind, [...FILES.keys()]);
    throw new OcicryptError('usage', `no configuration file is called ${showValue(kind)}`, {
      hint: near === undefined ? `there are ${[...FILES.keys()].join(', ')}` : `did you mean ${near}?`,
    });
  }
  const idle = settings.names().find((name) => !file.takes.includes(name));
  if (idle !== undefined) {
    throw new OcicryptError('usage', `--${idle} has no effect on config ${kind}`, { hint: 'leave it out' });
  }
  terminal.write(file.text(settings));
  terminal.say(file.advice);
}

type ConfigFile = {
  readonly advice: string;
  /** The options that show in it. */
  readonly takes: readonly OptionName[];
  readonly text: (settings: Settings) => string;
};

const FILES: ReadonlyMap<string, ConfigFile> = new Map<string, ConfigFile>([
  [
    'ocicrypt',
    {
      advice: 'save it and export OCICRYPT_KEYPROVIDER_CONFIG=FILE before you run skopeo, buildah or podman',
      takes: ['allow', 'key', 'adc', 'provider'],
      text: ocicryptFile,
    },
  ],
  [
    'containerd',
    {
      advice:
        'save it as /etc/containerd/conf.d/ocicrypt.toml, and let /etc/containerd/config.toml import it: imports = ["/etc/containerd/conf.d/*.toml"]; it needs ctd-decoder and /etc/containerd/ocicrypt.json; ocicrypt-kms doctor checks all of it',
      takes: [],
      text: () => CONTAINERD,
    },
  ],
  [
    'crio',
    {
      advice: 'save it as /etc/crio/crio.conf.d/20-ocicrypt.conf and set OCICRYPT_KEYPROVIDER_CONFIG in its unit',
      takes: [],
      text: () => CRIO,
    },
  ],
  [
    'systemd',
    {
      advice:
        'save it as /etc/systemd/system/ocicrypt-kms.service, and what config systemd-socket prints as ocicrypt-kms.socket beside it; then systemctl enable --now ocicrypt-kms.socket; the service cannot see /home, /root or /tmp',
      takes: ['allow', 'key', 'adc', 'provider'],
      text: serviceFile,
    },
  ],
  [
    'systemd-socket',
    {
      advice: 'save it as /etc/systemd/system/ocicrypt-kms.socket, beside what config systemd prints',
      takes: [],
      text: () => SOCKET_UNIT,
    },
  ],
  ['policy', { advice: 'save it and name it with --config=FILE', takes: ['allow', 'key'], text: policyFile }],
]);

/** https://github.com/containers/ocicrypt/blob/main/docs/keyprovider.md */
function ocicryptFile(settings: Settings): string {
  const name = settings.text('provider') ?? 'kmscrypt';
  const { path, args } = thisExecutable();
  const provider = { cmd: { path, args: [...args, 'keyprovider', ...givenOptions(settings)] } };
  return `${JSON.stringify({ 'key-providers': { [name]: provider } }, null, 2)}\n`;
}

function serviceFile(settings: Settings): string {
  const { path, args } = thisExecutable();
  const options = givenOptions(settings);
  return serviceUnit([path, ...args, 'serve', ...(options.length > 0 ? options : DEFAULT_OPTIONS)]);
}

/** The options as they were given, with whole paths. */
function givenOptions(settings: Settings): readonly string[] {
  const options = ['allow', 'key', 'adc', 'provider'] as const;
  return options.flatMap((option) =>
    (option === 'allow' || option === 'key' ? settings.list(option) : [settings.text(option) ?? ''])
      .filter((value) => value !== '')
      .map((value) => `--${option}=${option === 'key' || option === 'adc' ? resolve(value) : value}`),
  );
}

/** A Bun executable is itself; under Node it is the script that Node runs. */
function thisExecutable(): { readonly path: string; readonly args: readonly string[] } {
  const script = process.argv[1] ?? '';
  return /^node(?:js)?$|^bun$/.test(basename(process.execPath)) && !script.startsWith('/$bunfs/')
    ? { path: process.execPath, args: [script] }
    : { path: process.execPath, args: [] };
}

function policyFile(settings: Settings): string {
  const allow = settings.list('allow');
  const keys = settings.list('key').map((file) => resolve(file));
  const list = (name: string, values: readonly string[]) =>
    values.length === 0 ? '' : `${name}:\n${values.map((value) => `  - ${JSON.stringify(value)}\n`).join('')}`;
  const example = 'gcpkms://projects/PROJECT/locations/LOCATION/keyRings/RING/*';
  return `# Keys that may be used here; every other one is refused.
${list('allow', allow.length + keys.length === 0 ? [example] : allow)}${list('key', keys)}`;
}

/**
 * A file of its own: tables that config.toml has already cannot be added to it. It sets no table of containerd 1's CRI
 * plugin, because an imported one replaces it there; its key_model is "node" by itself.
 * https://github.com/containerd/imgcrypt#usage
 */
const CONTAINERD = `version = 2

# containerd 2.1 and later pull with the transfer service, which never asks for keys; older ones ignore this.
[plugins."io.containerd.cri.v1.images"]
  use_local_image_pull = true

[stream_processors]
  [stream_processors."io.containerd.ocicrypt.decoder.v1.tar.gzip"]
    accepts = ["application/vnd.oci.image.layer.v1.tar+gzip+encrypted"]
    returns = "application/vnd.oci.image.layer.v1.tar+gzip"
    path = "ctd-decoder"
    env = ["OCICRYPT_KEYPROVIDER_CONFIG=/etc/containerd/ocicrypt.json"]
  [stream_processors."io.containerd.ocicrypt.decoder.v1.tar"]
    accepts = ["application/vnd.oci.image.layer.v1.tar+encrypted"]
    returns = "application/vnd.oci.image.layer.v1.tar"
    path = "ctd-decoder"
    env = ["OCICRYPT_KEYPROVIDER_CONFIG=/etc/containerd/ocicrypt.json"]
`;

/** CRI-O decrypts in its own process, which reads OCICRYPT_KEYPROVIDER_CONFIG. */
const CRIO = `[crio.runtime]
decryption_keys_path = "/etc/crio/keys/"

# In the unit (systemctl edit crio):
#   [Service]
#   Environment=OCICRYPT_KEYPROVIDER_CONFIG=/etc/crio/ocicrypt.json
# The directory of decryption_keys_path must exist, even if it is empty.
`;
