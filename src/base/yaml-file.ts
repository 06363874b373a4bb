// The only code that reads YAML: files (or JSON, which is YAML) that operators name.

import { OcicryptError } from './errors.ts';
import { readGuardedFile } from './secret-file.ts';
import { showPath } from './shown.ts';

/** An object whose members nobody has looked at. */
export type UnknownRecord = Readonly<Record<string, unknown>>;

/** What people get wrong most, by the parser's word for it: what is wrong, and what to do. */
const FAULTS: Readonly<Record<string, readonly [reason: string, hint: string]>> = {
  ALIAS: ['a value that begins with *', 'put it in quotes; an alias *NAME is refused: write out what it stands for'],
  BAD_ALIAS: ['a value that begins with * or &', 'put it in quotes'],
  BAD_INDENT: ['a bracket that is not closed, or indented too little', 'close it'],
  BAD_SCALAR_START: ['a value that begins with a reserved character', 'put it in quotes'],
  BLOCK_AS_IMPLICIT_KEY: ['lines that are not indented alike, or a second colon', 'put values with a colon in quotes'],
  DUPLICATE_KEY: ['a member that is there twice', 'keep one of them'],
  MISSING_CHAR: ['a quote or bracket that is not closed', 'close it'],
  MULTIPLE_DOCS: ['a second document', 'keep one, without a line of ---'],
  TAB_AS_INDENT: ['a tab before a name', 'indent with spaces'],
};

/**
 * The members of a file; of an empty one there are none. Aliases are refused: a small file could stand for a large one.
 *
 * @param what how the file is called in an error ("the configuration")
 * @param read how much care is taken of who may write the file: not every user of the machine, if it is left out. In any
 * case a FIFO does not hang and a device does not go on for ever
 * @throws OcicryptError `configuration`, naming the file, and the line if it is not valid YAML
 */
export async function readYamlFile(
  file: string,
  what: string,
  maximumBytes: number,
  read: typeof readGuardedFile = readGuardedFile,
): Promise<UnknownRecord> {
  const text = readText(file, what, maximumBytes, read);
  const { parse, YAMLParseError } = await import('yaml');
  let document: unknown;
  try {
    document = parse(text, { maxAliasCount: 0, prettyErrors: true, logLevel: 'error' });
  } catch (cause) {
    // An alias has another class and no line. What the parser says is not shown: it may quote the file.
    const other = { code: cause instanceof ReferenceError ? 'ALIAS' : '', linePos: undefined };
    const { code, linePos } = cause instanceof YAMLParseError ? cause : other;
    const line = linePos?.[0].line;
    const [reason, hint] = FAULTS[code] ?? [undefined, 'write lines of NAME: VALUE, or JSON'];
    const where = [line === undefined ? '' : `line ${line}`, reason ?? ''].filter((part) => part !== '').join(': ');
    throw new OcicryptError(
      'configuration',
      `${showPath(file)} is not valid YAML${where === '' ? '' : ` (${where})`}`,
      {
        cause,
        hint,
      },
    );
  }
  if (document === null || document === undefined) return {};
  if (!isRecord(document)) throw new OcicryptError('configuration', `${showPath(file)} must hold members`);
  return document;
}

function readText(file: string, what: string, maximumBytes: number, read: typeof readGuardedFile): string {
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
