// containerd's configuration as TOML: what its dump says, what differs between two, and one more line in `imports`.

import { parse, TomlError, type TomlTable, type TomlValue } from 'smol-toml';
import { OcicryptError } from '../base/errors.ts';
import { ENCRYPTED_TYPES, PROCESSOR_IDS } from './drop-in.ts';

/** A program that containerd starts for layers of some types. */
export type Processor = {
  readonly id: string;
  readonly accepts: readonly string[];
  readonly returns: string;
  readonly path: string;
  readonly args: readonly string[];
  readonly environment: readonly string[];
};

/** @throws OcicryptError `configuration` */
export function parseToml(text: string, what: string): TomlTable {
  try {
    return parse(text);
  } catch (cause) {
    const line = cause instanceof TomlError ? ` (line ${cause.line})` : '';
    throw new OcicryptError('configuration', `${what} is not valid TOML${line}`, {
      cause,
      hint: 'correct it: containerd does not start with it',
    });
  }
}

/** The processors for encrypted layers. */
export function encryptedProcessors(config: TomlTable): readonly Processor[] {
  return Object.entries(table(config.stream_processors))
    .map(([id, value]) => {
      const one = table(value);
      return {
        id,
        accepts: strings(one.accepts),
        returns: typeof one.returns === 'string' ? one.returns : '',
        path: typeof one.path === 'string' ? one.path : '',
        args: strings(one.args),
        environment: strings(one.env),
      };
    })
    .filter(({ accepts }) => accepts.some((type) => ENCRYPTED_TYPES.some((encrypted) => encrypted === type)));
}

/** The settings that differ between two dumps, as paths; our own processors and what is imported may. */
export function foreignDifferences(before: TomlTable, after: TomlTable): readonly string[] {
  return differences(before, after, [])
    .filter(
      (path) =>
        path[0] !== 'imports' && !(path[0] === 'stream_processors' && PROCESSOR_IDS.some((id) => id === path[1])),
    )
    .map((path) => path.join('.'));
}

function differences(
  a: TomlValue | undefined,
  b: TomlValue | undefined,
  path: readonly string[],
): readonly (readonly string[])[] {
  if (isTable(a) && isTable(b)) {
    return [...new Set([...Object.keys(a), ...Object.keys(b)])].flatMap((name) =>
      differences(a[name], b[name], [...path, name]),
    );
  }
  // A table that is not there is one without members: containerd leaves empty ones out in some versions.
  if (isTable(a) && b === undefined) return differences(a, {}, path);
  if (a === undefined && isTable(b)) return differences({}, b, path);
  return JSON.stringify(a) === JSON.stringify(b) ? [] : [path];
}

/** The patterns of files that a configuration imports. */
export function importsOf(config: TomlTable): readonly string[] {
  return strings(config.imports);
}

/**
 * The same text with one more pattern in `imports`, and nothing else changed; comments stay.
 *
 * @throws OcicryptError `configuration` if it cannot be added without doubt
 */
export function addImport(text: string, pattern: string, file: string): string {
  const before = parseToml(text, file);
  const added = JSON.stringify(pattern);
  const imports = importsOf(before);
  // Of the top table, which ends where another one begins.
  const end = /^[ \t]*\[/m.exec(text)?.index ?? text.length;
  const head = text.slice(0, end);
  const list = /^[ \t]*(?:imports|"imports"|'imports')[ \t]*=[ \t]*\[/m.exec(head);
  let changed: string;
  if (list === null) {
    const version = /^[ \t]*version[ \t]*=[^\n]*(?:\n|$)/m.exec(head);
    const at = version === null ? 0 : version.index + version[0].length;
    const lineEnd = at > 0 && text[at - 1] !== '\n' ? '\n' : '';
    changed = `${text.slice(0, at)}${lineEnd}imports = [${added}]\n${text.slice(at)}`;
  } else {
    const at = list.index + list[0].length;
    changed = `${text.slice(0, at)}${added}${imports.length > 0 ? ', ' : ''}${text.slice(at)}`;
  }
  const wanted = JSON.stringify({ ...before, imports: [pattern, ...imports].toSorted() });
  const after = parseQuietly(changed);
  const got = after === undefined ? '' : JSON.stringify({ ...before, ...after, imports: importsOf(after).toSorted() });
  if (got === wanted && after !== undefined && Object.keys(after).every((name) => name === 'imports' || name in before))
    return changed;
  throw new OcicryptError('configuration', `${file} is written in a way that is not changed by a program`, {
    hint: `add ${added} to its imports by hand, and run this again`,
  });
}

/** The same text without that pattern, if it stands there as `addImport` writes it. */
export function removeImport(text: string, pattern: string): string {
  const added = JSON.stringify(pattern);
  return text
    .replace(`imports = [${added}]\n`, '')
    .replace(new RegExp(`((?:imports|"imports"|'imports')[ \\t]*=[ \\t]*\\[)${literally(added)}, `), '$1');
}

function literally(text: string): string {
  return text.replaceAll(/[.*+?^${}()|[\]\\]/g, '\\$&');
}

export function parseQuietly(text: string): TomlTable | undefined {
  try {
    return parse(text);
  } catch {
    return undefined;
  }
}

export function isTable(value: TomlValue | undefined): value is TomlTable {
  return typeof value === 'object' && !Array.isArray(value) && !(value instanceof Date);
}

export function table(value: TomlValue | undefined): TomlTable {
  return isTable(value) ? value : {};
}

function strings(value: TomlValue | undefined): readonly string[] {
  return Array.isArray(value) ? value.filter((one) => typeof one === 'string') : [];
}
