// What a webhook reads anew while it runs: its policy, and the keys by which that has images opened.

import type { Court } from '../admission/decision.ts';
import { Judge } from '../admission/judge.ts';
import type { AdmissionPolicy, Rule } from '../admission/policy.ts';
import { readPolicyFile } from '../admission/policy-file.ts';
import { checkedEnvironment } from '../base/environment.ts';
import { OcicryptError } from '../base/errors.ts';
import { type KeyRing, resolveKey } from '../client/key-ring.ts';
import type { LayerKeyUnwrapper } from '../client/layer-keys.ts';
import { filesState } from '../server/tls.ts';
import { DEFAULT_WEB_LIMITS } from '../server/webhook.ts';
import type { CommandContext } from './command.ts';
import { openKeys } from './image/keys.ts';
import { UNWRAPPING_OPTIONS } from './options/sets.ts';
import type { ProviderLogs } from './setup.ts';

/** The policy in force. */
export interface Courts {
  readonly current: Court;
  hasChanged(): boolean;
  /** @throws OcicryptError the one before stays */
  reread(): Promise<void>;
  close(): Promise<void>;
}

type CourtSetup = {
  readonly logs: ProviderLogs;
  readonly isInCluster: boolean;
  readonly onVerdict: (source: 'kept' | 'made') => void;
};

/** What of a command a policy is opened with. */
type CourtContext = Pick<CommandContext, 'personality' | 'settings' | 'terminal'>;

type OpenCourt = Court & { readonly close: () => Promise<void> };

/** @throws OcicryptError `usage`, `configuration` */
export async function openCourts(context: CourtContext, setup: CourtSetup): Promise<Courts> {
  const file = context.settings.text('policy');
  if (file === undefined) {
    throw new OcicryptError('configuration', 'there is no policy to judge by', { hint: 'give --policy=FILE' });
  }
  let state = filesState([file]);
  let current = await openCourt(file, context, setup);
  let latest = 0;
  return {
    get current() {
      return current;
    },
    hasChanged: () => filesState([file]) !== state,
    async reread() {
      // Remembered also where it fails, so that one bad file is reported once.
      state = filesState([file]);
      const mine = ++latest;
      const court = await openCourt(file, context, setup);
      // The file may have been read again meanwhile: what was read last holds, whichever was opened first.
      if (mine !== latest) return court.close();
      const old = current;
      current = court;
      // Reviews that have begun with the old one may yet open its keys.
      setTimeout(() => void old.close(), DEFAULT_WEB_LIMITS.call).unref();
    },
    close: () => current.close(),
  };
}

async function openCourt(file: string, context: CourtContext, setup: CourtSetup): Promise<OpenCourt> {
  const { settings } = context;
  const policy = await readPolicyFile(file);
  checkSurroundings(policy, context, setup);
  const isOpening = policy.rules.some(({ unwrap }) => unwrap);
  const keys = isOpening ? await openKeys(context, setup.logs) : undefined;
  const unwrappers = new Map<Rule, (key: string | undefined) => LayerKeyUnwrapper>();
  for (const rule of policy.rules) {
    if (rule.unwrap && keys !== undefined) unwrappers.set(rule, await unwrapperOf(rule, keys));
  }
  const judge = new Judge({
    registry: {
      caFiles: settings.list('ca'),
      authFile: settings.text('authfile'),
      environment: checkedEnvironment(process.env),
    },
    unwrapperFor: (rule) => unwrappers.get(rule),
    onVerdict: setup.onVerdict,
  });
  return {
    policy,
    judge,
    async close() {
      judge.close();
      await keys?.close();
    },
  };
}

async function unwrapperOf({ demands }: Rule, keys: KeyRing): Promise<(key: string | undefined) => LayerKeyUnwrapper> {
  const required = await Promise.all(demands.require.map((key) => resolveKey(key, async () => keys)));
  return keys.unwrapperFor(required);
}

/** What the policy needs beside itself is there, and nothing is given that it does not need. */
function checkSurroundings({ rules }: AdmissionPolicy, { settings }: CourtContext, { isInCluster }: CourtSetup): void {
  const asking = rules.find((rule) => rule.pullSecrets || Object.keys(rule.namespaceLabels).length > 0);
  if (asking !== undefined && !isInCluster) {
    throw new OcicryptError(
      'configuration',
      `the rule ${asking.name} asks the API server, and this is no pod of a cluster`,
      {
        hint: 'run it in a pod, or leave out namespace-labels and pull-secrets',
      },
    );
  }
  const idle = settings.names().find((name) => UNWRAPPING_OPTIONS.includes(name));
  if (idle === undefined || rules.some(({ unwrap }) => unwrap)) return;
  throw new OcicryptError('configuration', `--${idle} has no effect: no rule of the policy says unwrap`, {
    hint: 'leave it out, or let a rule say unwrap: true',
  });
}
