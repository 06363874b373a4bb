// The command for a node: what it is to do is its first word.

import { OcicryptError } from '../../base/errors.ts';
import { nearest } from '../../base/nearest.ts';
import { showValue } from '../../base/shown.ts';
import type { CommandContext } from '../command.ts';
import { showFinding } from '../doctor/finding.ts';
import type { Terminal } from '../terminal.ts';
import { asciiJson } from '../text.ts';
import { failWith, someRuntimes } from './setup.ts';

type Action = (context: CommandContext) => Promise<void>;

const ACTIONS: ReadonlyMap<string, Action> = new Map<string, Action>([
  ['install', toItsEnd(async (context) => (await import('./install.ts')).installNode(context))],
  ['check', checkNode],
  ['uninstall', toItsEnd(async (context) => (await import('./uninstall.ts')).uninstallNode(context))],
  ['agent', async (context) => (await import('./agent.ts')).runAgent(context)],
  ['dismiss', async (context) => (await import('./dismiss.ts')).dismissAgents(context)],
  ['host', async (context) => (await import('./host.ts')).runOnHost(context)],
  ['purge', toItsEnd(async (context) => (await import('./purge.ts')).purgeImages(context))],
]);

export async function runNode(context: CommandContext): Promise<void> {
  const [word = '', ...more] = context.settings.operands;
  const action = ACTIONS.get(word);
  if (action === undefined) {
    const near = await nearest(word, [...ACTIONS.keys()]);
    throw new OcicryptError(
      'usage',
      word === '' ? 'node takes install, check, uninstall, purge, agent or dismiss' : `node cannot ${showValue(word)}`,
      {
        hint: near === undefined ? 'run ocicrypt-kms node --help' : `did you mean node ${near}?`,
      },
    );
  }
  if (more.length > 0 && word !== 'purge')
    throw new OcicryptError('usage', `node ${word} takes no other words`, { hint: 'run ocicrypt-kms node --help' });
  await action(context);
}

/** Fails only in the end if something cannot be said: no node is left half changed because the reader has gone. */
function toItsEnd(action: Action): Action {
  return async (context) => {
    const failures: unknown[] = [];
    const write: Terminal['write'] = (data, purpose) => {
      try {
        context.terminal.write(data, purpose);
      } catch (error) {
        failures.push(error);
      }
    };
    await action({ ...context, terminal: { ...context.terminal, write } });
    if (failures.length > 0) throw failures[0];
  };
}

/** What is found, and what is wrong with it; fails with the first failure. */
async function checkNode(context: CommandContext): Promise<void> {
  const { settings, terminal } = context;
  const runtimes = await someRuntimes('/', settings);
  const { examineNode } = await import('../doctor/node.ts');
  const findings = [...(await examineNode(context, runtimes))];
  for (const image of settings.list('pull'))
    findings.push(...(await (await import('./pull.ts')).tryPulls(image, runtimes)));
  if (settings.switch('json')) terminal.write(`${asciiJson({ node: findings }, 2)}\n`);
  else terminal.write(findings.map(showFinding).join(''));
  failWith(findings);
}
