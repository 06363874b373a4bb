// What is set for our commands without a word on the command line: a configuration file that is found, and variables.

import { namePath } from '../../base/shown.ts';
import type { Finding } from '../../node/finding.ts';
import { OPTION_NAMES } from '../options/configuration.ts';
import { findConfiguration } from '../options/found.ts';
import { variableOf } from '../options/table.ts';

/** @throws OcicryptError `configuration` for a file that must not be used, before which no command works */
export async function findSettings(environment: NodeJS.ProcessEnv): Promise<readonly Finding[]> {
  const variables = OPTION_NAMES.flatMap((name) => variableOf(name) ?? []).filter((name) => name in environment);
  const set = variables.map(
    (subject): Finding => ({ level: 'ok', subject, message: 'is set, and counts for commands' }),
  );
  const found = await findConfiguration(environment);
  if (found === undefined) return set;
  const { texts, left } = found;
  const counts = texts.size === 0 ? 'says nothing that counts' : `says ${[...texts.keys()].join(', ')}`;
  const ignored = left.length === 0 ? '' : `; its ${left.join(', ')} counts if --config names the file`;
  const message = `is found by itself and ${counts}${ignored}`;
  // A policy in it is as it should be on a node: our services name the file.
  return [...set, { level: 'ok', subject: namePath(found.file), message }];
}
