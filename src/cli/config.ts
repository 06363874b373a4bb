// The command that prints configuration files that work: paths of this executable, options as they were given.

import { OcicryptError } from '../base/errors.ts';
import { nearest } from '../base/nearest.ts';
import { showValue } from '../base/shown.ts';
import {
  CRIO_DROP_IN,
  CRIO_FILE,
  CRIO_UNIT,
  CRIO_UNIT_FILE,
  containerdDropIn,
  type Decoder,
  PROVIDERS_FILE,
  providersFile,
  rancherTemplate,
} from '../node/drop-in.ts';
import { versionOf } from '../node/runtimes.ts';
import { formatVersion, payloadRule } from '../node/versions.ts';
import { USUAL_NAMES } from '../provider/parameters.ts';
import type { CommandContext } from './command.ts';
import { AUDIT_LOG, DEFAULT_OPTIONS, SOCKET_UNIT, serviceUnit } from './config-systemd.ts';
import { thisExecutable } from './executable.ts';
import { saidVersion } from './node/runtime-version.ts';
import { optionMembers, optionWords } from './options/given.ts';
import { DECODER_OPTIONS, KEYPROVIDER_OPTIONS, PROVIDER_OPTIONS } from './options/sets.ts';
import type { OptionName } from './options/table.ts';

/** Prints one file to standard output; where it belongs is its first line or said on standard error. */
export async function runConfig(context: CommandContext): Promise<void> {
  const { settings, given, terminal } = context;
  const kind = settings.operands[0] ?? '';
  const file = FILES.get(kind);
  if (file === undefined) {
    const near = await nearest(kind, [...FILES.keys()]);
    throw new OcicryptError('usage', `no configuration file is called ${showValue(kind)}`, {
      hint: near === undefined ? `there are ${[...FILES.keys()].join(', ')}` : `did you mean ${near}?`,
    });
  }
  const idle = given.find((name) => name !== 'quiet' && !file.takes.includes(name));
  if (idle !== undefined) {
    throw new OcicryptError('usage', `--${idle} has no effect on config ${kind}`, { hint: 'leave it out' });
  }
  // What a node would fail with for every image is said here, once.
  (await import('./setup.ts')).parseRules(settings);
  terminal.write(await file.text(context));
  terminal.say(file.advice, 'advice');
}

type ConfigFile = {
  readonly advice: string;
  /** The options that show in it. */
  readonly takes: readonly OptionName[];
  readonly text: (context: CommandContext) => string | Promise<string>;
};

/** A provider's name is no affair of a decoder's, and a file of policy names no other file. */
const MEMBERS = PROVIDER_OPTIONS.filter((name) => name !== 'config');
const SYSTEMD: readonly OptionName[] = ['allow', 'key', 'adc', 'provider'];
const DECODER: readonly OptionName[] = [...DECODER_OPTIONS, 'decoder', 'runtime-version'];

