// What `node install` writes for the runtimes that it found: every file, and what is to be restarted afterwards.

import { basename, dirname, join } from 'node:path';
import type { TomlTable } from 'smol-toml';
import { OcicryptError } from '../base/errors.ts';
import { showPath } from '../base/shown.ts';
import { addImport, encryptedProcessors, importsOf, parseToml, removeImport } from './containerd-config.ts';
import {
  CRIO_DROP_IN,
  CRIO_FILE,
  CRIO_KEYS,
  CRIO_UNIT,
  CRIO_UNIT_FILE,
  containerdDropIn,
  type Decoder,
  POLICY_FILE,
  PROVIDERS_FILE,
  providersFile,
  rancherTables,
  rancherTemplate,
} from './drop-in.ts';
import { namesIn, readText } from './files.ts';
import type { RunningProcess } from './processes.ts';
import { type Containerd, type Runtimes, runtimeName } from './runtimes.ts';
import type { FileChange } from './whole-file.ts';

/** What is to be done. */
export type NodePlan = {
  readonly files: readonly FileChange[];
  /** Services that read what is written when they start, each with the files that it reads. */
  readonly restarts: readonly Restart[];
  /** What cannot be done here, and what to do instead. */
  readonly notes: readonly string[];
};

export type Restart = {
  readonly unit: string;
  readonly files: readonly string[];
  /** The process that reads them; undefined if it does not run: it is not started then. */
  readonly running: RunningProcess | undefined;
};

export type PlanOptions = {
  readonly root: string;
  readonly decoder: Decoder;
  /** For CRI-O and podman, as {@link providersFile} takes it. */
  readonly provider: Parameters<typeof providersFile>[1];
  /** The text of the policy; undefined if the one that is there stays. */
  readonly policy: string | undefined;
};

const DROP_IN_NAME = 'ocicrypt-kms.toml';

/** @throws OcicryptError `configuration` if a file cannot be changed without doubt */
export function planNode({ containerds, crio, hasDocker, hasPodman }: Runtimes, options: PlanOptions): NodePlan {
  const { policy, provider } = options;
  const files: FileChange[] = [
    ...(policy === undefined ? [] : [file(POLICY_FILE, policy)]),
    file(PROVIDERS_FILE, providersFile('kmscrypt', provider)),
  ];
  const restarts: Restart[] = [];
  const notes: string[] = [];
  for (const containerd of containerds) {
    if (containerd.kind === 'docker') {
      notes.push(
        `docker writes ${containerd.config} itself: install containerd.io, so that docker uses a containerd of its own service, and run this again`,
      );
      continue;
    }
    const changes = planContainerd(containerd, options);
    files.push(...changes);
    if (containerd.unit !== undefined)
      restarts.push({
        unit: containerd.unit,
        files: changes.map(({ path }) => path),
        running: containerd.running,
      });
    else notes.push(`no service of ${runtimeName(containerd)} was found: restart it yourself`);
  }
  if (crio !== undefined) {
    files.push(file(CRIO_FILE, CRIO_DROP_IN), file(CRIO_UNIT_FILE, CRIO_UNIT));
    restarts.push({
      unit: crio.unit ?? 'crio.service',
      files: [CRIO_FILE, CRIO_UNIT_FILE, PROVIDERS_FILE],
      running: crio.running,
    });
  }
  if (hasDocker)
    notes.push(
      'docker decrypts with its containerd image store alone: "features": {"containerd-snapshotter": true} in /etc/docker/daemon.json; with the other store a pull ends with "invalid tar header"',
    );
  if (hasPodman)
    notes.push(
      `podman and buildah have no setting for this: export OCICRYPT_KEYPROVIDER_CONFIG=${PROVIDERS_FILE}, and add --decryption-key provider:kmscrypt`,
    );
  return { files, restarts, notes };
}

/** Directories that are made beside the files, and are empty: keys of JWE go there. */
export const KEY_DIRECTORIES: readonly string[] = [CRIO_KEYS];

