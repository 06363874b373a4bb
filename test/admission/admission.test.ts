// What API servers are answered about pods, whatever the registry, the pod or the request is like.
import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';
import { OcicryptError } from '../../src/base/errors.ts';
import { formatDigestTag } from '../../src/image/model/digest-tag.ts';
import { packetKeys } from '../image/packet-recipients.ts';
import type { Fault } from '../image/transports/registry/fake-registry.ts';
import { end } from '../image/transports/registry/harness.ts';
import { base64, clusterOf } from './cluster-of.ts';
import { type Answered, KEY, OTHER, patchOf, podOf, startWorld } from './world.ts';

const world = await startWorld({ after });

const message = ({ status }: Answered) => status?.message ?? '';

test('a pod with a plain image is refused in one sentence, and one with an encrypted image is let in and pinned', async () => {
  await world.stage();
  const { ask, image, digest, events } = world;
  const refused = await ask(podOf(image('plain:2')));
  assert.deepEqual([refused.allowed, refused.status?.code, refused.status?.reason], [false, 403, 'Forbidden']);
  assert.match(
    message(refused),
    /^pod shop\/web: container "c0" \S+\/plain:2 is not encrypted as it must be: linux\/amd64: layer 0 is plain \(.+\) \(rule all\)$/,
  );
  const admitted = await ask(podOf(image('app:1')));
  assert.equal(admitted.allowed, true, message(admitted));
  assert.equal(admitted.warnings?.length, 1);
  const mutated = await ask(podOf(image('app:1'), image('plain:2')), { path: '/mutate' });
  assert.deepEqual(patchOf(mutated), [
    { op: 'replace', path: '/spec/containers/0/image', value: image(`app@${digest}`) },
  ]);
  const pinned = await ask(podOf(image(`app@${digest}`)));
  assert.deepEqual([pinned.allowed, pinned.warnings], [true, undefined]);
  assert.deepEqual(
    events.map(({ operation, outcome, user, rule }) => [operation, outcome, user, rule]),
    [
      ['validate', 'denied', 'alice', 'all'],
      ['validate', 'allowed', 'alice', 'all'],
      ['mutate', 'pinned', 'alice', 'all'],
      ['validate', 'allowed', 'alice', 'all'],
    ],
  );
});

test('what is wrong with a pod is on record first, however many images are good', async () => {
  await world.stage();
  const { ask, image, events } = world;
  const good = Array.from({ length: 70 }, (_, index) => image(`app:1@${world.digest}`.replace('1@', `t${index}@`)));
  assert.equal((await ask(podOf(...good, image('plain:2')))).allowed, false);
  const [{ images = [] } = {}] = events;
  assert.deepEqual([images.length, images[0]?.outcome, images[1]?.outcome], [64, 'integrity', 'ok']);
});

test('every place of a pod that names an image is judged, and pinned in its place', async () => {
  await world.stage();
  const { ask, image, digest } = world;
  const spec = (name: string) => ({
    initContainers: [{ name: 'i', image: name, restartPolicy: 'Always' }],
    containers: [{ name: 'c', image: image('app:1') }],
    ephemeralContainers: [{ name: 'e', image: name }],
    volumes: [
      { name: 'data', emptyDir: {} },
      { name: 'v', image: { reference: name } },
    ],
  });
  const all = spec(image('app:1'));
  const value = image(`app@${digest}`);
  assert.deepEqual(
    patchOf(await ask({ metadata: {}, spec: all }, { path: '/mutate' })),
    [
      '/spec/initContainers/0/image',
      '/spec/containers/0/image',
      '/spec/ephemeralContainers/0/image',
      '/spec/volumes/1/image/reference',
    ].map((path) => ({ op: 'replace', path, value })),
  );
  for (const [member, where] of [
    ['initContainers', 'init container "i"'],
    ['ephemeralContainers', 'ephemeral container "e"'],
    ['volumes', 'volume "v"'],
  ] as const) {
    const pod = { metadata: {}, spec: { ...all, [member]: spec(image('plain:2'))[member] } };
    const answered = await ask(pod);
    assert.ok(!answered.allowed && message(answered).includes(where), message(answered));
  }
});

