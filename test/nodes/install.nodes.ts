// `ocicrypt-kms node` on every containerd: one command sets it up, images are pulled, and another one undoes all of it.

import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { after, before, test } from 'node:test';
import { executable } from '../end-to-end/workspace.ts';
import { pull } from './clients.ts';
import { imageName } from './images.ts';
import { createLab, type Lab } from './lab.ts';
import type { Node } from './node.ts';
import { runOurs, succeedOurs } from './outcomes.ts';
import { CHOSEN, isFirst } from './software.ts';
import { addSystemd, SYSTEMD_PROGRAMS, systemctlCalls } from './systemd.ts';

const CONFIG = '/etc/containerd/config.toml';
const DROP_IN = '/etc/containerd/conf.d/ocicrypt-kms.toml';
const POLICY = '/etc/ocicrypt-kms/config.yaml';

/** Seconds: before it writes, while it does, while it restarts, and while it tries the decoder. */
const KILLED_AFTER = [0.15, 0.3, 0.5, 0.8, 1.2, 2];

let lab: Lab;
const cleanups: (() => unknown)[] = [];
before(async () => {
  lab = await createLab({ after: (cleanup) => void cleanups.push(cleanup) }, ['gzip', 'zstd', 'uncompressed']);
});
after(async () => {
  for (const cleanup of cleanups.reverse()) await cleanup();
});

const read = (node: Node, path: string) => readFileSync(node.path(path), 'utf8');
const dump = async (node: Node) => new TextDecoder().decode((await node.run(['containerd', 'config', 'dump'])).stdout);

