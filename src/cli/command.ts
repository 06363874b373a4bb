// What a command is: the contract between the table of commands and the files that run them.

import type { OcicryptError } from '../base/errors.ts';
import type { Settings } from './options/settings.ts';
import type { OptionName } from './options/table.ts';
import type { Terminal } from './terminal.ts';

/** What differs when the executable is called by the reference provider's name. */
export type Personality = 'ocicrypt-kms' | 'kms_oci_crypt';

export type CommandContext = {
  readonly settings: Settings;
  /** The options of the command line; what a configuration file says is in the settings too. */
  readonly given: readonly OptionName[];
  readonly terminal: Terminal;
  readonly personality: Personality;
  /** The settings as they are now: those of the command line over what the configuration file says by now. @throws OcicryptError */
  readonly reread: () => Promise<Settings>;
};

/** When some options have no effect because of other options, words or variables; they are refused, not ignored. */
export type CommandMode = {
  /** How the mode is called in an error, after "with" and "without". */
  readonly name: string;
  /** Whether the command is in this mode. @param settings those of a configuration file too */
  readonly isOn: (settings: Settings, environment: NodeJS.ProcessEnv) => boolean;
  /** The options that have an effect in this mode, if some have none. */
  readonly takes?: readonly OptionName[];
  /** The options that have an effect in this mode alone. */
  readonly alone: readonly OptionName[];
};

export type Command = {
  /** The words that are not options, as help shows them. */
  readonly operands: string;
  /** One line for help: what the command does. */
  readonly describe: string;
  /** Two typical calls for help, without the command's name. */
  readonly examples: readonly [string, string];
  readonly options: readonly OptionName[];
  readonly modes?: readonly CommandMode[];
  /**
   * Whether variables and a configuration file that is found add to what its caller names. Not for what other programs
   * start, with an environment from anywhere, nor for what writes down the options that it is given.
   */
  readonly isOpen?: true;
  /** Runs the command; whatever goes wrong is thrown as an OcicryptError. */
  readonly run: (context: CommandContext) => Promise<void>;
  /** What is done about the line of any failure, its options' too, after that was said and before the process ends. */
  readonly failed?: (line: string, error: OcicryptError) => Promise<void>;
};
