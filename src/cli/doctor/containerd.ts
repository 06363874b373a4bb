// What is known to go wrong with containerd, as far as its configuration shows it.
// https://github.com/containerd/imgcrypt, containerd-config.toml(5)

import { globSync, readFileSync, statSync } from 'node:fs';
import { basename, delimiter, dirname, isAbsolute, join, normalize, resolve } from 'node:path';
import type { TomlTable } from 'smol-toml';
import { namePath } from '../../base/shown.ts';
import { isTable, strings, table } from '../../node/containerd-config.ts';
import { isDirectory, isExecutable } from '../../node/files.ts';
import type { Finding } from '../../node/finding.ts';
import { SERVICE_DIRECTORIES } from '../../node/runtimes.ts';

export type ContainerdFindings = {
  readonly findings: readonly Finding[];
  /** The configurations of key providers that its decoders are given. */
  readonly providerFiles: readonly string[];
};

/** Looks at stream processors for encrypted layers; a file that is not there has nothing to look at. */
export async function findContainerdTraps(file: string, environment: NodeJS.ProcessEnv): Promise<ContainerdFindings> {
  const loaded = await loadConfig(file);
  if (loaded === undefined) return { findings: [], providerFiles: [] };
  if ('problem' in loaded) return { findings: [loaded.problem], providerFiles: [] };
  const { processors, plugins, resetBy } = loaded;
  const subject = 'containerd';
  const findings: Finding[] = [];
  const own = [...processors].filter(([, table]) => strings(table.accepts).some((type) => /\+encrypted/.test(type)));
  const examined = (own.length > 0 ? own : BUILT_IN).map(([id, table]) => examineProcessor(id, table, environment));
  if (own.length === 0) {
    if (examined.some((one) => one.findings.some(({ level }) => level !== 'ok'))) {
      const message = `${file} has no stream processor of its own for encrypted layers, and those that containerd brings are not complete here`;
      const hint = `save what ocicrypt-kms config containerd prints as a file that is imported: ${importHint(file)}`;
      return { findings: [{ level: 'warn', subject, message, hint }], providerFiles: [] };
    }
  }
  findings.push(...examined.flatMap((one) => one.findings));
  const cri = [table(plugins['io.containerd.grpc.v1.cri']), table(plugins.cri), table(plugins[IMAGES])];
  const model = cri.map((one) => table(one.image_decryption).key_model).findLast((one) => one !== undefined);
  if (model !== undefined && model !== 'node') {
    const message = `${file} sets key_model to ${JSON.stringify(model)}: the CRI plugin decrypts nothing`;
    findings.push({ level: 'fail', subject, message, hint: 'set key_model = "node", or leave it out' });
  }
  if (resetBy !== undefined) {
    const message = `${resetBy} sets a table of plugins that ${file} sets too: containerd 1.x forgets what the first one sets`;
    findings.push({ level: 'warn', subject, message, hint: 'put all settings of one plugin into one file' });
  }
  const needsPayload = own.length === 0 || !own.every(([, table]) => isOurs(table));
  if (needsPayload && !cri.some((one) => one.use_local_image_pull === true)) {
    const message = `${file} does not set use_local_image_pull: containerd 2.1 and later would call no provider`;
    const hint = `add use_local_image_pull = true below [plugins."${IMAGES}"]: ${importHint(file)}`;
    findings.push({ level: 'warn', subject, message, hint });
  }
  return { findings, providerFiles: examined.flatMap(({ config }) => (config === undefined ? [] : [config])) };
}

const IMAGES = 'io.containerd.cri.v1.images';

/** k3s and RKE2 write their file anew at each start. */
function importHint(file: string): string {
  return /\/rancher\//.test(file)
    ? `${file} is made of config.toml.tmpl or config-v3.toml.tmpl beside it`
    : `imports = ["${join(dirname(file), 'conf.d')}/*.toml"] in ${file}`;
}

/** Those that containerd has unless a file names others, since 1.5. */
const BUILT_IN: readonly (readonly [string, TomlTable])[] = ['tar', 'tar.gzip'].map((type) => [
  `io.containerd.ocicrypt.decoder.v1.${type}`,
  {
    accepts: [`application/vnd.oci.image.layer.v1.${type.replace('.', '+')}+encrypted`],
    path: 'ctd-decoder',
    args: ['--decryption-keys-path', '/etc/containerd/ocicrypt/keys'],
    env: ['OCICRYPT_KEYPROVIDER_CONFIG=/etc/containerd/ocicrypt/ocicrypt_keyprovider.conf'],
  },
]);

/** Our own decoder needs no payload and no file of providers. */
function isOurs(processor: TomlTable): boolean {
  return strings(processor.args).includes('decoder');
}

type Examined = { readonly findings: readonly Finding[]; readonly config?: string };

