// The command that prints a script by which a shell completes our commands.

import { OcicryptError } from '../../base/errors.ts';
import { showValue } from '../../base/shown.ts';
import type { Command, CommandContext } from '../command.ts';
import { bashScript } from './bash.ts';
import { fishScript } from './fish.ts';
import { completedCommands } from './model.ts';
import { zshScript } from './zsh.ts';

const SCRIPTS = { bash: bashScript, zsh: zshScript, fish: fishScript } as const;

/** Prints the script of the shell that is named. */
export async function runCompletion(
  { settings, terminal }: CommandContext,
  table: ReadonlyMap<string, Command>,
): Promise<void> {
  const shell = settings.operands[0] ?? '';
  if (!isShell(shell)) {
    throw new OcicryptError('usage', `no completion for the shell ${showValue(shell)}`, {
      hint: `there is one for ${Object.keys(SCRIPTS).join(', ')}`,
    });
  }
  terminal.write(completionScript(shell, table));
}

/** The script of a shell. @param table all commands by their names */
export function completionScript(shell: keyof typeof SCRIPTS, table: ReadonlyMap<string, Command>): string {
  return SCRIPTS[shell](completedCommands(table));
}

function isShell(name: string): name is keyof typeof SCRIPTS {
  return Object.hasOwn(SCRIPTS, name);
}
