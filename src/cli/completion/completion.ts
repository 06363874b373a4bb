// The command that prints a script by which a shell completes our commands.

import { OcicryptError } from '../../base/errors.ts';
import { showValue } from '../../base/shown.ts';
import type { CommandContext } from '../command.ts';
import { bashScript } from './bash.ts';
import { fishScript } from './fish.ts';
import { completedCommands } from './model.ts';
import { zshScript } from './zsh.ts';

/** The script of each shell, made from the tables of commands and options. */
export const SCRIPTS = {
  bash: () => bashScript(completedCommands()),
  zsh: () => zshScript(completedCommands()),
  fish: () => fishScript(completedCommands()),
} as const;

/** Prints the script of the shell that is named. */
export async function runCompletion({ settings, terminal }: CommandContext): Promise<void> {
  const shell = settings.operands[0] ?? '';
  if (!isShell(shell)) {
    throw new OcicryptError('usage', `no completion for the shell ${showValue(shell)}`, {
      hint: `there is one for ${Object.keys(SCRIPTS).join(', ')}`,
    });
  }
  terminal.write(SCRIPTS[shell]());
}

function isShell(name: string): name is keyof typeof SCRIPTS {
  return Object.hasOwn(SCRIPTS, name);
}
