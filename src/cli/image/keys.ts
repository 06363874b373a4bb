// Who opens and wraps layer keys for a command that works on layers: our own provider in this process, the private keys
// that were named, and the providers that OCICRYPT_KEYPROVIDER_CONFIG configures.

import { resolve } from 'node:path';
import { checkedEnvironment } from '../../base/environment.ts';
import { asKeyUri, parseKeyUri } from '../../base/key-uri.ts';
import type { KeyHolder } from '../../client/holders.ts';
import { createJweHolder, isPemFile } from '../../client/jwe.ts';
import { createProviderHolder, type ProviderCall } from '../../client/provider.ts';
import { type ConfiguredProvider, readProviderConfig } from '../../client/provider-config.ts';
import type { ProviderParameters } from '../../client/provider-messages.ts';
import { createProvider, type ProviderOptions } from '../../provider/handle.ts';
import type { CommandContext } from '../command.ts';
import type { Settings } from '../options/settings.ts';
import { openProvider } from '../setup.ts';

/** The keys that the settings name. */
export type Keys = {
  /** Our own provider's name. */
  readonly name: string;
  readonly options: ProviderOptions;
  readonly configured: ReadonlyMap<string, () => ConfiguredProvider>;
  readonly jwe: readonly string[];
  /** For the configured providers. */
  readonly parameters: ProviderParameters;
  readonly close: () => Promise<void>;
};

/** Those who may open a layer key. */
export type Holders = {
  readonly own: readonly KeyHolder[];
  /** By their names. */
  readonly configured: ReadonlyMap<string, KeyHolder>;
};

/** What is done if there is nothing to open any of a layer's keys. */
export const NO_HOLDER = 'name a key that can open it with --key';

/** @throws OcicryptError `usage`, `configuration`, `not-written` */
export async function openKeys({ settings, personality, terminal }: CommandContext): Promise<Keys> {
  const sorted = await sortKeys(settings);
  const { options, close } = await openProvider(sorted.settings, {
    personality,
    door: 'command',
    warn: (line) => terminal.say(`warning: ${line}`),
  });
  // A command that works on layers names its keys: the key meant if a call names none has no place here.
  const { defaultKey, spelling, ...rest } = options;
  const configured = await readProviderConfig(checkedEnvironment(process.env).OCICRYPT_KEYPROVIDER_CONFIG);
  const { jwe, parameters } = sorted;
  return { name: settings.text('provider') ?? 'kmscrypt', options: rest, configured, jwe, parameters, close };
}

/** @param parameters what a client named for providers, ours among them */
export function createHolders(
  { options, configured, jwe, ...keys }: Keys,
  parameters: ProviderParameters = {},
): Holders {
  const own = createProviderHolder(undefined, parameters, callOf(options));
  const others = [...configured].map(([name, provider]): [string, KeyHolder] => {
    const call: ProviderCall = async (...request) => {
      const { createConfiguredCall } = await import('../../client/configured.ts');
      return createConfiguredCall(provider())(...request);
    };
    return [name, createProviderHolder(new Set([name]), { ...parameters, ...keys.parameters }, call)];
  });
  return { own: jwe.length === 0 ? [own] : [createJweHolder(jwe), own], configured: new Map(others) };
}

/** Our own provider as what answers a request. */
export function callOf(options: ProviderOptions): ProviderCall {
  const provider = createProvider(options);
  const caller = `uid:${process.getuid?.()} pid:${process.pid}`;
  return (request, _operation, signal) => provider.handle(request, { caller, signal });
}

/** `--key` takes whatever opens a layer key: a key URI, a key file, an age identity file, a private key in PEM. */
async function sortKeys(settings: Settings): Promise<Pick<Keys, 'jwe' | 'parameters'> & { settings: Settings }> {
  const files: string[] = [];
  const uris: string[] = [];
  const jwe: string[] = [];
  const parameters: Record<string, string[]> = {};
  for (const text of settings.list('key')) {
    const [, kind, rest = ''] = /^(jwe|provider):(.+)$/s.exec(text) ?? [];
    if (kind === 'provider') {
      const [name = '', ...value] = rest.split(':');
      parameters[name] = [...(parameters[name] ?? []), value.length === 0 ? 'Enabled' : value.join(':')];
    } else if (kind === 'jwe') jwe.push(rest);
    else if (asKeyUri(text) !== undefined || /^[a-z0-9]+:/.test(text)) uris.push(formatOperatorKey(text));
    else if (await isPemFile(text)) jwe.push(text);
    else files.push(resolve(text));
  }
  const allow = [...settings.list('allow'), ...uris];
  return { settings: settings.with('key', files).with('allow', allow), jwe, parameters };
}

/** Checked, and as it was written: it may hold an endpoint. */
function formatOperatorKey(text: string): string {
  parseKeyUri(text);
  return text;
}