function examineProcessor(id: string, processor: TomlTable, environment: NodeJS.ProcessEnv): Examined {
  const subject = `containerd ${id}`;
  const findings: Finding[] = [];
  const fail = (message: string, hint: string) => void findings.push({ level: 'fail', subject, message, hint });
  const path = typeof processor.path === 'string' ? processor.path : '';
  if (!isRunnable(path, environment)) {
    const message = path === '' ? 'names no decoder' : `its decoder ${path} is not here, or is no executable file`;
    fail(
      message,
      isOurs(processor)
        ? 'install it there, or correct path'
        : 'install ctd-decoder (in Debian: imgcrypt), or correct path',
    );
  }
  const args = strings(processor.args);
  const keys = args[args.indexOf('--decryption-keys-path') + 1] ?? '';
  if (args.includes('--decryption-keys-path') && !isDirectory(keys)) {
    const message = `--decryption-keys-path ${keys} is not a directory: layers fail before any provider is called`;
    fail(message, keys === '' ? 'leave it out' : `mkdir -p ${keys}`);
  }
  if (strings(processor.accepts).some((type) => /zstd/.test(type)) && !/\.tar(?:\.gzip)?$/.test(id)) {
    fail(
      'its id ends in neither .tar nor .tar.gzip: it is given no parameters',
      'accept zstd layers in a processor whose id ends in .tar.gzip',
    );
  }
  const variable = strings(processor.env).findLast((one) => one.startsWith('OCICRYPT_KEYPROVIDER_CONFIG='));
  const config = variable?.slice('OCICRYPT_KEYPROVIDER_CONFIG='.length);
  if (isOurs(processor)) {
    // Its options say which keys it may use.
  } else if (config === undefined) {
    findings.push({
      level: 'warn',
      subject,
      message: 'has no OCICRYPT_KEYPROVIDER_CONFIG of its own',
      hint: 'add env = ["OCICRYPT_KEYPROVIDER_CONFIG=/etc/containerd/ocicrypt.json"], or set it in the unit',
    });
  } else if (!isFile(config)) {
    const message = `OCICRYPT_KEYPROVIDER_CONFIG names ${namePath(config)}, which is no file: no provider is called`;
    fail(message, `ocicrypt-kms config ocicrypt > ${namePath(config)}`);
  }
  const isKnown = config !== undefined && isFile(config);
  return {
    findings: findings.length > 0 ? findings : [{ level: 'ok', subject, message: 'is complete' }],
    ...(isKnown ? { config } : {}),
  };
}

type Loaded = {
  readonly processors: ReadonlyMap<string, TomlTable>;
  readonly plugins: TomlTable;
  /** The imported file that sets a plugin which an earlier file sets as well. */
  readonly resetBy: string | undefined;
};

const MAXIMUM_FILES = 100;

/**
 * A configuration and what it imports, as containerd 2 puts them together: processors as a whole, plugins member by
 * member, the last file counts. Undefined if there is none.
 */
async function loadConfig(root: string): Promise<Loaded | { readonly problem: Finding } | undefined> {
  const processors = new Map<string, TomlTable>();
  let plugins: TomlTable = {};
  let resetBy: string | undefined;
  const seen = new Set<string>();
  const pending = [root];
  for (let file = pending.shift(); file !== undefined && seen.size < MAXIMUM_FILES; file = pending.shift()) {
    if (seen.has(file)) continue;
    seen.add(file);
    const content = await readToml(file);
    if (content === undefined && file === root) return undefined;
    if (content === undefined || typeof content === 'string') {
      const message = `${file} ${content ?? 'is imported and is not there'}`;
      return { problem: { level: 'fail', subject: 'containerd', message, hint: 'see: containerd config dump' } };
    }
    for (const [id, processor] of Object.entries(table(content.stream_processors)))
      processors.set(id, table(processor));
    const added = table(content.plugins);
    if (Object.keys(added).some((name) => Object.hasOwn(plugins, name))) resetBy ??= file;
    plugins = merge(plugins, added);
    pending.push(...strings(content.imports).flatMap((path) => resolveImport(file, path)));
  }
  return { processors, plugins, resetBy };
}

/** Relative to the file that imports it; a pattern that nothing fits is no fault. */
function resolveImport(file: string, path: string): readonly string[] {
  const whole = isAbsolute(path) ? normalize(path) : resolve(dirname(file), path);
  return whole.includes('*') ? globSync(whole).toSorted() : [whole];
}

/** What the file holds, or what is wrong with it; undefined if it is not there. */
async function readToml(file: string): Promise<TomlTable | string | undefined> {
  let text: string;
  try {
    if (!statSync(file).isFile()) return 'is no file';
    text = readFileSync(file, 'utf8');
  } catch (error) {
    return error instanceof Error && 'code' in error && error.code === 'ENOENT' ? undefined : 'cannot be read here';
  }
  const { parse, TomlError } = await import('smol-toml');
  try {
    return parse(text);
  } catch (error) {
    const line = error instanceof TomlError ? ` (line ${error.line})` : '';
    return `is not valid TOML${line}: containerd does not start with it`;
  }
}

function merge(to: TomlTable, from: TomlTable): TomlTable {
  const merged: TomlTable = { ...to };
  for (const [name, value] of Object.entries(from)) {
    const before = merged[name];
    merged[name] = isTable(before) && isTable(value) ? merge(before, value) : value;
  }
  return merged;
}

/** By the directories of services beside the PATH of this command. */
function isRunnable(path: string, environment: NodeJS.ProcessEnv): boolean {
  const directories = [...SERVICE_DIRECTORIES, ...(environment.PATH ?? '').split(delimiter)];
  const places = isAbsolute(path) ? [path] : directories.map((directory) => join(directory, basename(path)));
  return path !== '' && places.some(isExecutable);
}

function isFile(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isFile() ?? false;
}