test('an update is about the images that it brings; ephemeral containers come by an update', async () => {
  await world.stage();
  const { ask, image, fake } = world;
  const old = podOf(image('plain:2'));
  const relabeled = { ...old, metadata: { ...old.metadata, labels: { a: 'b' } } };
  assert.equal((await ask(relabeled, { operation: 'UPDATE', oldObject: old })).allowed, true);
  assert.equal(fake.requests.length, 0);
  const moved = { ...old, spec: { containers: [...old.spec.containers, { name: 'x', image: image('plain:2') }] } };
  assert.equal((await ask(moved, { operation: 'UPDATE', oldObject: old })).allowed, false);
  // What is said of the past counts in an update alone.
  assert.equal((await ask(old, { oldObject: old })).allowed, false);
  const debugged = { ...old, spec: { ...old.spec, ephemeralContainers: [{ name: 'd', image: image('plain:2') }] } };
  const update = { operation: 'UPDATE', oldObject: old, subResource: 'ephemeralcontainers' };
  assert.match(message(await ask(debugged, update)), /ephemeral container "d"/);
});

test('rules are chosen in their order, by namespace, its labels and those of the pod', async () => {
  const cluster = {
    namespaceLabels: async (name: string) => {
      if (name === 'lost') throw new OcicryptError('unavailable', 'the API server is away');
      return name === 'vault' ? { tier: 'secret' } : {};
    },
    logins: async () => assert.fail('no secret is read'),
  };
  const policy = `
rules:
  - {name: ours, namespaces: [ours, ours-*], mode: exempt}
  - {name: strict, pod-labels: {strict: 'yes'}, require: ['${OTHER}']}
  - {name: secret, namespace-labels: {tier: secret}}
  - {name: trial, namespaces: [trial], mode: dry-run}
  - {name: soft, namespaces: [soft], mode: warn}
registries: [REGISTRY]
`;
  await world.stage({ policy, cluster });
  const { ask, image, adopt, events, fake } = world;
  const plain = podOf(image('plain:2'));
  const allowed = async (namespace: string, pod: object = plain) => (await ask(pod, { namespace })).allowed;
  assert.deepEqual([await allowed('ours'), await allowed('ours-2')], [true, true]);
  assert.equal(fake.requests.length, 0, 'an exempt image is not asked for');
  assert.deepEqual([await allowed('vault'), await allowed('trial'), await allowed('soft')], [false, true, true]);
  assert.deepEqual((await ask(plain, { namespace: 'trial' })).warnings, undefined);
  assert.match((await ask(plain, { namespace: 'soft' })).warnings?.[0] ?? '', /is not encrypted as it must be/);
  assert.deepEqual(
    events.map(({ outcome }) => outcome),
    ['exempt', 'exempt', 'denied', 'would-deny', 'warned', 'would-deny', 'warned'],
  );
  assert.match(
    message(await ask(plain, { namespace: 'elsewhere' })),
    /^no rule of the policy is for pod elsewhere\/web/,
  );
  assert.match(message(await ask(plain, { namespace: 'lost' })), /^unavailable: the API server is away/);
  const labeled = { ...podOf(image('app:1')), metadata: { name: 'web', labels: { strict: 'yes' } } };
  assert.match(
    message(await ask(labeled, { namespace: 'elsewhere' })),
    /layer 0 is not wrapped for gcpkms:.*\(rule strict\)$/,
  );
  await adopt(`${policy}default: allow\n`);
  assert.equal(await allowed('elsewhere'), true);
});

