// Runs Helm against a cluster, as an operator does, with the chart of this project.
import { fileURLToPath } from 'node:url';
import { fetchHelm } from '../peers/charts.ts';
import { runClient } from '../real-clients/process.ts';
import type { ControlPlane } from './control-plane.ts';

export const CHART = fileURLToPath(new URL('../../deploy/helm/ocicrypt-kms', import.meta.url));

/** The release and its namespace. */
export const RELEASE = 'ocicrypt-kms';

/** As docs/kubernetes.md begins: a namespace for a privileged DaemonSet. */
export async function addReleaseNamespace(plane: ControlPlane): Promise<void> {
  await plane.succeed(['create', 'namespace', RELEASE]);
  await plane.succeed(['label', 'namespace', RELEASE, 'pod-security.kubernetes.io/enforce=privileged']);
}

/**
 * Helm of the cluster's administrator, in the namespace of the release.
 *
 * @param words as `install RELEASE CHART`
 * @param values of the chart, if there are any
 * @throws Error with what it said if it fails
 */
export async function helm(plane: ControlPlane, words: readonly string[], values?: object): Promise<string> {
  const given = values === undefined ? [] : ['--values=-'];
  const argv = [
    await fetchHelm(3),
    ...words,
    `--kubeconfig=${plane.admin}`,
    `--namespace=${RELEASE}`,
    ...given,
  ] as const;
  const stdin = values === undefined ? {} : { stdin: Buffer.from(JSON.stringify(values)) };
  const { exitCode, stdout, stderr } = await runClient(argv, { ...stdin, limit: 600_000 });
  if (exitCode !== 0) throw new Error(`helm ${words.join(' ')}: ${stderr}`);
  return new TextDecoder().decode(stdout);
}
