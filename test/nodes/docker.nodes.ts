// docker on every containerd: with the containerd image store it decrypts by what `node install` has set up, with the old store it says why not.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { executable } from '../end-to-end/workspace.ts';
import { type ImageKind, imageName } from './images.ts';
import { createLab, type Lab } from './lab.ts';
import type { Node } from './node.ts';
import { CHOSEN, fetchDocker } from './software.ts';
import { addSystemd, SYSTEMD_PROGRAMS } from './systemd.ts';

const POLICY = '/etc/ocicrypt-kms/config.yaml';
const KINDS = ['gzip', 'zstd', 'uncompressed', 'index'] as const satisfies readonly ImageKind[];

/** A daemon that leaves the machine's network and control groups of others alone. */
const DAEMON = ['--bridge=none', '--iptables=false', '--ip6tables=false', '--exec-opt=native.cgroupdriver=cgroupfs'];
const SHARED = '--containerd=/run/containerd/containerd.sock';

let lab: Lab;
const cleanups: (() => unknown)[] = [];
before(async () => {
  lab = await createLab({ after: (cleanup) => void cleanups.push(cleanup) }, KINDS);
});
after(async () => {
  for (const cleanup of cleanups.reverse()) await cleanup();
});

async function said(node: Node, argv: readonly [string, ...string[]]) {
  const { exitCode, stdout, stderr } = await node.run(argv);
  return { exitCode, text: `${new TextDecoder().decode(stdout)}${stderr}` };
}

async function succeed(node: Node, ...argv: readonly [string, ...string[]]): Promise<string> {
  const { exitCode, text } = await said(node, argv);
  assert.equal(exitCode, 0, `${argv.join(' ')}: ${text}`);
  return text;
}

/** Starts docker's daemon with one of its two stores. */
async function startDocker(node: Node, store: 'containerd' | 'old', ...words: readonly string[]): Promise<void> {
  const features = { 'containerd-snapshotter': store === 'containerd' };
  const settings = { features, ...(store === 'old' ? { 'storage-driver': 'vfs' } : {}) };
  await node.write('/etc/docker/daemon.json', JSON.stringify(settings));
  await node.start('dockerd', ['dockerd', ...DAEMON, ...words]);
  const script = 'i=0; until docker version; do i=$((i + 1)); [ $i -lt 300 ] || exit 1; sleep 0.1; done';
  const { exitCode, text } = await said(node, ['sh', '-c', script]);
  assert.equal(exitCode, 0, `${text}${(await said(node, ['cat', '/run/dockerd.log'])).text}`);
}

for (const containerd of CHOSEN) {
  test(`docker on containerd ${containerd}`, async (t) => {
    const node = await lab.start(t, { containerd, programs: SYSTEMD_PROGRAMS, roots: [await fetchDocker()] });
    await addSystemd(node);
    const run = (kind: ImageKind) =>
      succeed(
        node,
        'docker',
        'run',
        '--rm',
        '--network=host',
        `--cgroup-parent=${node.controlGroup}`,
        imageName(lab.registry, kind),
      );

    await t.test('installed for its containerd, docker pulls and runs every kind of image', async () => {
      const installed = await succeed(node, executable(), 'node', 'install', `--key=${lab.key.file}`);
      assert.match(installed, /docker decrypts with its containerd image store alone/);
      assert.doesNotMatch(installed, /FAIL|warn/);
      await startDocker(node, 'containerd', SHARED);
      for (const kind of KINDS) {
        await succeed(node, 'docker', 'pull', '--quiet', imageName(lab.registry, kind));
        assert.match(await run(kind), /^hello$/m);
      }
      assert.doesNotMatch(await succeed(node, executable(), 'node', 'check'), /FAIL|warn/);
    });
    await t.test('a purged image is gone for docker, and without its key docker says why', async () => {
      const image = imageName(lab.registry, 'gzip');
      await succeed(node, executable(), 'node', 'purge', image);
      assert.equal((await said(node, ['docker', 'image', 'inspect', image])).exitCode, 1);
      await node.write(POLICY, 'allow:\n  - hashivault://images\n');
      const { exitCode, text } = await said(node, ['docker', 'pull', image]);
      assert.ok(exitCode !== 0 && text.includes('ocicrypt-kms: not-allowed: '), text);
      assert.ok(text.includes(lab.key.thumbprint), text);
    });
    await t.test('the old store never decrypts', async () => {
      await node.kill('dockerd');
      await startDocker(node, 'old', SHARED);
      const { exitCode, text } = await said(node, ['docker', 'pull', imageName(lab.registry, 'gzip')]);
      assert.ok(exitCode !== 0 && text.includes('archive/tar: invalid tar header'), text);
    });
    await t.test("a containerd of docker's own is found, and left alone", async () => {
      await node.kill('dockerd');
      // It starts one where none listens.
      await node.run(['sh', '-c', 'kill "$(cat /run/containerd.pid)"; while pidof containerd; do sleep 0.1; done']);
      await startDocker(node, 'containerd');
      // What was written into it by hand would not be overwritten.
      await node.run(['rm', POLICY]);
      const text = await succeed(node, executable(), 'node', 'install', '--dry-run', `--key=${lab.key.file}`);
      assert.match(text, /found {2}containerd of docker/);
      assert.match(text, /docker writes \S+containerd\.toml itself: install containerd\.io/);
    });
  });
}
