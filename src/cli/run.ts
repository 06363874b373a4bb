// The only code that knows exit codes: words in, one command run, one line on failure.

import { basename } from 'node:path';
import {
  asOcicryptError,
  describeError,
  ERROR_STATUS,
  OcicryptError,
  outdatedNode,
  showSystemCode,
} from '../base/errors.ts';
import { nearest } from '../base/nearest.ts';
import { setting, spellSettings } from '../base/setting.ts';
import { showValue } from '../base/shown.ts';
import type { Command, Personality } from './command.ts';
import { COMMANDS } from './commands.ts';
import { compileHotCode } from './compilation.ts';
import { optionOf } from './options/names.ts';
import { parseSettings, type Settings } from './options/settings.ts';
import type { OptionName } from './options/table.ts';
import { isReaderGone, READER_GONE, type Terminal } from './terminal.ts';

/** How the executable was called. */
export type Invocation = {
  /** The path or name it was started by. */
  readonly name: string;
  readonly words: readonly string[];
};

/**
 * Runs one command.
 *
 * @returns the exit status: 0, that of the error's code (docs/errors.md), or {@link READER_GONE}; never throws
 */
export async function run(invocation: Invocation, terminal: Terminal): Promise<number> {
  spellSettings(optionOf);
  const personality = personalityOf(invocation.name);
  try {
    const outdated = outdatedNode(process.versions);
    if (outdated !== undefined) throw outdated;
    checkDirectory();
    await dispatch(invocation.words, personality, terminal);
    return 0;
  } catch (error) {
    if (isReaderGone(error)) return READER_GONE;
    const known = asOcicryptError(error);
    const line = `${personality}: ${describeError(known)}`;
    terminal.say(line);
    if (personality === 'ocicrypt-kms') await COMMANDS.get(invocation.words[0] ?? '')?.failed?.(line, known);
    return ERROR_STATUS[known.code].exit;
  }
}

/** The line for a command that still waits though nothing is left to wait for. @param name as {@link Invocation} has it */
export function describeNoEnd(name: string): string {
  const error = new OcicryptError('internal', 'the command came to no end', {
    hint: `run again with ${setting('log')} FILE and report what it says`,
  });
  return `${personalityOf(name)}: ${describeError(error)}`;
}

function personalityOf(name: string): Personality {
  return basename(name) === 'kms_oci_crypt' ? 'kms_oci_crypt' : 'ocicrypt-kms';
}

/** No relative path means anything without it; the executable's runtime refuses it likewise, before any of this runs. */
function checkDirectory(): void {
  try {
    process.cwd();
  } catch (cause) {
    throw new OcicryptError('not-found', `the working directory is gone${showSystemCode(cause)}`, {
      cause,
      hint: 'change to a directory that exists',
    });
  }
}

async function dispatch(words: readonly string[], personality: Personality, terminal: Terminal): Promise<void> {
  const [first, ...rest] = words;
  if (personality === 'kms_oci_crypt') {
    // Its command needs no name, and may have it; its server was a program of its own.
    const isNamed = first === 'keyprovider' || first === 'serve';
    return runCommand(isNamed ? first : 'keyprovider', isNamed ? rest : words, personality, terminal);
  }
  if (first === '--version') return runCommand('version', rest, personality, terminal);
  if (first !== undefined && HELP_WORDS.includes(first)) return showHelp(rest, terminal);
  if (first === undefined) throw new OcicryptError('usage', 'no command', { hint: 'run ocicrypt-kms --help' });
  if (first.startsWith('-')) throw optionFirst(first);
  return runCommand(first, rest, personality, terminal);
}

const HELP_WORDS: readonly string[] = ['help', '--help', '-h'];

async function showHelp([name, ...more]: readonly string[], terminal: Terminal): Promise<void> {
  const { commandHelp, overviewHelp } = await import('./help.ts');
  if (name === undefined || HELP_WORDS.includes(name)) return terminal.write(overviewHelp());
  if (more.length > 0)
    throw new OcicryptError('usage', 'help takes one command', { hint: 'run ocicrypt-kms help COMMAND' });
  terminal.write(commandHelp(name, await findCommand(name), 'ocicrypt-kms'));
}

async function findCommand(name: string): Promise<Command> {
  const command = COMMANDS.get(name);
  if (command !== undefined) return command;
  const near = await nearest(name, [...COMMANDS.keys()]);
  throw new OcicryptError('usage', `unknown command ${showValue(name)}`, {
    hint: near === undefined ? 'run ocicrypt-kms --help' : `did you mean ${near}?`,
  });
}

