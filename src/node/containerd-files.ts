// What containerd reads from its files, for one that cannot be asked: put together as containerd 2 does.
// https://github.com/containerd/containerd/blob/main/docs/man/containerd-config.toml.5.md

import { globSync, readFileSync, statSync } from 'node:fs';
import { dirname, isAbsolute, normalize, resolve } from 'node:path';
import { parse, TomlError, type TomlTable } from 'smol-toml';
import { systemCode } from '../base/errors.ts';
import { importsOf, isTable, table } from './containerd-config.ts';
import { BUILT_IN_KEYS, ENCRYPTED_TYPES, PROCESSOR_IDS } from './drop-in.ts';
import type { Finding } from './finding.ts';

/** The processors and the plugins as a dump has them, or why containerd cannot read its files. */
export type ConfigFiles =
  | { readonly config: TomlTable; readonly findings: readonly Finding[] }
  | { readonly problem: string };

const MAXIMUM_FILES = 100;

/** What every containerd has if no file sets other processors of these names: its dump has them too. */
const BUILT_IN: TomlTable = Object.fromEntries(
  PROCESSOR_IDS.map((id, index) => [
    id,
    {
      accepts: ENCRYPTED_TYPES.slice(index, index + 1),
      returns: ENCRYPTED_TYPES[index]?.replace('+encrypted', '') ?? '',
      path: 'ctd-decoder',
      args: ['--decryption-keys-path', BUILT_IN_KEYS],
      env: ['OCICRYPT_KEYPROVIDER_CONFIG=/etc/containerd/ocicrypt/ocicrypt_keyprovider.conf'],
    },
  ]),
);

/**
 * A configuration and what it imports: processors as a whole, plugins member by member, the last file counts. containerd 2.2
 * and later show a pattern of imports in their dumps that no file names, and do not follow it.
 *
 * @returns undefined if there is no such file
 */
export function readConfigFiles(file: string, subject: string): ConfigFiles | undefined {
  let processors: TomlTable = BUILT_IN;
  let plugins: TomlTable = {};
  const setBy = new Map<string, string>();
  let reset: { readonly first: string; readonly second: string } | undefined;
  const seen = new Set<string>();
  const pending = [file];
  for (let path = pending.shift(); path !== undefined && seen.size < MAXIMUM_FILES; path = pending.shift()) {
    if (seen.has(path)) continue;
    seen.add(path);
    const content = readToml(path);
    if (content === undefined && path === file) return undefined;
    if (content === undefined || typeof content === 'string')
      return { problem: `${path} ${content ?? 'is imported and is not there'}` };
    processors = { ...processors, ...table(content.stream_processors) };
    const added = table(content.plugins);
    for (const name of Object.keys(added)) {
      const first = setBy.get(name);
      if (first === undefined) setBy.set(name, path);
      else reset ??= { first, second: path };
    }
    plugins = merge(plugins, added);
    pending.push(...importsOf(content).flatMap((pattern) => resolveImport(path, pattern)));
  }
  const message = `${reset?.second} sets a table of plugins that ${reset?.first} sets too: containerd 1.x forgets what the first one sets`;
  const hint = 'put all settings of one plugin into one file';
  const findings: readonly Finding[] = reset === undefined ? [] : [{ level: 'warn', subject, message, hint }];
  return { config: { stream_processors: processors, plugins }, findings };
}

/** Relative to the file that imports it; a pattern that nothing fits is no fault. */
function resolveImport(file: string, path: string): readonly string[] {
  const whole = isAbsolute(path) ? normalize(path) : resolve(dirname(file), path);
  return whole.includes('*') ? globSync(whole).toSorted() : [whole];
}

/** What the file holds, or what is wrong with it; undefined if it is not there. */
function readToml(file: string): TomlTable | string | undefined {
  try {
    if (!statSync(file).isFile()) return 'is no file';
    return parse(readFileSync(file, 'utf8'));
  } catch (error) {
    if (error instanceof TomlError) return `is not valid TOML (line ${error.line}): containerd does not start with it`;
    return systemCode(error) === 'ENOENT' ? undefined : 'cannot be read here';
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
