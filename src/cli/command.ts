// What a command is: the contract between the table of commands and the files that run them.

import type { OptionName } from './options.ts';
import type { Settings } from './settings.ts';
import type { Terminal } from './terminal.ts';

/** What differs when the executable is called by the reference provider's name. */
export type Personality = 'ocicrypt-kms' | 'kms_oci_crypt';

export type CommandContext = {
  readonly settings: Settings;
  readonly terminal: Terminal;
  readonly personality: Personality;
};

export type CommandMode = {
  readonly option: OptionName;
  /** The options that have an effect with it, and those of them that have none without it. */
  readonly takes: readonly OptionName[];
  readonly alone: readonly OptionName[];
};

export type Command = {
  readonly operands: string;
  readonly describe: string;
  readonly options: readonly OptionName[];
  /** What one of the options changes about the others: what has no effect is refused and not ignored. */
  readonly mode?: CommandMode;
  /** Runs the command; whatever goes wrong is thrown as an OcicryptError. */
  readonly run: (context: CommandContext) => Promise<void>;
};
