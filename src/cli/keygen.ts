// The command that makes a local key.

import { rmSync } from 'node:fs';
import { resolve } from 'node:path';
import { asOcicryptError, OcicryptError } from '../base/errors.ts';
import { parseKeyUri } from '../base/key-uri.ts';
import { readFileName } from '../base/operator-text.ts';
import { showPath } from '../base/shown.ts';
import { createKeyfile } from '../kms/keyfile/key.ts';
import type { CommandContext } from './command.ts';
import { asciiJson } from './text.ts';

/** Makes the file and prints the URI to encrypt to, and the one by which packets will know the key. */
export async function runKeygen({ settings, terminal }: CommandContext): Promise<void> {
  const name = readFileName(settings.operands[0] ?? '');
  if (typeof name !== 'string') throw new OcicryptError('usage', `FILE ${name.problem}`, { hint: name.hint });
  const file = resolve(name);
  const uri = `keyfile://${file}`;
  // It could open images, and could be named for none.
  parseKeyUri(uri);
  const thumbprint = createKeyfile(file);
  try {
    terminal.write(settings.switch('json') ? `${asciiJson({ uri, key: thumbprint })}\n` : `${uri}\n`);
  } catch (error) {
    throw withoutKey(file, error);
  }
  terminal.say(`packets know this key as ${thumbprint}; keep a copy of the file: it cannot be made again`, 'advice');
}

/** A key that its user was not told of is removed; one that stays is named. */
function withoutKey(file: string, error: unknown): OcicryptError {
  const { code, message } = asOcicryptError(error);
  try {
    rmSync(file);
    return new OcicryptError(code, `${message}, so ${showPath(file)} was removed`, { cause: error, hint: 'run again' });
  } catch {
    return new OcicryptError(code, `${message}, and the new key stays: keyfile://${file}`, { cause: error });
  }
}
