// Which containerds a machine has, and which have left nothing but their configuration.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { serviceOf } from '../../src/node/processes.ts';
import { findRuntimes, leftContainerds } from '../../src/node/runtimes.ts';
import { newRoot } from './root.ts';

const CONFIG = '/etc/containerd/config.toml';
const K3S = '/var/lib/rancher/k3s/agent/etc/containerd/config.toml';

test('a k3s or RKE2 that is not there is not found, whatever containerd the system has', async (t) => {
  const root = newRoot(t, { '/usr/bin/containerd': '' });
  const { containerds } = await findRuntimes(root);
  assert.deepEqual([containerds.map(({ kind }) => kind), leftContainerds(root, containerds)], [['containerd'], []]);
});

test('a configuration that is left is one of a containerd that cannot be run', async (t) => {
  const root = newRoot(t, { [CONFIG]: 'version = 2\n', [K3S]: 'version = 2\n' });
  const left = (found: Parameters<typeof leftContainerds>[1]) =>
    leftContainerds(root, found).map(({ kind, program, config }) => [kind, program, config]);
  assert.deepEqual(left((await findRuntimes(root)).containerds), [['containerd', undefined, CONFIG]]);
  assert.deepEqual(left([]).at(-1), ['k3s', undefined, K3S]);
});

test('a process says which service it is of, in the control groups of both versions', () => {
  for (const [service, ...lines] of [
    ['containerd.service', '0::/system.slice/containerd.service'],
    ['k3s-agent.service', '0::/system.slice/k3s-agent.service/kubepods'],
    [
      'containerd-other.service',
      '12:pids:/system.slice/containerd-other.service',
      '1:name=systemd:/system.slice/containerd-other.service',
    ],
    ['inner.service', '0::/outer.service/system.slice/inner.service'],
    [undefined, '0::/user.slice/user-1000.slice/user@1000.service/app.slice/containerd.service'],
    [undefined, '0::/user.slice/user-0.slice/session-3.scope'],
    [undefined, '0::/'],
    [undefined, ''],
  ] as const)
    assert.equal(serviceOf(lines), service, lines.join());
});
