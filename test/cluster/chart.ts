// Renders the chart with Helm, and applies it to a cluster with what has to be different there.
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { fetchHelm } from '../peers/charts.ts';
import { runClient } from '../real-clients/process.ts';
import type { ControlPlane } from './control-plane.ts';

const CHART = fileURLToPath(new URL('../../deploy/helm/ocicrypt-kms', import.meta.url));

/** The release and its namespace. */
export const RELEASE = 'ocicrypt-kms';

/**
 * Installs the chart, or brings what is installed to these values.
 *
 * @param directory where what is applied is written
 * @param patch a strategic merge patch of the DaemonSet of the agents
 * @param words more for `kubectl apply`
 */
export async function applyChart(
  plane: ControlPlane,
  directory: string,
  values: object,
  patch: object,
  words: readonly string[] = [],
): Promise<string> {
  await mkdir(directory, { recursive: true });
  const file = join(directory, 'values.json');
  await writeFile(file, JSON.stringify(values));
  const { exitCode, stdout, stderr } = await runClient([
    await fetchHelm(3),
    ...[
      'template',
      RELEASE,
      CHART,
      `--namespace=${RELEASE}`,
      `--values=${file}`,
      '--no-hooks',
      '--kube-version=1.34.0',
    ],
  ]);
  if (exitCode !== 0) throw new Error(stderr);
  await writeFile(join(directory, 'rendered.yaml'), stdout);
  const kustomization = {
    resources: ['rendered.yaml'],
    patches: [{ target: { kind: 'DaemonSet', name: `${RELEASE}-node` }, patch: JSON.stringify(patch) }],
  };
  await writeFile(join(directory, 'kustomization.yaml'), JSON.stringify(kustomization));
  return plane.succeed(['apply', '--server-side', '--force-conflicts', `--kustomize=${directory}`, ...words]);
}
