// What a command is told by its surroundings, under what its caller has named: variables, and a configuration file that is found.

import { OcicryptError } from '../base/errors.ts';
import { namePath } from '../base/shown.ts';
import type { Command } from './command.ts';
import { readConfiguration } from './options/configuration.ts';
import { findConfiguration } from './options/found.ts';
import type { Settings } from './options/settings.ts';
import type { OptionName } from './options/table.ts';
import { readVariables } from './options/variables.ts';
import type { Terminal } from './terminal.ts';

/** The settings, and under them variables, and under those the file that is named or else found. @throws OcicryptError `configuration` */
export async function addSurroundings(given: Settings, command: Command, terminal: Terminal): Promise<Settings> {
  const settings = await addVariables(given, command);
  const file = settings.text('config');
  return file === undefined ? addFound(settings, command, terminal) : settings.over(await readConfiguration(file));
}

async function addVariables(settings: Settings, { options }: Command): Promise<Settings> {
  const variables = await readVariables(process.env, options);
  // Who is told on the command line for whom an image is to be, is told all of them there.
  const isSaid = settings.names().some((name) => RECIPIENTS.includes(name) || name === 'add' || name === 'remove');
  return settings.over(new Map([...variables].filter(([name]) => !isSaid || !RECIPIENTS.includes(name))));
}

const RECIPIENTS: readonly OptionName[] = ['recipient', 'recipients-file'];

/**
 * The settings, and under them what a file says that is found, except for policy. What would demand more of an image is not
 * left out in silence, and what would allow more keys is told.
 */
async function addFound(settings: Settings, { options }: Command, terminal: Terminal): Promise<Settings> {
  const found = await findConfiguration(process.env);
  if (found === undefined) return settings;
  const given = settings.names();
  const idle = found.left.filter((name) => options.includes(name) && !given.includes(name));
  const file = namePath(found.file);
  if (idle.some((name) => name === 'require' || name === 'only')) {
    throw new OcicryptError(
      'configuration',
      `${file} was found, not named: what it requires of images does not count`,
      {
        hint: `name it with --config=${file}, or give --${idle.join(' and --')}`,
      },
    );
  }
  if (idle.length > 0) {
    terminal.say(
      `warning: ${file} was found, not named, so its ${idle.join(', ')} has no effect; --config=${file} names it`,
    );
  }
  return settings.over(found.texts);
}
