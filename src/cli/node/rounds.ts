// What an agent does to its node each time: brings what has changed, sets the node up if that is due, and tries it.

import { createHash } from 'node:crypto';
import { lstatSync, readdirSync, readFileSync, readlinkSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { asOcicryptError, describeError, ERROR_STATUS, OcicryptError } from '../../base/errors.ts';
import { asArray, asObject, asText, type JsonObject, parseJson } from '../../base/json.ts';
import { showPath } from '../../base/shown.ts';
import { CARRIED_POLICY, type Carriage, type CarriedFile, isBelow } from '../../node/carried.ts';
import type { Ended } from '../../node/programs.ts';
import type { NodeReason, NodeState } from './cluster-node.ts';
import type { HostTask } from './host.ts';
import { complaintOf } from './undo.ts';

export type RoundOptions = Carriage & {
  /** The directory that holds what is brought to the node. */
  readonly source: string;
  readonly socketUser: number | undefined;
  /** Runs a task on the machine to its end. */
  readonly run: (task: HostTask) => Promise<Ended>;
  /** Milliseconds that only go forward. */
  readonly now: () => number;
};

/** How long a node is left alone whose runtime did not come up: each attempt restarts it twice. */
const RESTART_PAUSE_MILLISECONDS = 3_600_000;

export class Rounds {
  readonly #options: RoundOptions;
  /** What was to be brought when it was last tried, whatever came of that. */
  #tried: string | undefined;
  /** What was brought when the node was last set up without a failure. */
  #installed: string | undefined;
  #isHealthy = false;
  #restart: { readonly digest: string; readonly until: number; readonly message: string } | undefined;

  constructor(options: RoundOptions) {
    this.#options = options;
  }

  /** Whether there is something else to bring than what was tried last. */
  hasNews(): boolean {
    try {
      return digestOf(readSources(this.#options.source)) !== this.#tried;
    } catch {
      return false;
    }
  }

  /** Never throws. */
  async run(): Promise<NodeState> {
    try {
      const state = await this.#run();
      this.#isHealthy = state.isReady;
      return state;
    } catch (error) {
      this.#isHealthy = false;
      return notReady('NotSetUp', describeError(asOcicryptError(error)));
    }
  }

  async #run(): Promise<NodeState> {
    const { source, run, now, ...options } = this.#options;
    const task = { owner: options.owner, directory: options.directory, socketUser: options.socketUser };
    const files = readSources(source);
    const digest = digestOf(files);
    this.#tried = digest;
    if (this.#restart !== undefined && this.#restart.digest === digest && now() < this.#restart.until)
      return notReady('NotSetUp', this.#restart.message);
    if (!this.#isHealthy || digest !== this.#installed) {
      const words = ['node', 'install', `--config=${join(task.directory, CARRIED_POLICY)}`];
      const ended = await run({ ...task, files, words });
      const message = complaintOf(ended);
      // systemctl failed, and what it failed for was restarted. All else that is wrong costs the node nothing to try again.
      const isRestart = ended.status === ERROR_STATUS.unavailable.exit;
      this.#restart = isRestart ? { digest, until: now() + RESTART_PAUSE_MILLISECONDS, message } : undefined;
      if (ended.status === ERROR_STATUS.refused.exit) return notReady('OtherAgents', message);
      if (ended.status !== 0) return notReady('NotSetUp', message);
      this.#installed = digest;
    }
    const checked = await run({ ...task, words: ['node', 'check', '--json'] });
    return checked.status === ERROR_STATUS.refused.exit
      ? notReady('OtherAgents', complaintOf(checked))
      : judge(checked);
  }
}

/** What `node check --json` found. */
function judge(ended: Ended): NodeState {
  const findings = findingsOf(ended);
  const failed = findings.find((one) => asText(one.get('level')) === 'fail');
  if (failed !== undefined) return notReady('CheckFailed', describe(failed));
  const stale = findings.find((one) => asText(one.get('reason')) === 'restart-needed');
  if (stale !== undefined) return notReady('RestartNeeded', describe(stale));
  if (ended.status !== 0) return notReady('CheckFailed', complaintOf(ended));
  const message = findings.map(describe).join('; ');
  // Without a runtime that was asked nothing is known: podman alone has nothing that can be tried.
  if (!findings.some((one) => asText(one.get('level')) === 'ok'))
    return notReady('CheckFailed', message || 'no runtime was found that can be tried');
  return { isReady: true, reason: 'Decrypts', message };
}

function findingsOf({ output }: Ended): readonly JsonObject[] {
  if (output.length === 0) return [];
  const document = asObject(parseJson(output, 'what node check found'));
  return (asArray(document?.get('node')) ?? []).flatMap((one) => asObject(one) ?? []);
}

function describe(finding: JsonObject): string {
  const [subject, message, hint] = ['subject', 'message', 'hint'].map((name) => asText(finding.get(name)));
  return `${subject}: ${message}${hint === undefined ? '' : `; ${hint}`}`;
}

function notReady(reason: NodeReason, message: string): NodeState {
  return { isReady: false, reason, message };
}

const MAXIMUM_ENTRIES = 1000;
const MAXIMUM_BYTES = 16 * 1024 * 1024;

/**
 * All files below a directory. Volumes of Kubernetes have a link for each of their members, and what they lead to in
 * directories whose names begin with two dots. No other link to a directory is followed: it may lead up again.
 *
 * @throws OcicryptError `configuration`, `not-found`
 */
function readSources(directory: string): readonly CarriedFile[] {
  const paths = filesBelow(directory);
  if (!paths.includes(CARRIED_POLICY)) {
    throw new OcicryptError('not-found', `there is no ${CARRIED_POLICY} to bring to the node`, {
      hint: 'the ConfigMap of the policy needs a member config.yaml',
    });
  }
  return paths.map((path) => ({ path, content: readFileSync(join(directory, path)) }));
}

/** Nothing is read before all of it is known to be few and small. */
function filesBelow(directory: string): readonly string[] {
  let entries = 0;
  let bytes = 0;
  const below = (parent: string): readonly string[] =>
    readdirSync(join(directory, parent))
      .toSorted()
      .filter((name) => !name.startsWith('..'))
      .flatMap((name) => {
        const path = parent === '' ? name : `${parent}/${name}`;
        const status = statSync(join(directory, path));
        if (!status.isDirectory() && !status.isFile()) return [];
        entries += 1;
        bytes += status.isFile() ? status.size : 0;
        if (entries > MAXIMUM_ENTRIES || bytes > MAXIMUM_BYTES) {
          throw new OcicryptError('configuration', 'the policy and the files of Secrets are too many or too large', {
            hint: `at most ${MAXIMUM_ENTRIES} files and directories with ${MAXIMUM_BYTES / 1024 / 1024} MiB in all are brought to a node`,
          });
        }
        if (!isBelow(path)) {
          throw new OcicryptError(
            'configuration',
            `no file of this name is brought to a node: ${showPath(join(directory, path))}`,
            {
              hint: 'names have letters, digits, ".", "_" and "-" alone',
            },
          );
        }
        if (status.isFile()) return [path];
        if (isForeignLink(join(directory, path), name)) {
          throw new OcicryptError(
            'configuration',
            `a link to a directory is not followed: ${showPath(join(directory, path))}`,
            {
              hint: 'only those that the kubelet makes are',
            },
          );
        }
        return below(path);
      });
  return below('');
}

/** The kubelet's own lead into the volume's `..data`: https://pkg.go.dev/k8s.io/kubernetes/pkg/volume/util#AtomicWriter */
function isForeignLink(path: string, name: string): boolean {
  return lstatSync(path).isSymbolicLink() && readlinkSync(path) !== `..data/${name}`;
}

function digestOf(files: readonly CarriedFile[]): string {
  const hash = createHash('sha256');
  for (const { path, content } of files) hash.update(`${path} ${content.length} `).update(content);
  return hash.digest('hex');
}
