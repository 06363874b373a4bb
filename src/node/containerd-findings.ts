// What goes wrong with containerd, as its own dump of its configuration, its version and its process show it.
// https://github.com/containerd/containerd/blob/main/docs/stream_processors.md

import { globSync } from 'node:fs';
import { basename, dirname, isAbsolute, resolve } from 'node:path';
import type { TomlTable } from 'smol-toml';
import { showName } from '../base/shown.ts';
import { encryptedProcessors, importsOf, isTable, type Processor, parseQuietly, table } from './containerd-config.ts';
import { BUILT_IN_KEYS, ENCRYPTED_TYPES, PROCESSOR_IDS } from './drop-in.ts';
import { findProgram, isDirectory, isExecutable, readText } from './files.ts';
import type { Finding, FindingLevel } from './finding.ts';
import { isNewer } from './processes.ts';
import { type Containerd, environmentOf, runtimeName, SERVICE_DIRECTORIES } from './runtimes.ts';
import { formatVersion, isBefore, payloadRule } from './versions.ts';

/** A decoder that containerd would start, as it would. */
export type FoundDecoder = {
  readonly subject: string;
  readonly processor: Processor;
  readonly program: string;
  readonly environment: NodeJS.ProcessEnv;
  readonly kind: 'ours' | 'ctd-decoder' | 'other';
};

export type ContainerdExamined = { readonly findings: readonly Finding[]; readonly decoders: readonly FoundDecoder[] };

const IMAGES = 'io.containerd.cri.v1.images';
const LOCAL_PULL = `set use_local_image_pull = true below [plugins."${IMAGES}"]`;
const INSTALL = 'run ocicrypt-kms node install, or see ocicrypt-kms config containerd';

/** The errors of containerd by which a mistake is known. */
const DUMP_HINTS: readonly (readonly [RegExp, string])[] = [
  [
    /duplicated tables|already exists|has already been defined/,
    'a table stands there twice: put the processors into a file of their own, which imports names',
  ],
];

/** Says why containerd cannot read its own configuration; to another user than root, that may be who asks. */
export function unreadableConfig(containerd: Containerd, problem: string, isRoot = process.geteuid?.() === 0): Finding {
  const isDenied = !isRoot && /permission denied|cannot be read here/.test(problem);
  const [, hint = 'correct it: containerd does not start again with it'] =
    DUMP_HINTS.find(([pattern]) => pattern.test(problem)) ?? [];
  return {
    level: isDenied ? 'warn' : 'fail',
    subject: runtimeName(containerd),
    message: `cannot read ${containerd.config}: ${problem}`,
    hint: isDenied ? 'run this as root' : hint,
  };
}

/** That a containerd which is installed pulls nothing, whatever it is told; the node may have another runtime. */
export function stoppedContainerd(containerd: Containerd): Finding {
  return {
    level: 'warn',
    subject: runtimeName(containerd),
    message: 'is installed and does not run: it reads its configuration when it starts',
    hint: `systemctl start ${containerd.unit ?? 'containerd'}`,
  };
}

/**
 * @param dump what `containerd config dump` prints, or its files put together
 * @param unset how much it matters that no decoder is configured: a machine need not be a node
 */
