// The policy that `node install` writes: refused before anything changes if the decoder would refuse it later.

import { join, resolve } from 'node:path';
import { wipe } from '../../base/bytes.ts';
import { OcicryptError } from '../../base/errors.ts';
import { readSecretFile } from '../../base/secret-file.ts';
import { showValue } from '../../base/shown.ts';
import { POLICY_FILE } from '../../node/drop-in.ts';
import { readText } from '../../node/files.ts';
import { checkLabels } from '../../provider/labels.ts';
import type { CommandContext } from '../command.ts';
import { optionMembers } from '../options/given.ts';
import type { Settings } from '../options/settings.ts';
import type { OptionName } from '../options/table.ts';
import { openRemote } from '../remote.ts';
import { parseRules } from '../setup.ts';
import { remoteMember } from './service.ts';

/** Not of the policy. */
const OF_INSTALLATION: readonly OptionName[] = [
  'root',
  'dry-run',
  'no-restart',
  'runtime-version',
  'config',
  'service',
];
/** Each of them leads to keys. */
const OF_KEYS: readonly OptionName[] = ['allow', 'key', 'kbs-key', 'remote'];
/** The largest that is read of a file that `--key` names. */
const MAXIMUM_KEY_FILE_BYTES = 1024 * 1024;

export type PolicyOptions = {
  readonly root: string;
  /** Whether a service of this node keeps the keys. */
  readonly isService: boolean;
  /** Whether the files of keys must be there already: not in the build of an image. */
  readonly hasKeyFiles: boolean;
};

/**
 * What is in the settings, in whole paths.
 *
 * @returns undefined if the file that is there says all
 * @throws OcicryptError `configuration` if no key is named, and what a decoder or a server throws that reads this policy
 */
export function policyText(
  { settings, given }: Pick<CommandContext, 'settings' | 'given'>,
  { root, isService, hasKeyFiles }: PolicyOptions,
): string | undefined {
  const text = readText(join(root, POLICY_FILE));
  // One that was not for a service does not say that decoders ask it.
  const isThere = text !== undefined && (!isService || text.includes(remoteMember()));
  const file = settings.text('config');
  const isOwnFile = file === undefined || resolve(file) === join(root, POLICY_FILE);
  if (isThere && isOwnFile && given.every((name) => OF_INSTALLATION.includes(name))) return undefined;
  // The server writes the audit log; a decoder refuses one beside it.
  const elsewhere = isService ? [...OF_INSTALLATION, 'audit-log', 'remote'] : OF_INSTALLATION;
  const members = settings.names().filter((name) => !elsewhere.includes(name));
  if (OF_KEYS.every((name) => !members.includes(name) || settings.texts(name).length === 0)) {
    throw new OcicryptError('configuration', 'nothing says which keys this node may use', {
      hint: isThere
        ? `change ${POLICY_FILE} itself, or say all of it: options replace the whole file`
        : 'add --allow=KEY, --key=FILE, --config=FILE, or --remote=ADDRESS of a server that has them',
    });
  }
  refuseWrong(settings, { isService, hasKeyFiles });
  return `# Written by ocicrypt-kms node install: the keys that this node may use; every other one is refused.\n${isService ? remoteMember() : ''}${optionMembers(settings, members)}`;
}

function refuseWrong(settings: Settings, { isService, hasKeyFiles }: Omit<PolicyOptions, 'root'>): void {
  const time = settings.requestTime();
  const remote = settings.text('remote');
  // Nothing is asked yet.
  if (remote !== undefined && !isService) openRemote(remote, settings, time ?? 1);
  parseRules(settings);
  const labels = settings.pairs('context');
  if (labels !== undefined) checkLabels(labels);
  for (const path of settings.list('key')) {
    if (/^[a-z0-9]+:/.test(path))
      throw new OcicryptError('configuration', `--key names a file, not ${showValue(path)}`, {
        hint: `write --allow=${path}, or the path of the file alone`,
      });
    if (hasKeyFiles) wipe(readSecretFile(resolve(path), 'the key file', MAXIMUM_KEY_FILE_BYTES));
  }
}
