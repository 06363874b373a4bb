// The command that makes a local key.

import { resolve } from 'node:path';
import { createKeyfile } from '../kms/keyfile.ts';
import type { CommandContext } from './command.ts';

/** Makes the file and prints the URI to encrypt to, and the one by which packets will know the key. */
export async function runKeygen({ settings, terminal }: CommandContext): Promise<void> {
  const file = resolve(settings.operands[0] ?? '');
  const thumbprint = createKeyfile(file);
  const uri = `keyfile://${file}`;
  if (settings.switch('json')) terminal.write(`${JSON.stringify({ uri, key: thumbprint })}\n`);
  else terminal.write(`${uri}\n`);
  terminal.say(`packets know this key as ${thumbprint}; keep a copy of the file, nobody can make it again`);
}
