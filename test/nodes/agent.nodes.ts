// The agent of a cluster on a real containerd, beside an API server that holds its node: in a container, which it leaves.

import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { executable } from '../end-to-end/workspace.ts';
import { FAKE_DAEMON_SET, FakeKubernetes } from '../fakes/kubernetes.ts';
import type { WireServer } from '../fakes/wire.ts';
import { createCertificateAuthority } from '../fixtures/certificates.ts';
import { pull } from './clients.ts';
import { imageName } from './images.ts';
import { createLab, type Lab } from './lab.ts';
import { CHOSEN } from './software.ts';
import { addSystemd, SYSTEMD_PROGRAMS, systemctlCalls } from './systemd.ts';

const DIRECTORY = '/opt/ocicrypt-kms/node';
const ACCOUNT = '/run/secrets/kubernetes.io/serviceaccount';
const NODE = 'node-1.example';

let lab: Lab;
const cleanups: (() => unknown)[] = [];
before(async () => {
  lab = await createLab({ after: (cleanup) => void cleanups.push(cleanup) }, ['gzip']);
});
after(async () => {
  for (const cleanup of cleanups.reverse()) await cleanup();
});

/** A container: mounts of its own, with a root whose /opt and /etc/containerd are not the node's. */
const CONTAINER = `mount --make-rprivate /
mount -t tmpfs tmpfs /opt; mount -t tmpfs tmpfs /etc/containerd; mount --bind "$SOURCE" /srv
exec "$@"`;

/** What an agent is told, as the chart tells it. */
function agentWords(...more: readonly string[]): readonly [string, ...string[]] {
  const words = [`--node=${NODE}`, `--daemon-set=${FAKE_DAEMON_SET}`, '--source=/srv', '--period=2s'];
  const status = ['--status=unix:///run/agent/status', ...more];
  return ['unshare', '--mount', 'sh', '-c', CONTAINER, 'sh', executable(), 'node', 'agent', ...words, ...status];
}

async function until(what: string, isTrue: () => unknown): Promise<void> {
  for (const end = Date.now() + 60_000; !(await isTrue()); await pause(100))
    assert.ok(Date.now() < end, typeof what === 'string' ? what : '');
}

for (const containerd of CHOSEN.slice(0, 1)) {
  test(`containerd ${containerd}`, async (t) => {
    const directory = lab.path(`cluster-${containerd}`);
    const authority = await createCertificateAuthority(directory);
    const kubernetes = new FakeKubernetes(NODE);
    const server: WireServer = await kubernetes.listen(await authority.issue('server'));
    t.after(() => server.close());
    const node = await lab.start(t, { containerd, programs: SYSTEMD_PROGRAMS });
    await addSystemd(node);
    await node.write(`${ACCOUNT}/ca.crt`, await readFile(authority.certificate, 'utf8'));
    await node.write(`${ACCOUNT}/token`, kubernetes.token);
    await node.run(['ln', '-sfn', '/run', '/var/run']);
    const source = join(directory, 'source');
    await mkdir(join(source, 'policy'), { recursive: true });
    await mkdir(join(source, 'secrets/keys'), { recursive: true });
    await writeFile(join(source, 'secrets/keys/app.key'), await readFile(lab.key.file));
    const policy = (text: string) => writeFile(join(source, 'policy/config.yaml'), text);
    await policy(`key: [${DIRECTORY}/secrets/keys/app.key]\n`);
    const start = (name: string) =>
      node.start(name, [
        'env',
        `SOURCE=${source}`,
        'KUBERNETES_SERVICE_HOST=127.0.0.1',
        `KUBERNETES_SERVICE_PORT=${server.port}`,
        ...agentWords(),
      ]);
    const said = (name = 'agent') => readFileSync(node.path(`/run/${name}.log`), 'utf8');

    await t.test('sets the node up, tries it, and labels it', async () => {
      await start('agent');
      await until(
        'labelled',
        () => kubernetes.labels['ocicrypt-kms.io/ready'] === 'true' || assert.ok(!existsSync('/never'), said()),
      );
      assert.equal(kubernetes.condition?.status, 'True', said());
      assert.deepEqual(
        (await systemctlCalls(node)).filter((call) => call.startsWith('restart')),
        ['restart containerd.service'],
      );
      const { exitCode, text } = await pull(node, 'CRI', imageName(lab.registry, 'gzip'));
      assert.equal(exitCode, 0, text);
    });
    await rm(directory, { recursive: true, force: true });
  });
}
