// The only code that reads YAML: files (or JSON, which is YAML) that operators name.

import { OcicryptError } from './errors.ts';
import { readPublicFile } from './secret-file.ts';
import { showPath } from './shown.ts';

/** An object whose members nobody has looked at. */
export type UnknownRecord = Readonly<Record<string, unknown>>;

/**
 * The members of a file; of an empty one there are none. Aliases are refused: a small file could stand for a large one.
 *
 * @param what how the file is called in an error ("the configuration")
 * @param read how much care is taken of who may write the file; none if it is left out. In any case a FIFO does not hang
 * and a device does not go on for ever
 * @throws OcicryptError `configuration`, naming the file, and the line if it is not valid YAML
 */
export async function readYamlFile(
  file: string,
  what: string,
  maximumBytes: number,
  read: typeof readPublicFile = readPublicFile,
): Promise<UnknownRecord> {
  const text = readText(file, what, maximumBytes, read);
  const { parse, YAMLParseError } = await import('yaml');
  let document: unknown;
  try {
    document = parse(text, { maxAliasCount: 0, prettyErrors: true, logLevel: 'error' });
  } catch (cause) {
    const line = cause instanceof YAMLParseError ? cause.linePos?.[0].line : undefined;
    const where = line === undefined ? '' : ` (line ${line})`;
    throw new OcicryptError('configuration', `${showPath(file)} is not valid YAML${where}`, {
      cause,
      hint: 'write lines of NAME: VALUE, or JSON',
    });
  }
  if (document === null || document === undefined) return {};
  if (!isRecord(document)) throw new OcicryptError('configuration', `${showPath(file)} must hold members`);
  return document;
}

function readText(file: string, what: string, maximumBytes: number, read: typeof readPublicFile): string {
  try {
    const bytes = read(file, what, maximumBytes);
    if (bytes.length > maximumBytes) {
      throw new OcicryptError('configuration', `${showPath(file)} is too large to be ${what.replace(/^the /, '')}`);
    }
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (cause) {
    if (cause instanceof OcicryptError) throw cause.with({ code: 'configuration' });
    throw new OcicryptError('configuration', `cannot read ${what} ${showPath(file)}`, {
      cause,
      hint: 'it must be UTF-8 text',
    });
  }
}

export function isRecord(value: unknown): value is UnknownRecord {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