const FILES: ReadonlyMap<string, ConfigFile> = new Map<string, ConfigFile>([
  [
    'ocicrypt',
    {
      advice: `save it and export OCICRYPT_KEYPROVIDER_CONFIG=FILE before you run skopeo, buildah or podman; on a node save it as ${PROVIDERS_FILE}`,
      takes: [...KEYPROVIDER_OPTIONS, 'grpc'],
      text: ocicryptFile,
    },
  ],
  [
    'containerd',
    {
      advice:
        'save it as /etc/containerd/conf.d/ocicrypt-kms.toml, let /etc/containerd/config.toml import it with imports = ["/etc/containerd/conf.d/*.toml"], and restart containerd; ocicrypt-kms node install does all of it, ocicrypt-kms node check tries it',
      takes: DECODER,
      text: async (context) => containerdDropIn(await decoderOf(context)),
    },
  ],
  [
    'k3s',
    {
      advice:
        'if config.toml in /var/lib/rancher/k3s/agent/etc/containerd (RKE2: /var/lib/rancher/rke2/…) imports a directory, save what config containerd prints there; else save this beside it as config.toml.tmpl, or as config-v3.toml.tmpl if it says version = 3; then restart k3s',
      takes: DECODER,
      text: async (context) => rancherTemplate(await decoderOf(context)),
    },
  ],
  [
    'crio',
    {
      advice: `save it as ${CRIO_FILE}, and save what config crio-unit and config ocicrypt print as well; then restart CRI-O`,
      takes: [],
      text: () => CRIO_DROP_IN,
    },
  ],
  [
    'crio-unit',
    {
      advice: `save it as ${CRIO_UNIT_FILE}, and what config ocicrypt prints as ${PROVIDERS_FILE}; then systemctl daemon-reload && systemctl restart crio`,
      takes: [],
      text: () => CRIO_UNIT,
    },
  ],
  [
    'systemd',
    {
      advice:
        'save it as /etc/systemd/system/ocicrypt-kms.service, and what config systemd-socket prints as ocicrypt-kms.socket beside it; then systemctl enable --now ocicrypt-kms.socket; the service cannot see /home, /root or /tmp',
      takes: SYSTEMD,
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
  ['policy', { advice: 'save it and name it with --config=FILE', takes: [...MEMBERS, 'remote'], text: policyFile }],
]);

function ocicryptFile({ settings, given }: CommandContext): string {
  const name = settings.text('provider') ?? USUAL_NAMES[0];
  const remote = settings.text('remote');
  if (remote !== undefined && settings.switch('grpc')) return providersFile(name, remote);
  const [path, ...args] = thisExecutable();
  return providersFile(name, [path, ...args, 'keyprovider', ...optionWords(settings, given)]);
}

function serviceFile({ settings, given }: CommandContext): string {
  const options = optionWords(settings, given);
  const program = thisExecutable();
  const audit = given.includes('audit-log') ? [] : [AUDIT_LOG];
  return serviceUnit(
    [...program, 'serve', ...(options.length > 0 ? options : DEFAULT_OPTIONS), ...audit],
    program.length > 1,
  );
}

/** Ours with the options that are given, by default those of the usual file; or ctd-decoder, where it can work. */
async function decoderOf({ settings, given }: CommandContext): Promise<Decoder> {
  const ours = given.filter((name) => DECODER_OPTIONS.includes(name));
  if (settings.text('decoder') !== 'ctd-decoder') {
    const options = ours.length > 0 ? optionWords(settings, ours) : DEFAULT_OPTIONS;
    return { kind: 'ocicrypt-kms', words: [...thisExecutable(), 'decoder', ...options] };
  }
  const idle = ours[0];
  if (idle !== undefined) {
    throw new OcicryptError('usage', `--${idle} has no effect with --decoder=ctd-decoder`, {
      hint: `it asks the providers of ${PROVIDERS_FILE}: give the option to ocicrypt-kms config ocicrypt`,
    });
  }
  const version = saidVersion(settings) ?? (await versionOf('containerd'));
  const payload = version === undefined ? 'local pull' : payloadRule(version);
  if (version !== undefined && payload === 'never') {
    throw new OcicryptError('configuration', `containerd ${formatVersion(version)} gives ctd-decoder no payload`, {
      hint: 'leave out --decoder: ocicrypt-kms decoder needs none; or use containerd 2.1.7, 2.2.2 or later',
    });
  }
  return { kind: 'ctd-decoder', path: 'ctd-decoder', payload };
}

function policyFile({ settings, given }: CommandContext): string {
  const example = 'gcpkms://projects/PROJECT/locations/LOCATION/keyRings/RING/*';
  const members = given.length > 0 ? optionMembers(settings, given) : `allow:\n  - ${JSON.stringify(example)}\n`;
  return `# Keys that may be used here; every other one is refused.\n${members}`;
}
