// Makes a node of a cluster: containerd in namespaces as on every node of the tests, and a kubelet that registers it.
import { readFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import type { TestContext } from 'node:test';
import type { Lab } from '../nodes/lab.ts';
import type { Node } from '../nodes/node.ts';
import { CONTAINERD_SOCKET } from '../nodes/software.ts';
import { addSystemd, SYSTEMD_PROGRAMS } from '../nodes/systemd.ts';
import { findPort } from '../peers/started.ts';
import { type ControlPlane, until } from './control-plane.ts';
import { fetchKubernetes } from './software.ts';

/** How long a machine of two cores takes at most to register a node, or to start a pod. */
export const PATIENCE = 120_000;

const SETTINGS = '/etc/kubernetes/kubelet.json';

/** A node is called ready as soon as one network is configured. The pods of the tests use the machine's. */
const NETWORK = { cniVersion: '0.4.0', name: 'none', plugins: [{ type: 'loopback' }] };

/** What the kubelet wants the kernel to be set to: it reads that here, and leaves the machine as it is. */
const KERNEL = [
  ...['vm/overcommit_memory=1', 'vm/panic_on_oom=0', 'kernel/panic=10', 'kernel/panic_on_oops=1'],
  ...['kernel/keys/root_maxkeys=1000000', 'kernel/keys/root_maxbytes=25000000'],
];

/** $1 is the control group, $2 the systemctl that services are to find, and then what is set of the kernel. */
const ENCLOSE = `set -e
mount -t tmpfs -o mode=755 tmpfs /var/log
mount -t tmpfs -o mode=755 tmpfs /usr/local/sbin
ln -s "$2" /usr/local/sbin/systemctl
[ -e /sys/fs/cgroup/cgroup.procs ] && hierarchies=/sys/fs/cgroup || hierarchies='/sys/fs/cgroup/*'
for hierarchy in $hierarchies; do [ ! -e "$hierarchy/cgroup.procs" ] || mkdir -p "$hierarchy$1"; done
shift 2
for setting; do
  [ -e "/proc/sys/\${setting%=*}" ] || continue
  mkdir -p "/run/kernel/\${setting%=*}"
  echo "\${setting#*=}" >"/run/kernel/\${setting%=*}/value"
  mount --bind "/run/kernel/\${setting%=*}/value" "/proc/sys/\${setting%=*}"
done`;

/** Starts a node, and resolves once the API server calls it ready. */
export async function startWorker(
  t: Pick<TestContext, 'after'>,
  lab: Lab,
  plane: ControlPlane,
  name: string,
): Promise<Node> {
  const kubeconfig = await plane.kubeconfig(name, `system:node:${name}, O=system:nodes`);
  const node = await lab.start(t, {
    containerd: 'trixie',
    programs: { ...SYSTEMD_PROGRAMS, kubelet: await fetchKubernetes('kubelet') },
    // What an agent writes into memory would count as memory of its pod.
    disk: tmpdir(),
  });
  await addSystemd(node);
  const words = [node.controlGroup, SYSTEMD_PROGRAMS.systemctl, ...KERNEL];
  const { exitCode, stderr } = await node.run(['sh', '-c', ENCLOSE, 'sh', ...words]);
  if (exitCode !== 0) throw new Error(stderr);
  await node.write('/etc/cni/net.d/10-none.conflist', JSON.stringify(NETWORK));
  await node.write(SETTINGS, JSON.stringify(settings(node, plane, await findPort())));
  await node.start('kubelet', [
    'kubelet',
    ...[`--config=${SETTINGS}`, `--kubeconfig=${kubeconfig}`, `--hostname-override=${name}`],
    ...['--root-dir=/var/lib/kubelet', '--v=2'],
  ]);
  try {
    const condition = ['wait', `node/${name}`, '--for=condition=Ready', '--timeout=1s'];
    await until(PATIENCE, `${name} is ready`, async () => (await plane.kubectl(condition)).exitCode === 0);
  } catch (error) {
    throw new Error(`the kubelet says: ${(await kubeletLog(node)).slice(-4000)}`, { cause: error });
  }
  return node;
}

/** What the kubelet has logged. */
export function kubeletLog(node: Node): Promise<string> {
  return readFile(node.path('/run/kubelet.log'), 'utf8');
}

/** https://kubernetes.io/docs/reference/config-api/kubelet-config.v1beta1/ */
function settings(node: Node, plane: ControlPlane, port: number): object {
  return {
    ...{ apiVersion: 'kubelet.config.k8s.io/v1beta1', kind: 'KubeletConfiguration' },
    ...{ address: '127.0.0.1', port, healthzPort: 0 },
    authentication: {
      anonymous: { enabled: false },
      webhook: { enabled: true },
      x509: { clientCAFile: plane.authority.certificate },
    },
    authorization: { mode: 'Webhook' },
    containerRuntimeEndpoint: `unix://${CONTAINERD_SOCKET}`,
    ...{ cgroupDriver: 'cgroupfs', cgroupRoot: node.controlGroup, enforceNodeAllocatable: ['none'] },
    ...{ failSwapOn: false, failCgroupV1: false, localStorageCapacityIsolation: false },
    // The firewall is the machine's.
    makeIPTablesUtilChains: false,
    ...{ resolvConf: '', podLogsDir: '/var/log/pods', volumePluginDir: '/var/lib/kubelet/plugins' },
    evictionHard: { 'memory.available': '1Mi' },
    ...{ nodeStatusUpdateFrequency: '2s', syncFrequency: '10s' },
  };
}