export function examineContainerd(containerd: Containerd, dump: TomlTable, unset: FindingLevel): ContainerdExamined {
  const subject = runtimeName(containerd);
  const findings: Finding[] = [];
  const add = (level: FindingLevel, message: string, hint: string) =>
    void findings.push({ level, subject, message, hint });
  const { version } = containerd;
  if (version !== undefined && isBefore(version, [1, 6, 0]))
    add(
      isBefore(version, [1, 3, 0]) ? 'fail' : 'warn',
      isBefore(version, [1, 3, 0])
        ? 'has no stream processors: it cannot decrypt'
        : 'is older than those that were tried',
      'use containerd 1.6 or later',
    );
  const processors = encryptedProcessors(dump);
  if (processors.length === 0 || processors.every((one) => isBuiltIn(one) && !isSetUp(one, containerd))) {
    add(unset, 'has no decoder for encrypted layers', INSTALL);
    return { findings, decoders: [] };
  }
  for (const type of ENCRYPTED_TYPES) {
    const accepting = processors.filter(({ accepts }) => accepts.includes(type)).map(({ id }) => id);
    if (accepting.length === 0)
      add(
        'fail',
        `has no decoder for ${type}: such a layer fails with "invalid tar header"`,
        `add the type to accepts of ${PROCESSOR_IDS[1]}`,
      );
    if (accepting.length > 1)
      add('warn', `has ${accepting.length} decoders for ${type}: ${accepting.join(', ')}`, 'keep one of them');
  }
  const decoders: FoundDecoder[] = [];
  for (const processor of processors) {
    const program = locate(processor.path, containerd);
    const kind = kindOf(processor);
    if (program === undefined)
      add(
        'fail',
        `${processor.id}: ${processor.path === '' ? 'names no decoder' : `${showName(processor.path)} is not there for containerd, or is no executable file`}`,
        kind === 'ctd-decoder' ? 'install ctd-decoder (in Debian: imgcrypt), or use ocicrypt-kms decoder' : INSTALL,
      );
    else
      decoders.push({
        subject: `${subject}: ${processor.id}`,
        processor,
        program,
        environment: processorEnvironment(processor, containerd),
        kind,
      });
    findings.push(...examineProcessor(subject, processor, kind));
  }
  if (processors.some((one) => kindOf(one) !== 'ours')) findings.push(...examinePayload(containerd, dump));
  const changed = filesOf(containerd.config).find(
    (path) => containerd.running !== undefined && isNewer(path, containerd.running),
  );
  if (changed !== undefined)
    findings.push({
      level: 'warn',
      subject,
      message: `was started before ${changed} was changed`,
      hint: containerd.unit === undefined ? 'restart it' : `systemctl restart ${containerd.unit}`,
      reason: 'restart-needed',
    });
  findings.push(...misplacedPull(containerd));
  return { findings, decoders };
}

/** containerd has these by itself. They ask nobody if their directory of keys is missing. */
function isBuiltIn({ path, args }: Processor): boolean {
  return path === 'ctd-decoder' && args.includes(BUILT_IN_KEYS);
}

/** Whether somebody has begun to: the program is there, and something for it to read. */
function isSetUp(processor: Processor, containerd: Containerd): boolean {
  const providers = processorEnvironment(processor, containerd).OCICRYPT_KEYPROVIDER_CONFIG;
  return (
    locate(processor.path, containerd) !== undefined &&
    (isDirectory(BUILT_IN_KEYS) || (providers !== undefined && readText(providers) !== undefined))
  );
}

function kindOf({ path, args }: Processor): FoundDecoder['kind'] {
  if (basename(path) === 'ctd-decoder') return 'ctd-decoder';
  return basename(path) === 'ocicrypt-kms' || args.includes('decoder') ? 'ours' : 'other';
}

function examineProcessor(
  subject: string,
  { id, args, accepts }: Processor,
  kind: FoundDecoder['kind'],
): readonly Finding[] {
  if (kind === 'ours') return [];
  const findings: Finding[] = [];
  const keys = args[args.indexOf('--decryption-keys-path') + 1] ?? '';
  if (args.includes('--decryption-keys-path') && !isDirectory(keys)) {
    const message = `${id}: --decryption-keys-path ${keys} is not a directory: layers fail before any provider is called`;
    findings.push({ level: 'fail', subject, message, hint: keys === '' ? 'leave it out' : `mkdir -p ${keys}` });
  }
  if (!PROCESSOR_IDS.some((one) => one === id)) {
    const message = `${id}: containerd gives a payload to ${PROCESSOR_IDS.join(' and ')} alone`;
    findings.push({ level: 'fail', subject, message, hint: `accept ${accepts.join(', ')} there` });
  }
  return findings;
}

