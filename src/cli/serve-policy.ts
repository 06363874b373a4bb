// What a server reads anew while it runs: which keys it uses, and which clients may use them.

import { isAbsolute, resolve } from 'node:path';
import { asOcicryptError, describeError, OcicryptError } from '../base/errors.ts';
import { formatKeyUri, type KeyUri } from '../base/key-uri.ts';
import { createKekSharing } from '../kms/sharing.ts';
import { DEFAULT_LIMITS } from '../provider/attempts.ts';
import { createProvider, type ProviderOptions } from '../provider/handle.ts';
import { type AllowRule, countedAs, parseAllowRule } from '../provider/policy.ts';
import { parseClientName } from '../server/client-names.ts';
import type { Probe } from '../server/health.ts';
import type { Instruments } from '../server/instruments.ts';
import { DEFAULT_SERVER_LIMITS, type ServerLimits } from '../server/limits.ts';
import type { ServerPolicy } from '../server/start.ts';
import type { ServerLog } from '../server/upkeep.ts';
import type { Personality } from './command.ts';
import type { Settings } from './options/settings.ts';
import { warnOfFiles } from './serving.ts';
import { asConfiguration, openProvider, type ProviderLogs } from './setup.ts';

/** What all policies of one server share. */
export type PolicySetup = {
  readonly personality: Personality;
  readonly logs: ProviderLogs;
  readonly instruments: Instruments;
  readonly log: ServerLog;
};

/**
 * Makes the policy that the settings say, and tells on the log which files cannot be used.
 *
 * @throws OcicryptError `usage`, `configuration`
 */
export async function openPolicy(settings: Settings, setup: PolicySetup): Promise<ServerPolicy> {
  const { personality, logs, instruments, log } = setup;
  const warn = (problem: string) => log.warn({ problem }, 'a key works, but check its configuration');
  const { options, close } = await openProvider(settings, { personality, door: 'server', warn }, logs);
  const named = clientRules(settings);
  const shared = shareKeys(options, settings, instruments, [...options.rules, ...[...named.values()].flat()]);
  const clients = [...named].map(([name, own]) => ({
    name,
    provider: createProvider(own.length === 0 ? shared : { ...shared, rules: own }),
  }));
  if (shared.rules.length === 0 && clients.length === 0) throw noKeyAllowed();
  await warnOfKeyFiles(shared, log);
  await warnOfFiles(settings, log);
  return { service: { provider: createProvider(shared), clients }, probes: probesOf(shared), close };
}

/** The limits that the settings say, and the usual ones. */
export function serverLimits(settings: Settings): ServerLimits {
  return {
    ...DEFAULT_SERVER_LIMITS,
    connections: settings.count('max-connections') ?? DEFAULT_SERVER_LIMITS.connections,
    streams: settings.count('max-streams') ?? DEFAULT_SERVER_LIMITS.streams,
    active: settings.count('max-calls') ?? DEFAULT_SERVER_LIMITS.active,
    queue: settings.count('max-queue') ?? DEFAULT_SERVER_LIMITS.queue,
    call: settings.requestTime() ?? DEFAULT_SERVER_LIMITS.call,
  };
}

function noKeyAllowed(): OcicryptError {
  return new OcicryptError('configuration', 'no key is allowed, so no call could be answered', {
    hint: 'add at least one, as in --allow=gcpkms://projects/PROJECT/locations/global/keyRings/RING/cryptoKeys/KEY',
  });
}

/**
 * The same keys for all clients: measured, limited, and shared by those that ask the same.
 *
 * @param rules of all clients
 */
function shareKeys(
  options: ProviderOptions,
  settings: Settings,
  instruments: Instruments,
  rules: readonly AllowRule[],
): ProviderOptions {
  const perSecond = settings.count('key-rate') ?? DEFAULT_KEY_RATE;
  // Half of the server is for keys whose services are there.
  const waiting = Math.ceil(serverLimits(settings).active / 2);
  const limits = { rate: { perSecond, burst: 5 * perSecond }, waiting };
  const share = createKekSharing(limits, (event) => instruments.keyLimit(event));
  const measure = instruments.kekMeasure();
  return {
    ...options,
    openKek: async (uri) => share(measure(await options.openKek(uri), uri.scheme), countedAs(rules, uri)),
    onDecision: (decision) => instruments.decision(decision),
  };
}

const DEFAULT_KEY_RATE = 200;

/** Who is called `NAME` in a certificate may use the server's keys, `NAME=KEY` only the keys that are given with this name. */
function clientRules(settings: Settings): ReadonlyMap<string, readonly AllowRule[]> {
  const rules = new Map<string, AllowRule[]>();
  for (const text of settings.list('allow-client')) {
    const [, written = '', operation, key] = /^([^=]+)(?:=(?:(wrap|unwrap):)?(.*))?$/s.exec(text) ?? [];
    const name = parseClientName(written);
    const known = rules.get(name) ?? [];
    rules.set(name, known);
    if (key === undefined) continue;
    const rule = asConfiguration(() => parseAllowRule(isAbsolute(key) ? `keyfile://${resolve(key)}` : key));
    known.push(operation === 'wrap' || operation === 'unwrap' ? { ...rule, operation } : rule);
  }
  if (rules.size > 0 && settings.text('tls-client-ca') === undefined) {
    throw new OcicryptError('configuration', 'clients are named but not asked for a certificate', {
      hint: 'give --tls-client-ca=FILE',
    });
  }
  return rules;
}

/** A key file that cannot be used is told now, not with the first image; the server's other keys are none the worse. */
async function warnOfKeyFiles({ rules, openKek }: ProviderOptions, log: ServerLog): Promise<void> {
  for (const rule of rules) {
    if (rule.kind !== 'key' || rule.uri.scheme !== 'keyfile') continue;
    try {
      await openKek(rule.uri);
    } catch (error) {
      log.warn({ problem: describeError(asOcicryptError(error)) }, 'a key cannot be used');
    }
  }
}

/** Keys that are named one by one; below a prefix it is not known which there are. */
function probesOf({ rules, openKek, limits = DEFAULT_LIMITS }: ProviderOptions): readonly Probe[] {
  const operations = new Map<string, { readonly uri: KeyUri; wrap: boolean; unwrap: boolean }>();
  for (const rule of rules) {
    if (rule.kind !== 'key') continue;
    const name = `${rule.uri.scheme} ${formatKeyUri(rule.uri)}`;
    const entry = operations.get(name) ?? { uri: rule.uri, wrap: false, unwrap: false };
    if (rule.operation !== 'unwrap') entry.wrap = true;
    if (rule.operation !== 'wrap') entry.unwrap = true;
    operations.set(name, entry);
  }
  return [...operations.values()].map(({ uri, wrap, unwrap }) => ({ open: () => openKek(uri), wrap, unwrap, limits }));
}
