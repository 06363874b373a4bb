// What is written for each runtime, in particular for those that write their configuration themselves.

import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { asOcicryptError } from '../../src/base/errors.ts';
import { containerdDropIn, type Decoder, rancherTemplate } from '../../src/node/drop-in.ts';
import { planNode, withoutOurs } from '../../src/node/plan.ts';
import { findRuntimes } from '../../src/node/runtimes.ts';
import type { RuntimeVersion } from '../../src/node/versions.ts';
import { caught, newRoot } from './root.ts';

const DECODER: Decoder = { kind: 'ocicrypt-kms', words: ['/opt/x', 'decoder', '--config=/c'] };
const K3S = '/var/lib/rancher/k3s/agent/etc/containerd';
const RKE2 = '/var/lib/rancher/rke2/agent/etc/containerd';

/** The plan for the root of an image with these files; programs end in nothing. */
async function plan(
  t: TestContext,
  files: Readonly<Record<string, string>>,
  version: RuntimeVersion | undefined = [2, 1, 9],
) {
  const root = newRoot(t, files);
  const runtimes = await findRuntimes(root, version);
  const planned = planNode(runtimes, {
    root,
    decoder: DECODER,
    provider: ['/opt/x', 'keyprovider'],
    policy: 'key: []\n',
  });
  return { ...planned, texts: new Map(planned.files.map(({ path, content }) => [path, String(content)])) };
}

const SHARED = ['/etc/ocicrypt-kms/config.yaml', '/etc/ocicrypt-kms/ocicrypt.json'];

test('containerd without a configuration gets one that imports the drop-in', async (t) => {
  const { texts, notes, restarts } = await plan(t, {
    '/usr/bin/containerd': '',
    '/usr/lib/systemd/system/containerd.service': 'x',
  });
  const config = '/etc/containerd/config.toml';
  assert.deepEqual([...texts.keys()], [...SHARED, '/etc/containerd/conf.d/ocicrypt-kms.toml', config]);
  assert.equal(texts.get(config), 'version = 3\nimports = ["/etc/containerd/conf.d/*.toml"]\n');
  assert.deepEqual([notes, restarts.map(({ unit }) => unit)], [[], ['containerd.service']]);
});

test('the directory that containerd imports already is used, and its file is not touched', async (t) => {
  const { texts } = await plan(t, {
    '/usr/bin/containerd': '',
    '/etc/containerd/config.toml': 'imports = ["/etc/c.d/*.toml"]\n',
  });
  assert.deepEqual([...texts.keys()], [...SHARED, '/etc/c.d/ocicrypt-kms.toml']);
});

test('a configuration of version 1 gets a drop-in that its containerd reads with it', async (t) => {
  const files = { '/usr/bin/containerd': '', '/etc/containerd/config.toml': 'disabled_plugins = ["cri"]\n' };
  const dropIn = async (version: RuntimeVersion) =>
    (await plan(t, files, version)).texts.get('/etc/containerd/conf.d/ocicrypt-kms.toml') ?? '';
  assert.doesNotMatch(await dropIn([1, 7, 24]), /^version/m);
  assert.match(await dropIn([2, 1, 9]), /^version = 2$/m);
  const root = newRoot(t, files);
  const runtimes = await findRuntimes(root);
  const options = { root, decoder: DECODER, provider: ['/opt/x'] as const, policy: undefined };
  const { code, hint = '' } = asOcicryptError(caught(() => planNode(runtimes, options)));
  assert.deepEqual([code, /version of containerd/.test(hint)], ['configuration', true]);
});