/** Without a payload ctd-decoder can do nothing. */
function examinePayload(containerd: Containerd, dump: TomlTable): readonly Finding[] {
  const { version } = containerd;
  const subject = runtimeName(containerd);
  const images = table(table(dump.plugins)[IMAGES]);
  const cri = table(table(dump.plugins)['io.containerd.grpc.v1.cri']);
  const rule = version === undefined ? undefined : payloadRule(version);
  const fail = (message: string, hint: string): readonly Finding[] => [{ level: 'fail', subject, message, hint }];
  if (rule === 'never' && version !== undefined)
    return fail(
      `gives ctd-decoder no payload, as every ${formatVersion(version)} does`,
      'use ocicrypt-kms decoder, which needs none: ocicrypt-kms config containerd',
    );
  if (rule === 'local pull' && images.use_local_image_pull !== true)
    return fail(
      'gives ctd-decoder no payload, because CRI leaves pulls to the transfer service',
      `use ocicrypt-kms decoder, or ${LOCAL_PULL}`,
    );
  const model = [cri, images].map((one) => table(one.image_decryption).key_model).find((one) => one !== undefined);
  if (model !== undefined && model !== 'node')
    return fail(
      `has key_model = ${JSON.stringify(model)}: CRI gives ctd-decoder no payload`,
      'set key_model = "node", or leave it out',
    );
  if (version !== undefined || images.use_local_image_pull === true) return [];
  const message = 'would give ctd-decoder no payload from 2.1 on, because CRI leaves pulls to the transfer service';
  return [{ level: 'warn', subject, message, hint: `use ocicrypt-kms decoder, or ${LOCAL_PULL}` }];
}

/** containerd passes over what stands in a wrong table and says nothing. */
function misplacedPull(containerd: Containerd): readonly Finding[] {
  const NAME = 'use_local_image_pull';
  for (const path of filesOf(containerd.config)) {
    const found = findMember(parseQuietly(readText(path) ?? '') ?? {}, NAME, []);
    const wrong = found.find((place) => place.join('.') !== `plugins.${IMAGES}.${NAME}`);
    if (wrong === undefined) continue;
    const message = `${path} sets ${NAME} in [${wrong.slice(0, -1).join('.')}], where it has no effect`;
    return [
      {
        level: 'warn',
        subject: runtimeName(containerd),
        message,
        hint: `ocicrypt-kms decoder does not need it: remove it; ctd-decoder needs it in [plugins."${IMAGES}"]`,
      },
    ];
  }
  return [];
}

function findMember(value: TomlTable, name: string, path: readonly string[]): readonly (readonly string[])[] {
  return Object.entries(value).flatMap(([key, inner]) =>
    key === name ? [[...path, key]] : isTable(inner) ? findMember(inner, name, [...path, key]) : [],
  );
}

/** A configuration and the files that it imports. */
function filesOf(config: string): readonly string[] {
  const patterns = importsOf(parseQuietly(readText(config) ?? '') ?? {});
  return [
    config,
    ...patterns.flatMap((pattern) =>
      globSync(isAbsolute(pattern) ? pattern : resolve(dirname(config), pattern)).toSorted(),
    ),
  ];
}

/** Where containerd finds a program: by its own PATH. */
function locate(path: string, { running }: Containerd): string | undefined {
  if (path.includes('/')) return isExecutable(path) && isAbsolute(path) ? path : undefined;
  const directories = environmentOf(running).environment.PATH?.split(':') ?? SERVICE_DIRECTORIES;
  return path === ''
    ? undefined
    : findProgram(
        '/',
        directories.filter((one) => one !== ''),
        path,
      );
}

/** Its own variables stand after those of containerd. */
function processorEnvironment({ environment }: Processor, { running }: Containerd): NodeJS.ProcessEnv {
  const own = environment.map((one): [string, string] => [
    one.slice(0, one.indexOf('=')),
    one.slice(one.indexOf('=') + 1),
  ]);
  return { ...environmentOf(running).environment, ...Object.fromEntries(own) };
}