/** So the reference provider and its server are called, whose names needed no command. */
function optionFirst(word: string): OcicryptError {
  const [, name = ''] = /^--?([^=]*)/.exec(word) ?? [];
  const command = name === 'grpcport' ? 'serve' : /^(?:adc|kmsURI|debugLog)$/.test(name) ? 'keyprovider' : undefined;
  return new OcicryptError('usage', `no command before the option ${showValue(word.replace(/=.*/s, ''))}`, {
    hint:
      command === undefined
        ? 'name the command first: run ocicrypt-kms --help'
        : `put ${command} first: ocicrypt-kms ${command} --${name}=…`,
  });
}

async function runCommand(
  name: string,
  words: readonly string[],
  personality: Personality,
  terminal: Terminal,
): Promise<void> {
  const command = await findCommand(name);
  const isReference = personality === 'kms_oci_crypt' || words.some((word) => /^--?grpcport(?:=|$)/.test(word));
  const given = await parseSettings(words, command.options, isReference ? 'go' : 'ours');
  let settings = given;
  if (settings.switch('help'))
    return terminal.write((await import('./help.ts')).commandHelp(name, command, personality));
  try {
    checkOperands(name, command, settings);
    refuseUncheckedTls(process.env);
    const reread = async () => {
      settings = await withFile(given, command, terminal);
      if (name === 'serve' && personality === 'kms_oci_crypt') settings = withReferencePort(settings);
      checkModes(command, settings, given.names());
      return settings;
    };
    await reread();
    // One request is answered, and a layer decrypted by native code, before compiled code would pay for its compilation.
    if (name !== 'keyprovider' && name !== 'decoder') compileHotCode();
    const shown = settings.switch('quiet') ? quiet(terminal) : terminal;
    await command.run({ settings, given: given.names(), terminal: shown, personality, reread });
  } catch (error) {
    await logFailure(name, settings, error);
    throw error;
  }
}

/** Without progress and advice. */
function quiet(terminal: Terminal): Terminal {
  return {
    read: (maximum) => terminal.read(maximum),
    write: (data, purpose) => terminal.write(data, purpose),
    say: (line, weight) => {
      if (weight !== 'advice') terminal.say(line);
    },
    streams: () => terminal.streams(),
  };
}

/** With those of the configuration file, if there is one, and of what else tells the command something. */
async function withFile(given: Settings, command: Command, terminal: Terminal): Promise<Settings> {
  if (command.isOpen) return (await import('./surroundings.ts')).addSurroundings(given, command, terminal);
  const file = given.text('config');
  if (file === undefined) return given;
  return given.over(await (await import('./options/configuration.ts')).readConfiguration(file));
}

/** The reference server listens on this port, also where nothing says so. */
function withReferencePort(settings: Settings): Settings {
  const isSaid = settings.text('grpcport') !== undefined || settings.list('listen').length > 0;
  return isSaid || process.env.LISTEN_FDS !== undefined ? settings : settings.with('grpcport', [':50051']);
}

/** The line that clients lose is in the debug log too, whatever failed. */
async function logFailure(command: string, settings: Settings, error: unknown): Promise<void> {
  const file = settings.text('debugLog');
  if (file === undefined) return;
  const [{ openDebugLog }, { reportError }] = await Promise.all([
    import('./logs/debug-log.ts'),
    import('../base/error-report.ts'),
  ]);
  try {
    openDebugLog(file).warn({ command, error: reportError(error) }, 'failed');
  } catch {
    // The failure is said on standard error all the same.
  }
}

/**
 * What would have no effect is refused: somebody relies on it.
 *
 * @param given the options of the command line; a configuration file may be one for several commands
 */
function checkModes({ modes = [] }: Command, settings: Settings, given: readonly OptionName[]): void {
  for (const { name, isOn, takes, alone } of modes) {
    const isInMode = isOn(settings, process.env);
    const idle = given.find((option) => (isInMode ? takes?.includes(option) === false : alone.includes(option)));
    if (idle === undefined) continue;
    throw new OcicryptError('usage', `--${idle} has no effect ${isInMode ? 'with' : 'without'} ${name}`, {
      hint: isInMode ? 'leave it out here: the server has its own' : `leave it out, or add ${name}`,
    });
  }
}

/** Both runtimes obey it, in libraries that open connections of their own too. */
function refuseUncheckedTls(environment: NodeJS.ProcessEnv): void {
  if (environment.NODE_TLS_REJECT_UNAUTHORIZED?.trim() !== '0') return;
  throw new OcicryptError('configuration', 'NODE_TLS_REJECT_UNAUTHORIZED=0 turns off the checking of certificates', {
    hint: 'unset it, and name private authorities with --ca=FILE',
  });
}

function checkOperands(name: string, command: Command, settings: Settings): void {
  if (command.operands.endsWith(']…')) return;
  const wanted = command.operands === '' ? 0 : command.operands.split(' ').length;
  if (settings.operands.length === wanted) return;
  throw new OcicryptError('usage', `${name} takes ${wanted === 0 ? 'no words' : command.operands}`, {
    hint: `run ocicrypt-kms ${name} --help`,
  });
}