describe('the words of verify', () => {
  for (const [words, isAllowed] of [
    [`require: ['${KEY}'], only: ['${KEY}']`, true],
    ['post-quantum: true', false],
    [`require: ['${OTHER}']`, false],
    [`only: ['${OTHER}']`, false],
    [`require: ['${KEY}'], unwrap: true`, true],
  ] as const) {
    test(words, async () => {
      const policy = `{rules: [{name: r, ${words}}], registries: [REGISTRY]}`;
      const keys = packetKeys([KEY]);
      await world.stage({ policy, unwrapper: keys });
      const { ask, image } = world;
      const answered = await ask(podOf(image('app:1')));
      assert.equal(answered.allowed, isAllowed, message(answered));
      assert.equal(keys.calls(), words.includes('unwrap') ? 1 : 0, 'no key is opened unless the rule says so');
    });
  }
});

describe('pinning', () => {
  const policy = (nodes: string, pin = 'possible') =>
    `{rules: [{name: all, pin: ${pin}}], registries: [REGISTRY], nodes: ${nodes}}`;
  const MIXED = '[{runtime: cri-o, labels: {rt: crio}}, {runtime: containerd, labels: {rt: containerd}}]';
  const bound = (name: string, rt?: string) => {
    const pod = podOf(name);
    return { ...pod, spec: { ...pod.spec, ...(rt === undefined ? {} : { nodeSelector: { rt, zone: 'a' } }) } };
  };

  test('is to the digest for containerd, to the digest tag for CRI-O, and to nothing where nodes are not known', async () => {
    await world.stage({ policy: policy(MIXED) });
    const { ask, image, digest } = world;
    const pinned = async (rt?: string, name = image('app:1')) => {
      const [step] = [patchOf(await ask(bound(name, rt), { path: '/mutate' }))].flat();
      return typeof step === 'object' && step !== null && 'value' in step ? step.value : undefined;
    };
    const [byDigest, byTag] = [image(`app@${digest}`), image(`app:${formatDigestTag(digest)}`)];
    assert.deepEqual([await pinned('containerd'), await pinned('crio'), await pinned()], [byDigest, byTag, undefined]);
    assert.equal(await pinned('crio', byDigest), byTag, 'CRI-O decrypts nothing that is named by its digest');
    assert.deepEqual([await pinned('crio', byTag), await pinned('containerd', byDigest)], [undefined, undefined]);
    assert.match((await ask(bound(image('app:1')))).warnings?.[0] ?? '', /is not pinned.*does not say which runtime/);
    assert.equal((await ask(bound(byTag, 'crio'))).warnings, undefined);
  });

  test('changes nothing if it is turned off, and refuses what is loose if it is required', async () => {
    await world.stage({ policy: policy('[{runtime: containerd}]', 'never') });
    const { ask, image, adopt, digest } = world;
    assert.equal(patchOf(await ask(podOf(image('app:1')), { path: '/mutate' })), undefined);
    assert.equal((await ask(podOf(image('app:1')))).warnings, undefined);
    await adopt(policy('[{runtime: containerd}]', 'required'));
    assert.match(message(await ask(podOf(image('app:1')))), /is not pinned/);
    assert.equal((await ask(podOf(image(`app@${digest}`)))).allowed, true);
    assert.equal((await ask(podOf(image(`app:1@${digest}`)))).allowed, true, 'a tag beside a digest counts nowhere');
  });

  test('that is required holds for what cannot be judged too, whatever is said of the unknown', async () => {
    const rule = (pin: string) => `{rules: [{name: all, unknown: allow, pin: ${pin}}], registries: [REGISTRY]}`;
    await world.stage({ policy: rule('required') });
    const { ask, image, fake, digest, adopt } = world;
    fake.fault = (_request, response) => end(response, 404);
    assert.match(message(await ask(podOf(image('app:1')))), /is not pinned: .*, or they may have more than one/);
    // A node that finds it finds what was named, and none decrypts what it was not encrypted for.
    assert.equal((await ask(podOf(image(`app@${digest}`)))).allowed, true);
    await adopt(rule('possible'));
    const lax = await ask(podOf(image('app:1')));
    assert.deepEqual([lax.allowed, lax.warnings?.length], [true, 1]);
  });

  test('a digest tag that was moved is refused, and so is a digest under which something else is found', async () => {
    await world.stage({ policy: policy('[{runtime: cri-o}]') });
    const { ask, image, fake, open, digest } = world;
    const { bytes, mediaType } = await open('plain:2').readRoot();
    fake.fault = (_request, response) =>
      end(response, 200, { 'content-type': mediaType }, new TextDecoder().decode(bytes));
    const names = [`app:${formatDigestTag(digest)}`, `app@${digest}`].map(image);
    for (const name of names) assert.match(message(await ask(podOf(name))), /is refused: integrity: /, name);
  });
});