for (const [directory, service] of [
  [K3S, 'k3s-agent.service'],
  [RKE2, 'rke2-server.service'],
] as const) {
  const units = { [`/etc/systemd/system/${service}`]: 'x' };
  test(`${service}: a directory that its configuration imports gets the drop-in`, async (t) => {
    const config = `version = 3\nimports = ["${directory}/config-v3.toml.d/*.toml"]\n`;
    const { texts, restarts } = await plan(t, { ...units, [`${directory}/config.toml`]: config });
    assert.deepEqual([...texts.keys()], [...SHARED, `${directory}/config-v3.toml.d/ocicrypt-kms.toml`]);
    assert.deepEqual(
      restarts.map(({ unit }) => unit),
      [service],
    );
  });
  test(`${service}: else a template beside it does, for the version of its configuration`, async (t) => {
    for (const [version, name] of [
      [2, 'config.toml.tmpl'],
      [3, 'config-v3.toml.tmpl'],
    ] as const) {
      const { texts } = await plan(t, { ...units, [`${directory}/config.toml`]: `version = ${version}\n` });
      const text = texts.get(`${directory}/${name}`) ?? '';
      assert.match(text, /^\{\{ template "base" \. \}\}\n/);
      assert.ok(text.includes('[stream_processors]') && !text.includes('version ='));
      assert.ok(!texts.has(`${directory}/config.toml`), 'that is written anew at each start');
    }
  });
  test(`${service}: before its first start, a template of the operator is not hidden by one of ours`, async (t) => {
    const [own, second, third] = [
      '{{ template "base" . }}\n# mine\n',
      `${directory}/config.toml.tmpl`,
      `${directory}/config-v3.toml.tmpl`,
    ];
    for (const [there, changed] of [
      [[], third],
      [[second], second],
      [[third], third],
      [[second, third], third],
    ] as const) {
      const { texts } = await plan(t, {
        ...units,
        ...Object.fromEntries(there.map((path) => [path, own])),
        [`${directory}/other`]: '',
      });
      assert.deepEqual([...texts.keys()], [...SHARED, changed]);
    }
  });
  test(`${service}: a template of the operator gets a block, once, which can be taken out`, async (t) => {
    const own = '{{ template "base" . }}\n# mine\n';
    const path = `${directory}/config.toml.tmpl`;
    const first =
      (await plan(t, { ...units, [`${directory}/config.toml`]: 'version = 2\n', [path]: own })).texts.get(path) ?? '';
    assert.ok(first.startsWith(own));
    const read = `version = 2\n${first.replace(own, '')}`;
    const second = (await plan(t, { ...units, [`${directory}/config.toml`]: read, [path]: first })).texts.get(path);
    assert.equal(second, first);
    assert.equal(withoutOurs(path, `${first}# later\n`)?.replaceAll(/\n+/g, '\n'), `${own}# later\n`);
    const theirs = plan(t, {
      ...units,
      [`${directory}/config.toml`]: 'version = 2\n',
      [path]: `${own}[stream_processors.x]\n`,
    });
    assert.equal(
      await theirs.then(
        () => 'planned',
        (error: unknown) => asOcicryptError(error).code,
      ),
      'configuration',
    );
  });
}

test('processors of the operator for encrypted layers are named, and nothing is planned', async (t) => {
  const own = '[stream_processors.mine]\naccepts = ["application/vnd.oci.image.layer.v1.tar+zstd+encrypted"]\n';
  const error = await plan(t, { '/usr/bin/containerd': '', '/etc/containerd/config.toml': own }).then(
    () => assert.fail('it was planned'),
    asOcicryptError,
  );
  assert.ok(error.code === 'configuration' && error.message.includes('mine'));
});

test('CRI-O gets its directory of keys, its unit the variable, docker and podman what to do', async (t) => {
  const { texts, restarts, notes } = await plan(t, {
    '/usr/bin/crio': '',
    '/usr/bin/dockerd': '',
    '/usr/bin/podman': '',
  });
  assert.ok(
    texts
      .get('/etc/systemd/system/crio.service.d/ocicrypt-kms.conf')
      ?.includes('OCICRYPT_KEYPROVIDER_CONFIG=/etc/ocicrypt-kms/ocicrypt.json'),
  );
  assert.ok(
    texts.get('/etc/crio/crio.conf.d/20-ocicrypt-kms.conf')?.includes('decryption_keys_path = "/etc/crio/keys/"'),
  );
  assert.deepEqual(
    restarts.map(({ unit }) => unit),
    ['crio.service'],
  );
  assert.equal(notes.length, 2);
});

test('a file that was changed since: without ours, as it is if nothing of ours is in it, or not known', () => {
  const config = '/etc/containerd/config.toml';
  assert.equal(withoutOurs(config, 'imports = ["/etc/containerd/conf.d/*.toml"]\nversion = 2\n'), 'version = 2\n');
  assert.equal(withoutOurs(config, 'version = 2\n'), 'version = 2\n');
  assert.equal(withoutOurs(config, "imports = ['/etc/containerd/conf.d/*.toml']\n"), undefined);
  assert.equal(withoutOurs('/etc/containerd/conf.d/ocicrypt-kms.toml', containerdDropIn(DECODER)), undefined);
  assert.equal(withoutOurs('/a/config.toml.tmpl', rancherTemplate(DECODER)), undefined);
  assert.equal(withoutOurs('/etc/ocicrypt-kms/config.yaml', 'key: []\n'), undefined);
});