for (const containerd of CHOSEN) {
  test(`containerd ${containerd}`, async (t) => {
    const node = await lab.start(t, { containerd, programs: SYSTEMD_PROGRAMS });
    await addSystemd(node);
    const config = read(node, CONFIG);
    const dumped = await dump(node);
    const key = `--key=${lab.key.file}`;

    await t.test('a dry run shows every file, and writes none', async () => {
      const text = await succeedOurs(node, 'install', key, '--dry-run');
      for (const path of [DROP_IN, POLICY, '/etc/ocicrypt-kms/ocicrypt.json']) assert.ok(text.includes(path), text);
      assert.ok(text.includes('would restart  containerd.service') && text.includes(lab.key.file), text);
      assert.deepEqual(
        [DROP_IN, POLICY].map((path) => existsSync(node.path(path))),
        [false, false],
      );
      assert.deepEqual(await systemctlCalls(node), []);
    });
    await t.test('a program that another user could replace is copied before containerd starts it', async () => {
      const place = 'mkdir -m 755 /opt/mine && cp "$1" /opt/mine/ocicrypt-kms && chown "$2" /opt/mine';
      for (const [owner, isCopied] of [
        ['1000', true],
        ['0', false],
      ] as const) {
        const made = await node.run(['sh', '-c', place, 'sh', executable(), owner]);
        assert.equal(made.exitCode, 0, made.stderr);
        const { stdout } = await node.run(['/opt/mine/ocicrypt-kms', 'node', 'install', key, '--dry-run']);
        const text = new TextDecoder().decode(stdout);
        assert.equal(/^would write {2}\S+\/bin\/ocicrypt-kms /m.test(text), isCopied, text);
        assert.equal(text.includes('path = "/opt/mine/ocicrypt-kms"'), !isCopied, text);
        await node.run(['rm', '-r', '/opt/mine']);
      }
    });
    await t.test('nothing is written if nothing says which keys may be used', async () => {
      const { exitCode, text } = await runOurs(node, 'install');
      assert.deepEqual([exitCode, existsSync(node.path(DROP_IN))], [78, false], text);
    });
    await t.test('installed, it says so before it restarts, and every type of layer is tried', async () => {
      const text = await succeedOurs(node, 'install', key);
      assert.match(text, /restarting containerd\.service/);
      for (const type of ['tar', 'tar+gzip', 'tar+zstd']) assert.ok(text.includes(`decrypts ${type}+encrypted`), text);
      assert.doesNotMatch(text, /FAIL|warn/);
      assert.deepEqual(
        (await systemctlCalls(node)).filter((call) => call.startsWith('restart')),
        ['restart containerd.service'],
      );
    });
    await t.test('images are pulled by CRI and by ctr, and the check pulls one too', async () => {
      for (const kind of ['gzip', 'zstd', 'uncompressed'] as const)
        for (const client of ['CRI', 'ctr'] as const) {
          const { exitCode, text } = await pull(node, client, imageName(lab.registry, kind));
          assert.equal(exitCode, 0, text);
        }
      const text = await succeedOurs(node, 'check', `--pull=${imageName(lab.registry, 'gzip')}`);
      assert.match(text, /pulled .* removed it again/);
      assert.doesNotMatch(text, /FAIL|warn/);
      const { stdout } = await node.run(['ctr', 'namespaces', 'ls', '-q']);
      assert.ok(!new TextDecoder().decode(stdout).includes('ocicrypt-kms'));
      assert.equal((await runOurs(node, 'check', '--json')).exitCode, 0);
    });
    await t.test('installed once more, nothing is written and nothing restarted', async () => {
      const calls = await systemctlCalls(node);
      assert.match(await succeedOurs(node, 'install', key), /nothing to write/);
      assert.match(await succeedOurs(node, 'install'), /nothing to write/);
      assert.deepEqual(await systemctlCalls(node), calls);
    });
    await t.test('another policy needs no restart', async () => {
      const calls = await systemctlCalls(node);
      await succeedOurs(node, 'install', key, '--allow=hashivault://images');
      assert.match(read(node, POLICY), /hashivault:\/\/images/);
      assert.deepEqual(await systemctlCalls(node), calls);
    });
    await t.test('a purged image is gone with its unpacked layers, and a withdrawn key counts', async () => {
      const image = imageName(lab.registry, 'zstd');
      const text = await succeedOurs(node, 'purge', image);
      assert.match(text, /k8s\.io/);
      const { stdout } = await node.run(['ctr', '-n', 'k8s.io', 'images', 'ls', '-q']);
      assert.ok(!new TextDecoder().decode(stdout).includes(image));
      await node.write(POLICY, 'allow:\n  - hashivault://images\n');
      const { exitCode, text: refused } = await pull(node, 'CRI', image);
      assert.ok(exitCode !== 0 && refused.includes('not-allowed'), refused);
      assert.equal((await runOurs(node, 'purge', image)).exitCode, 66);
    });
    await t.test('uninstalled, what was changed since is named, and all else is as it was', async () => {
      const { exitCode, text } = await runOurs(node, 'uninstall');
      assert.equal(exitCode, 78, text);
      assert.match(text, new RegExp(`${POLICY} was changed since`));
      assert.deepEqual([read(node, CONFIG), existsSync(node.path(DROP_IN))], [config, false]);
      assert.equal(await dump(node), dumped);
      await node.run(['rm', '-rf', '/etc/ocicrypt-kms', '/var/lib/ocicrypt-kms']);
    });
    await t.test('if containerd does not come up again, the files are put back, and it does', async () => {
      await node.write('/run/systemctl.fails', '');
      const { exitCode, text } = await runOurs(node, 'install', key);
      assert.ok(exitCode !== 0 && /once more: its files are as they were/.test(text), text);
      assert.deepEqual(
        [read(node, CONFIG), existsSync(node.path(DROP_IN)), existsSync(node.path(POLICY))],
        [config, false, false],
      );
      assert.equal((await node.run(['ctr', 'version'])).exitCode, 0);
    });
    await t.test(
      'with a service: decoders ask it, it has the audit log, and it ends with the installation',
      async () => {
        const { exitCode } = await runOurs(node, 'install', key, '--service', '--audit-log=/var/log/elsewhere');
        assert.deepEqual([exitCode, existsSync(node.path(DROP_IN))], [78, false]);
        // The keys that a node had without a service do not become those of one by themselves.
        await succeedOurs(node, 'install', key);
        assert.equal((await runOurs(node, 'install', '--service')).exitCode, 78);
        const text = await succeedOurs(node, 'install', key, '--service');
        for (const type of ['tar', 'tar+gzip', 'tar+zstd'])
          assert.ok(text.includes(`decrypts ${type}+encrypted`), text);
        assert.equal((await pull(node, 'CRI', imageName(lab.registry, 'gzip'))).exitCode, 0);
        const lines = read(node, '/var/log/ocicrypt-kms/audit.log')
          .trim()
          .split('\n')
          .map((line) => JSON.parse(line));
        assert.ok(lines.some(({ operation, outcome }) => operation === 'unwrap' && outcome === 'ok'));
        await succeedOurs(node, 'purge', imageName(lab.registry, 'gzip'));
        assert.match(await succeedOurs(node, 'install'), /nothing to write/);
        // Another policy is read by the service, without a word of it.
        await succeedOurs(node, 'install', key, '--allow=hashivault://images');
        assert.ok((await systemctlCalls(node)).includes('try-restart ocicrypt-kms.service'));
        await succeedOurs(node, 'uninstall');
        assert.deepEqual(
          [existsSync(node.path('/run/ocicrypt-kms/ocicrypt-kms.sock')), await dump(node)],
          [false, dumped],
        );
      },
    );
    await t.test('two installations at once: one writes, the other finds all of it there', async () => {
      const texts = await Promise.all([succeedOurs(node, 'install', key), succeedOurs(node, 'install', key)]);
      assert.equal(texts.filter((text) => /nothing to write/.test(text)).length, 1, texts.join('\n'));
      assert.doesNotMatch(texts.join('\n'), /does not run/);
      await succeedOurs(node, 'uninstall');
      assert.equal(await dump(node), dumped);
    });
    await t.test('a containerd that was stopped is not started', async () => {
      const script = 'pid=$(cat /run/containerd.pid); kill "$pid"; while [ -e "/proc/$pid/exe" ]; do sleep 0.05; done';
      await node.run(['sh', '-c', script]);
      const left = await succeedOurs(node, 'install', key, '--service', '--no-restart');
      assert.match(left, /nothing was tried/, 'no service is there that decoders could ask');
      await succeedOurs(node, 'uninstall', '--no-restart');
      const calls = await systemctlCalls(node);
      assert.match(
        await succeedOurs(node, 'install', key),
        /note: containerd\.service does not run and is not started/,
      );
      await succeedOurs(node, 'uninstall');
      assert.deepEqual(await systemctlCalls(node), calls);
      await node.run(['systemctl', 'restart', 'containerd.service']);
    });
    await t.test('of a CRI-O that does not run, systemd reads the unit again, and again without it', async () => {
      // The programs of a node cannot be written: this one is there for our command alone.
      const script = 'mount -t tmpfs tmpfs /usr/local/sbin && cp /bin/true /usr/local/sbin/crio && exec "$@"';
      for (const words of [['install', key], ['uninstall']]) {
        const calls = await systemctlCalls(node);
        const ours = [executable(), 'node', ...words, '--no-restart'];
        const { exitCode, stderr } = await node.run(['unshare', '--mount', 'sh', '-c', script, 'sh', ...ours]);
        assert.equal(exitCode, 0, stderr);
        assert.deepEqual((await systemctlCalls(node)).slice(calls.length), ['daemon-reload'], words[0]);
      }
    });
    await t.test(
      'killed at any time, the node works, a second installation completes, and it can be undone',
      async () => {
        for (const seconds of KILLED_AFTER) {
          const words = [executable(), 'node', 'install', key];
          await node.run(['timeout', '--signal=KILL', String(seconds), ...words]);
          // What was killed has perhaps begun a restart, which goes on.
          await node.run(['sh', '-c', 'while pgrep -f "^/bin/sh .*systemctl" >/dev/null; do sleep 0.1; done']);
          await node.run(['systemctl', 'restart', 'containerd.service']);
          assert.equal((await node.run(['ctr', 'version'])).exitCode, 0, `${seconds}`);
          const text = await succeedOurs(node, 'install', key);
          assert.doesNotMatch(text, /FAIL|warn/);
          assert.equal((await pull(node, 'CRI', imageName(lab.registry, 'gzip'))).exitCode, 0);
          await succeedOurs(node, 'purge', imageName(lab.registry, 'gzip'));
          await succeedOurs(node, 'uninstall');
          assert.deepEqual([read(node, CONFIG), await dump(node)], [config, dumped], `${seconds}`);
        }
      },
    );
    const version = isFirst(containerd) ? 2 : 3;
    for (const [said, before] of [
      ['no configuration', undefined],
      ['no imports', `version = ${version}\n[debug]\nlevel = "warn"\n`],
      [
        'imports of several lines',
        `# first\nversion = ${version}\nimports = [ # some\n  "/etc/containerd/other/one.toml",\n]\n`,
      ],
    ] as const) {
      await t.test(`${said}: our line is added, and taken out again`, async () => {
        await node.write('/etc/containerd/other/one.toml', `version = ${version}\n`);
        await node.run(['rm', '-f', CONFIG]);
        if (before !== undefined) await node.write(CONFIG, before);
        await succeedOurs(node, 'install', key, '--no-restart');
        assert.match(await dump(node), /"?--config=\/etc\/ocicrypt-kms\/config\.yaml"?/);
        await succeedOurs(node, 'uninstall', '--no-restart');
        assert.equal(existsSync(node.path(CONFIG)) ? read(node, CONFIG) : undefined, before);
        assert.equal(
          existsSync(node.path('/var/lib/ocicrypt-kms')) && existsSync(node.path('/var/lib/ocicrypt-kms/node')),
          false,
        );
      });
    }
    await t.test('processors of the operator are not replaced', async () => {
      const own = `version = 2\n[stream_processors."mine"]\naccepts = ["application/vnd.oci.image.layer.v1.tar+encrypted"]\npath = "/opt/mine"\n`;
      await node.write(CONFIG, own);
      const { exitCode, text } = await runOurs(node, 'install', key, '--no-restart');
      assert.deepEqual([exitCode, read(node, CONFIG), existsSync(node.path(POLICY))], [78, own, false], text);
    });
    await t.test('what containerd would read otherwise is refused, and nothing stays', async () => {
      await node.write(
        '/etc/containerd/conf.d/zz.toml',
        `version = 2\n[stream_processors."io.containerd.ocicrypt.decoder.v1.tar"]\naccepts = ["application/vnd.oci.image.layer.v1.tar+encrypted"]\npath = "/opt/mine"\n`,
      );
      await node.write(CONFIG, config);
      const { exitCode, text } = await runOurs(node, 'install', key, '--no-restart');
      assert.deepEqual(
        [exitCode, existsSync(node.path(DROP_IN)), existsSync(node.path(POLICY))],
        [78, false, false],
        text,
      );
    });
  });
}
