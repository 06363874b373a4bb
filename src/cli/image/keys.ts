// Opens the keys that the settings of a command name, for commands that work on layers.

import { checkedEnvironment } from '../../base/environment.ts';
import { KeyRing } from '../../client/key-ring.ts';
import { readProviderConfig } from '../../client/provider-config.ts';
import { sortKeys } from '../../client/recipients.ts';
import type { CommandContext } from '../command.ts';
import { openProvider, type ProviderLogs } from '../setup.ts';

/**
 * @param logs those that are open already; by default they are opened
 * @throws OcicryptError `usage`, `configuration`, `not-written`
 */
export async function openKeys(
  { settings, personality, terminal }: Pick<CommandContext, 'settings' | 'personality' | 'terminal'>,
  logs?: ProviderLogs,
): Promise<KeyRing> {
  const { files, keys, jwe, parameters } = await sortKeys(settings.list('key'));
  const sorted = settings.with('key', files).with('allow', [...settings.list('allow'), ...keys]);
  const warn = (line: string) => terminal.say(`warning: ${line}`);
  const { options, close } = await openProvider(sorted, { personality, door: 'command', warn }, logs);
  // A command that works on layers names its keys: the key meant if a call names none has no place here.
  const { defaultKey, spelling, ...rest } = options;
  const configured = await readProviderConfig(checkedEnvironment(process.env).OCICRYPT_KEYPROVIDER_CONFIG);
  return new KeyRing({
    options: rest,
    configured,
    jwe,
    parameters,
    close,
  });
}
