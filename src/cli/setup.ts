// The composition root: settings in, a provider with its backends, audit and log out.

import { resolve } from 'node:path';
import { describeError, OcicryptError } from '../base/errors.ts';
import { type KeyUri, parseKeyUri } from '../base/key-uri.ts';
import { showKeyText } from '../base/shown.ts';
import { createKekStore } from '../kms/store.ts';
import { DEFAULT_LIMITS, limitsWithin } from '../provider/attempts.ts';
import { createProvider, type Provider, type ProviderOptions } from '../provider/handle.ts';
import { checkLabels } from '../provider/labels.ts';
import { USUAL_NAMES } from '../provider/parameters.ts';
import { type AllowRule, parseAllowRule } from '../provider/policy.ts';
import type { PacketChoice } from '../provider/wrap.ts';
import { backendSettings } from './backends.ts';
import type { Personality } from './command.ts';
import type { AuditLog } from './logs/audit-log.ts';
import type { DebugLog } from './logs/debug-log.ts';
import type { Settings } from './options/settings.ts';

export type ProviderSetup = {
  readonly personality: Personality;
  /** A command runs with its caller's rights, so that the keys its caller names are allowed; a server has many callers. */
  readonly door: 'command' | 'server';
  /** Told what works but may be a mistake. */
  readonly warn: (line: string) => void;
};

/** A provider and what is to be closed after it. */
export type OpenProvider = {
  readonly provider: Provider;
  /** What it was made of, for providers that differ in their rules. */
  readonly options: ProviderOptions;
  readonly close: () => Promise<void>;
};

/** The files in which a provider says what it does. */
export type ProviderLogs = {
  readonly audit: AuditLog | undefined;
  readonly log: DebugLog | undefined;
};

/**
 * Opens the files for audit and log that the settings name.
 *
 * @throws OcicryptError `not-written`
 */
export async function openLogs(settings: Settings, setup: ProviderSetup): Promise<ProviderLogs> {
  const auditFile = settings.text('audit-log');
  const debugFile = settings.text('debugLog');
  return {
    audit: auditFile === undefined ? undefined : await openAudit(auditFile, setup.door),
    log: debugFile === undefined ? undefined : await openDebug(debugFile, setup),
  };
}

/**
 * Makes a provider as the settings say. Keys are opened when they are needed.
 *
 * @param logs those that are open already; by default they are opened
 * @throws OcicryptError `usage`, `configuration`, `not-written`
 */
export async function openProvider(
  settings: Settings,
  setup: ProviderSetup,
  logs?: ProviderLogs,
): Promise<OpenProvider> {
  const labels = settings.pairs('context');
  if (labels !== undefined) checkLabels(labels);
  const defaultKeyText = settings.text('kmsURI');
  const provider = settings.text('provider');
  const reference =
    setup.personality === 'kms_oci_crypt' || (setup.door === 'server' && settings.text('grpcport') !== undefined);
  const rules = parseRules(settings);
  const { audit, log } = logs ?? (await openLogs(settings, setup));
  const keks = createKekStore(backendSettings(settings, setup.warn));
  const options: ProviderOptions = {
    openKek: (uri) => keks.open(uri),
    rules,
    callerKeysAllowed: setup.door === 'command',
    names: { configured: provider, fallback: REFERENCE_NAMES[setup.door] },
    packet: packetChoice(settings.text('packet'), reference),
    versions: reference ? 'ignored' : 'exact',
    spelling: byteSpelling(settings.text('bytes')),
    limits: limitsWithin(settings.keyTime() ?? DEFAULT_LIMITS.total),
    labels,
    defaultKey: defaultKeyText === undefined ? undefined : parseKeyUri(defaultKeyText),
    audit,
    log,
  };
  return { provider: createProvider(options), options, close: () => keks.close() };
}

/** The names that users of the reference provider have for its command and its server. */
const REFERENCE_NAMES = { command: USUAL_NAMES[0], server: USUAL_NAMES[1] } as const;

async function openAudit(file: string, door: ProviderSetup['door']): Promise<AuditLog> {
  return door === 'server'
    ? (await import('./logs/audit-log-shared.ts')).openSharedAuditLog(file)
    : (await import('./logs/audit-log.ts')).openAuditLog(file);
}

/** The reference provider complains of a log that it cannot open, and goes on. */
async function openDebug(file: string, { personality, warn }: ProviderSetup): Promise<DebugLog | undefined> {
  const { openDebugLog } = await import('./logs/debug-log.ts');
  try {
    return openDebugLog(file);
  } catch (error) {
    if (personality !== 'kms_oci_crypt') throw error;
    warn(`no debug log is written: ${describeError(error)}`);
    return undefined;
  }
}

/** The keys that settings allow. @throws OcicryptError `configuration` */
export function parseRules(settings: Settings): readonly AllowRule[] {
  const defaultKey = settings.text('kmsURI');
  return asConfiguration(() => {
    // Only --allow takes prefixes: what means one key must be one.
    const single = defaultKey === undefined ? [] : [{ kind: 'key', uri: parseKeyUri(defaultKey) } as const];
    return [
      ...settings.list('allow').map(parseAllowRule),
      ...settings.list('allow-wrap').map((text) => ({ ...parseAllowRule(text), operation: 'wrap' }) as const),
      ...settings.list('allow-unwrap').map((text) => ({ ...parseAllowRule(text), operation: 'unwrap' }) as const),
      ...single,
      ...settings.list('key').map((file): AllowRule => ({ kind: 'key', uri: keyFileUri(file) })),
      ...brokerKeys(settings),
    ];
  });
}

/** A file of a key. Not by way of the URI's text, which takes fewer characters than a path. */
export function keyFileUri(file: string): KeyUri {
  return { scheme: 'keyfile', path: resolve(file) };
}

/** The same URI in a request is bad input; in the operator's own list it is the configuration that is wrong. */
export function asConfiguration<Value>(read: () => Value): Value {
  try {
    return read();
  } catch (error) {
    throw error instanceof OcicryptError && error.code === 'bad-input' ? error.with({ code: 'configuration' }) : error;
  }
}

/** A key of the broker is allowed by naming its file. */
function brokerKeys(settings: Settings): readonly AllowRule[] {
  return Object.keys(settings.pairs('kbs-key') ?? {}).map((name) => {
    const uri = parseKeyUri(name);
    if (uri.scheme === 'kbs') return { kind: 'key', uri };
    throw new OcicryptError('configuration', `--kbs-key names ${showKeyText(name)}, which is no key of the broker`, {
      hint: 'such keys look like kbs:///default/key/id',
    });
  });
}

function byteSpelling(text: string | undefined): ProviderOptions['spelling'] {
  return text === 'array' || text === 'base64' ? text : undefined;
}

function packetChoice(text: string | undefined, reference: boolean): PacketChoice {
  if (text === 'v1' || text === 'v2' || text === 'coco-v2') return text;
  return reference ? 'reference' : 'v2';
}
