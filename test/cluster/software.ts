// Obtains the programs of a cluster, all of one release of Kubernetes: they come as Go modules, and are built once.
import { join } from 'node:path';
import { fetchGoPrograms } from '../peers/fetched.ts';

/** The last line of Kubernetes that runs beside control groups of version 1, which many machines still have. */
const MINOR = 34;
const PATCH = 4;
const KUBERNETES = `v1.${MINOR}.${PATCH}`;
const ETCD = 'go.etcd.io/etcd/server/v3@v3.6.16';

export type KubernetesProgram = 'kube-apiserver' | 'kube-controller-manager' | 'kube-scheduler' | 'kubectl' | 'kubelet';

/** One of its programs. Two cores that have nothing else to do build the first in some minutes, and the others in less. */
export async function fetchKubernetes(program: KubernetesProgram): Promise<string> {
  const version = 'k8s.io/component-base/version';
  const directory = await fetchGoPrograms({
    module: `k8s.io/kubernetes@${KUBERNETES}`,
    programs: [`cmd/${program}`],
    staging: `v0.${MINOR}.${PATCH}`,
    variables: {
      [`${version}.gitVersion`]: KUBERNETES,
      [`${version}.gitMajor`]: '1',
      [`${version}.gitMinor`]: String(MINOR),
    },
  });
  return join(directory, program);
}

/** etcd's server. */
export async function fetchEtcd(): Promise<string> {
  return join(await fetchGoPrograms({ module: ETCD, programs: ['.'] }), 'server');
}