test('a registry that hangs, drips, fails or leads in circles is denied in time, and says why', async (t) => {
  await world.stage();
  const { ask, image, fake, adopt } = world;
  const timed = async (pod: object) => {
    const started = performance.now();
    const answered = await ask(pod, { path: '/validate?timeout=600ms' });
    return { answered, took: performance.now() - started };
  };
  const faults: Readonly<Record<string, Fault>> = {
    hangs: () => true,
    drips: (_request, response) => {
      response.writeHead(200, { 'content-type': 'application/vnd.oci.image.manifest.v1+json' });
      const timer = setInterval(() => response.write(' '), 50);
      t.after(() => clearInterval(timer));
      return true;
    },
  };
  for (const [name, fault] of Object.entries(faults)) {
    fake.fault = fault;
    const { answered, took } = await timed(podOf(image('app:1')));
    assert.deepEqual([answered.allowed, took < 5000], [false, true], `${name}: ${took}`);
    assert.match(message(answered), /cannot be judged: deadline-exceeded: /, name);
  }
  fake.fault = (_request, response) => end(response, 302, { location: '/v2/' });
  assert.match(message(await ask(podOf(image('app:1')))), /cannot be judged: unavailable: .*redirect/);
  fake.fault = (_request, response) => end(response, 404);
  assert.match(message(await ask(podOf(image('app:1')))), /cannot be judged: not-found: /);
  await adopt('{rules: [{name: all, unknown: allow, pin: never}], registries: [REGISTRY]}');
  const lax = await ask(podOf(image('app:1')));
  assert.deepEqual([lax.allowed, lax.warnings?.length], [true, 1]);
});

test('a registry is shown the pull secrets that the pod names, if the rule says so, and no helper of theirs is run', async () => {
  const policy = (words: string) => `{rules: [{name: all, pin: never, ${words}}], registries: [REGISTRY]}`;
  const objects: Record<string, unknown> = {};
  const { cluster, asked } = clusterOf(objects);
  await world.stage({ policy: policy('pull-secrets: true'), cluster });
  const { ask, adopt, image, fake } = world;
  const secret = (config: object) => ({
    type: 'kubernetes.io/dockerconfigjson',
    data: { '.dockerconfigjson': base64(JSON.stringify(config)) },
  });
  objects['namespaces/shop/secrets/right'] = secret({ auths: { [fake.host]: { auth: base64('pod:right') } } });
  objects['namespaces/shop/secrets/helper'] = secret({ credsStore: 'evil', credHelpers: { [fake.host]: 'evil' } });
  objects['namespaces/shop/secrets/broken'] = {
    type: 'kubernetes.io/dockerconfigjson',
    data: { '.dockerconfigjson': base64('{') },
  };
  fake.fault = ({ headers }, response) =>
    headers.authorization === `Basic ${base64('pod:right')}`
      ? false
      : end(response, 401, { 'www-authenticate': 'Basic realm="fake"' });
  const pod = (...names: readonly string[]) => {
    const { spec, ...rest } = podOf(image('app:1'));
    return { ...rest, spec: { ...spec, imagePullSecrets: names.map((name) => ({ name })) } };
  };
  const admitted = await ask(pod('right'));
  assert.equal(admitted.allowed, true, message(admitted));
  assert.match(message(await ask(pod())), /cannot be judged: unauthenticated: /);
  assert.match(
    message(await ask(pod('helper'))),
    /cannot be judged: unauthenticated: /,
    'the operator’s credentials are next',
  );
  assert.match(
    message(await ask(pod('broken'))),
    /cannot be judged: configuration: the secret shop\/broken is no auth file/,
  );
  asked.splice(0);
  await adopt(policy(''));
  assert.match(message(await ask(pod('right'))), /cannot be judged: unauthenticated: /);
  assert.deepEqual(asked, []);
});