function planContainerd(containerd: Containerd, { root, decoder }: PlanOptions): readonly FileChange[] {
  const { config, kind } = containerd;
  const text = readText(join(root, config));
  const parsed = text === undefined ? {} : parseToml(text, config);
  refuseOthers(
    // Ours are there if k3s has read our template.
    encryptedProcessors(parsed).flatMap(({ id, args }) => (args.includes('decoder') ? [] : [id])),
    config,
  );
  const directory = importsOf(parsed).find(
    (pattern) => pattern.startsWith('/') && basename(pattern) === '*.toml' && !dirname(pattern).includes('*'),
  );
  const version = text === undefined ? 2 : dropInVersion(parsed, containerd);
  if (directory !== undefined)
    return [file(join(dirname(directory), DROP_IN_NAME), containerdDropIn(decoder, version))];
  const isSecond = containerd.version !== undefined && containerd.version[0] >= 2;
  if (kind === 'k3s' || kind === 'rke2')
    return [planTemplate(config, text === undefined ? isSecond : parsed.version === 3, { root, decoder })];
  const pattern = join(dirname(config), 'conf.d/*.toml');
  const dropIn = file(join(dirname(pattern), DROP_IN_NAME), containerdDropIn(decoder, version));
  const changed =
    text === undefined
      ? `version = ${isSecond ? 3 : 2}\nimports = [${JSON.stringify(pattern)}]\n`
      : addImport(text, pattern, config);
  return [dropIn, { ...file(config, changed), isAddition: true }];
}

/** @throws OcicryptError `configuration` if a file of version 1 is there, and it is not known which containerd reads it */
function dropInVersion({ version: said = 1 }: TomlTable, { config, version }: Containerd): 1 | 2 {
  if (said !== 1) return 2;
  if (version !== undefined) return version[0] < 2 ? 1 : 2;
  throw new OcicryptError(
    'configuration',
    `${showPath(config)} is of version 1, which containerd 2 reads in another way`,
    {
      hint: 'say which version of containerd there will be, or run containerd config migrate',
    },
  );
}

/** Two processors for one type would both count, and containerd takes either. */
function refuseOthers(ids: readonly string[], config: string): void {
  if (ids.length === 0) return;
  throw new OcicryptError(
    'configuration',
    `${showPath(config)} has stream processors for encrypted layers: ${ids.join(', ')}`,
    {
      hint: 'remove these tables from it, and run this again',
    },
  );
}

/** By the version of the configuration that they make. */
const TEMPLATES = { second: 'config.toml.tmpl', third: 'config-v3.toml.tmpl' } as const;

/** k3s and RKE2 make their file from a template beside it, if there is one. */
function planTemplate(
  config: string,
  isThird: boolean,
  { root, decoder }: Pick<PlanOptions, 'root' | 'decoder'>,
): FileChange {
  const names = namesIn(join(root, dirname(config)));
  // k3s and RKE2 read the template of version 3 first: a new one would hide what an operator has in the other.
  const isHidden = names.includes(TEMPLATES.second) && !names.includes(TEMPLATES.third);
  const path = join(dirname(config), isThird && !isHidden ? TEMPLATES.third : TEMPLATES.second);
  const text = readText(join(root, path));
  if (text === undefined) return file(path, rancherTemplate(decoder));
  const own = removeBlock(text);
  refuseOthers(/^\s*\[stream_processors/m.test(own) ? ['stream_processors'] : [], path);
  return { ...file(path, `${own.trimEnd()}\n\n${BEGIN}\n${rancherTables(decoder)}${END}\n`), isAddition: true };
}

const BEGIN = '# begin ocicrypt-kms';
const END = '# end ocicrypt-kms';

function removeBlock(text: string): string {
  return text.replace(new RegExp(`\\n*${BEGIN}\\n[^]*?${END}\\n`), '\n');
}

/**
 * What `uninstall` takes out of a file that was changed since: our line, our block, and nothing else.
 *
 * @returns the text as it is if nothing of ours is in it; undefined if what is ours cannot be told from the rest
 */
export function withoutOurs(path: string, text: string): string | undefined {
  const pattern = join(dirname(path), 'conf.d/*.toml');
  if (!/\.(?:tmpl|toml)$/.test(path)) return undefined;
  const without = path.endsWith('.tmpl') ? removeBlock(text) : removeImport(text, pattern);
  return without === text && (text.includes('ocicrypt') || text.includes(pattern)) ? undefined : without;
}

function file(path: string, content: string, mode = 0o644): FileChange {
  return { path, content, mode };
}
