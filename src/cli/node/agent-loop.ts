// The loop of an agent: its node is tried again and again, and what comes of it is reported, logged and counted.

import { setTimeout as sleep } from 'node:timers/promises';
import { asOcicryptError, describeError } from '../../base/errors.ts';
import { Counter, Gauge, renderMetrics } from '../../server/metrics.ts';
import type { ClusterNode, NodeState } from './cluster-node.ts';
import type { Rounds } from './rounds.ts';

/** How soon a node that fails is tried again, doubled each time up to the period. */
const FIRST_PAUSE_MILLISECONDS = 15_000;
/** How often the files that it was given are compared, and what could not be reported is tried again. */
const GLANCE_MILLISECONDS = 10_000;

export type AgentOptions = {
  readonly node: Pick<ClusterNode, 'complain' | 'report'>;
  readonly rounds: Pick<Rounds, 'hasNews' | 'run'>;
  readonly period: number;
  readonly log: (level: 'info' | 'warn', fields: Readonly<Record<string, unknown>>, message: string) => void;
  readonly stop: AbortSignal;
};

/** The loop, and what can be seen of it. */
export class Agent {
  readonly #options: AgentOptions;
  #state: NodeState | undefined;
  #isReported = false;
  #checks = new Counter(
    'ocicrypt_kms_node_checks_total',
    'Trials of this node by result.',
    ['result'],
    ['ok', 'failed'],
  );

  constructor(options: AgentOptions) {
    this.#options = options;
  }

  /** Until it is told to stop. What has begun is ended first. */
  async run(): Promise<void> {
    const { rounds, period, stop } = this.#options;
    for (let failures = 0; !stop.aborted; ) {
      const before = this.#state?.reason;
      this.#state = await rounds.run();
      // Said once, by an event: the label and the condition are those of the other agents.
      this.#isReported = this.isRefused() && before === 'OtherAgents';
      this.#checks.add(this.#state.isReady ? 'ok' : 'failed');
      this.#say(this.#state);
      failures = this.#state.isReady ? 0 : failures + 1;
      const pause = Math.min(period, failures === 0 ? period : FIRST_PAUSE_MILLISECONDS * 2 ** (failures - 1));
      const next = performance.now() + pause;
      do {
        if (!this.#isReported) await this.#report(this.#state);
        await sleep(Math.min(GLANCE_MILLISECONDS, Math.max(0, next - performance.now())), undefined, {
          signal: stop,
        }).catch(() => undefined);
      } while (!stop.aborted && performance.now() < next && !rounds.hasNews());
    }
  }

  /** Whether the node is that of other agents. */
  isRefused(): boolean {
    return this.#state?.reason === 'OtherAgents';
  }

  isReady(): boolean {
    return this.#state?.isReady === true && this.#isReported;
  }

  render(): string {
    const gauge = (name: string, help: string, read: () => boolean) => new Gauge(name, help, () => (read() ? 1 : 0));
    return renderMetrics([
      gauge('ocicrypt_kms_node_ready', 'Whether this node decrypts.', () => this.#state?.isReady === true),
      gauge('ocicrypt_kms_node_reported', 'Whether the API server knows it.', () => this.#isReported),
      this.#checks,
    ]);
  }

  async #report(state: NodeState): Promise<void> {
    try {
      if (state.reason === 'OtherAgents') await this.#options.node.complain(state.reason, state.message);
      else await this.#options.node.report(state);
      this.#isReported = true;
    } catch (error) {
      this.#options.log('warn', { problem: describeError(asOcicryptError(error)) }, 'the API server was not told');
    }
  }

  #say({ isReady, reason, message }: NodeState): void {
    this.#options.log(isReady ? 'info' : 'warn', { reason, message }, isReady ? 'the node decrypts' : 'not ready');
  }
}