test('a verdict about a digest is kept, what a tag stands for is asked each time, and another policy begins anew', async () => {
  await world.stage();
  const { ask, adopt, image, digest, fake, open, instruments } = world;
  await open('app:m').writeRoot(await open('app:1').readRoot());
  fake.requests.splice(0);
  const count = (source: string) =>
    Number(new RegExp(`verdicts_total\\{source="${source}"\\} (\\d+)`).exec(instruments.render())?.[1]);
  const before = { made: count('made'), kept: count('kept') };
  const counted = (source: 'kept' | 'made') => count(source) - before[source];
  const asked = () => fake.requests.splice(0).filter(({ path }) => path.includes('/manifests/')).length;
  assert.equal((await ask(podOf(image(`app@${digest}`)))).allowed, true);
  assert.equal(asked(), 1);
  assert.equal((await ask(podOf(image(`app@${digest}`)))).allowed, true);
  assert.equal(asked(), 0, 'kept');
  assert.equal((await ask(podOf(image('app:m')))).allowed, true);
  assert.equal(asked(), 1, 'the tag');
  await open('app:m').writeRoot(await open('plain:2').readRoot());
  assert.equal((await ask(podOf(image('app:m')))).allowed, false, 'the tag was moved');
  assert.deepEqual([counted('made'), counted('kept')], [2, 2]);
  asked();
  await adopt('{rules: [{name: all}], registries: [REGISTRY]}');
  assert.equal((await ask(podOf(image(`app@${digest}`)))).allowed, true);
  assert.equal(asked(), 1);
});

test('Gatekeeper is told by a rule that it names: the digest of a good image, or what is wrong', async () => {
  await world.stage({ policy: `{rules: [{name: strict, require: ['${KEY}']}], registries: [REGISTRY]}` });
  const { post, image, digest } = world;
  const ask = async (path: string, request: object) => {
    const version = 'externaldata.gatekeeper.sh/v1beta1';
    const { status, body } = await post(
      path,
      JSON.stringify({ apiVersion: version, kind: 'ProviderRequest', request }),
    );
    if (status !== 200) return status;
    const { apiVersion, kind, response } = JSON.parse(body);
    assert.deepEqual([apiVersion, kind], [version, 'ProviderResponse']);
    return response;
  };
  const keys = [image('app:1'), image('plain:2'), 'elsewhere.example/app:1', ''];
  const { idempotent, items, systemError } = await ask('/gatekeeper/strict?timeout=3s', { idempotent: true, keys });
  assert.deepEqual([idempotent, systemError], [true, undefined]);
  assert.deepEqual(items[0], { key: image('app:1'), value: image(`app@${digest}`), error: '' });
  assert.deepEqual(
    items.map(({ key, value, error }: Record<string, string>) => [key, value !== '', error !== '']),
    keys.map((key, index) => [key, index === 0, index !== 0]),
  );
  assert.match(items[1].error, /is not encrypted as it must be/);
  assert.match((await ask('/gatekeeper/other', { keys })).systemError, /^not-found: /);
  assert.equal(await ask('/gatekeeper/strict', { keys: 'x' }), 400);
  assert.equal(await ask('/gatekeeper/', { keys }), 404);
});
