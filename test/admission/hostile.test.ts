// Reviews that no API server writes, pods that nobody means well with, and floods: what is answered is refused or in time.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { request } from 'node:https';
import { after, describe, test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { timeFor } from '../../src/admission/admission.ts';
import { essentialsOf } from '../../src/admission/pod.ts';
import { OcicryptError } from '../../src/base/errors.ts';
import { createStoredManifest } from '../../src/image/transports/store.ts';
import { type Answered, podOf, review, startWorld, UID } from './world.ts';

const world = await startWorld({ after });

const ABSENT = `sha256:${'0'.repeat(64)}`;

/** Puts indexes into the registry whose only entry is not there. @returns their names */
async function putWaiting(
  { open, image }: Pick<typeof world, 'image' | 'open'>,
  count: number,
  { size = 1000, padding }: { readonly size?: number; readonly padding?: unknown },
): Promise<readonly string[]> {
  const [manifestType = '', indexType = ''] = ['manifest', 'index'].map(
    (kind) => `application/vnd.oci.image.${kind}.v1+json`,
  );
  const names = Array.from({ length: count }, (_, index) => `bulky:b${index}`);
  for (const name of names) {
    const manifests = [{ mediaType: manifestType, digest: ABSENT, size }];
    const index = JSON.stringify({ schemaVersion: 2, name, manifests, padding });
    await open(name).writeRoot(createStoredManifest(Buffer.from(index), indexType));
  }
  return names.map(image);
}

/** Holds back the answers about that entry. */
function holdBack({ fake }: Pick<typeof world, 'fake'>) {
  const released = Promise.withResolvers<void>();
  const waiting = { count: 0, release: () => released.resolve() };
  fake.fault = async ({ url = '' }) => {
    if (!url.endsWith(ABSENT)) return false;
    waiting.count++;
    await released.promise;
    return false;
  };
  return waiting;
}

const message = ({ status }: Answered) => status?.message ?? '';

describe('reviews', () => {
  test('what has no uid or is no review is status 400, so that the API server does as its policy says', async () => {
    await world.stage();
    const { post } = world;
    const whole = JSON.parse(JSON.stringify(review(podOf('a/b'))));
    for (const body of [
      '',
      '{',
      '[]',
      'null',
      '"x"',
      '\ufeff{}',
      '['.repeat(100_000),
      JSON.stringify({ ...whole, apiVersion: 'admission.k8s.io/v1beta1' }),
      JSON.stringify({ ...whole, kind: 'Review' }),
      JSON.stringify({ ...whole, request: undefined }),
      JSON.stringify({ ...whole, request: [] }),
      JSON.stringify({ ...whole, request: { ...whole.request, uid: '' } }),
      JSON.stringify({ ...whole, request: { ...whole.request, uid: 7 } }),
      Buffer.from([0x7b, 0xff, 0x7d]),
    ]) {
      const { status } = await post('/validate', body);
      assert.equal(status, 400, String(body).slice(0, 80));
    }
    assert.equal((await post('/elsewhere', '{}')).status, 404);
  });

  test('what is no question about a pod’s images is let through or refused by what it is, and its uid comes back', async () => {
    await world.stage();
    const { ask, post, image } = world;
    const plain = podOf(image('plain:2'));
    const pods = { group: '', version: 'v1', resource: 'pods' };
    for (const [more, isAllowed] of [
      [{ operation: 'DELETE', object: null, oldObject: plain }, true],
      [{ operation: 'CONNECT', subResource: 'exec', object: { kind: 'PodExecOptions' } }, true],
      [{ operation: 'UPDATE', subResource: 'status', oldObject: plain }, true],
      [{ operation: 'CREATE', subResource: 'binding', object: { kind: 'Binding' } }, true],
      [{ operation: 'UPDATE', subResource: 'resize', oldObject: plain }, true],
      [{ resource: { group: 'apps', version: 'v1', resource: 'deployments' } }, false],
      [{ resource: { group: 'apps', version: 'v1', resource: 'pods' } }, false],
      [{ resource: undefined }, false],
      [{ resource: 'pods' }, false],
      [{ resource: pods, object: null }, false],
      [{ object: { metadata: {} } }, false],
      [{ object: { spec: [] } }, false],
      [{ object: { spec: { containers: {} } } }, false],
      [{ object: { spec: { containers: ['x'] } } }, false],
      [{ object: { spec: { containers: [{ name: 'c' }] } } }, false],
      [{ object: { spec: { containers: [{ name: 'c', image: 7 }] } } }, false],
      [{ object: { spec: { volumes: [{ name: 'v', image: {} }] } } }, false],
      [{ operation: 'PATCH' }, false],
      [{ operation: undefined }, false],
    ] as const) {
      const answered = await ask(plain, more);
      assert.equal(answered.allowed, isAllowed, JSON.stringify(more));
    }
    // A pod without images is for its own API server to refuse.
    assert.equal((await ask({ spec: { containers: null } })).allowed, true);
    const prototype = `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"${UID}","__proto__":{"operation":"DELETE"},"resource":{"resource":"pods"},"object":{"spec":{"containers":[{"name":"c","image":"${image('plain:2')}"}]}}}}`;
    assert.equal(JSON.parse((await post('/validate', prototype)).body).response.allowed, false);
  });

  test('more than the limit is not read, whether its length is said or not', async (t) => {
    const { post } = await startWorld(t, { body: 1000 });
    assert.equal((await post('/validate', 'x'.repeat(1001))).status, 413);
    assert.equal((await post('/validate', 'x'.repeat(1000))).status, 400);
  });

  test('a review as large as an author can make one is judged', async () => {
    await world.stage();
    const { post, image } = world;
    // Go writes each of them as six bytes.
    const much = '\\u003c'.repeat(3 * 1024 * 1024);
    const pod = { ...podOf(image('plain:2')), metadata: { annotations: { much: '<' } } };
    const body = JSON.stringify(review(pod, { oldObject: pod })).replaceAll('<', much);
    const answered = await post('/validate', body);
    assert.deepEqual([answered.status, JSON.parse(answered.body).response.allowed], [200, false]);
  });

  test('who holds bytes back, and who waits for a registry, keeps out nobody', async (t) => {
    const { post, image, fake, address, agent, instruments } = await startWorld(t, { body: 1000, buffered: 1200 });
    const held = () => Number(/buffered_bytes (\d+)/.exec(instruments.render())?.[1]);
    const half = request(`${address}/validate`, { agent, method: 'POST', headers: { 'content-length': 1000 } });
    const ended = once(half, 'error');
    half.write('x'.repeat(900));
    while (held() < 900) await setTimeout(5);
    assert.equal((await post('/validate', 'x'.repeat(1000))).status, 400, 'the oldest unfinished one gave way');
    await ended;
    fake.fault = () => true;
    const body = JSON.stringify(review(podOf(image('app:1'))));
    assert.ok(body.length > 300 && body.length <= 1000, String(body.length));
    const answers = await Promise.all(Array.from({ length: 5 }, () => post('/validate?timeout=400ms', body)));
    assert.deepEqual(
      answers.map(({ status }) => status),
      [200, 200, 200, 200, 200],
    );
    assert.equal(held(), 0);
  });

  test('the time is the API server’s own, less what the answer needs', () => {
    const time = (text: string) => timeFor(new URLSearchParams(text));
    assert.deepEqual(
      ['timeout=10s', '', 'timeout=1s', 'timeout=30s', 'timeout=2m0s', 'timeout=500ms', 'timeout=1.5s'].map(time),
      [9000, 9000, 850, 29_000, 29_000, 350, 1275],
    );
    for (const text of [
      'timeout=',
      'timeout=-1s',
      'timeout=0s',
      'timeout=x',
      'timeout=10',
      `timeout=${'9'.repeat(99)}s`,
    ])
      assert.equal(time(text), 9000, text);
  });
});

describe('names', () => {
  test('an image that is not in a registry, or in one that is not meant, is refused and not asked for', async () => {
    const nodes = 'nodes: [{runtime: cri-o}]';
    await world.stage();
    const { ask, fake, image, adopt } = world;
    for (const name of [
      '',
      'a'.repeat(64),
      `sha256:${'a'.repeat(64)}`,
      'UPPER/case',
      'registry.example/app@sha512:abc',
      '../../etc/passwd',
      'http://registry.example/app',
      'oci:/etc',
      'user:password@registry.example/app',
      'registry.example/app:1',
      'localhost/app:1',
      '127.0.0.1:1/app:1',
      '127.1:1/app:1',
      '2130706433:1/app:1',
      'LOCALHOST:1/app:1',
      'a.localhost:1/app:1',
      '0.0.0.0:1/app:1',
      '[::ffff:127.0.0.1]:1/app:1',
      '[::1]:1/app:1',
      '[::ffff:0.0.0.0]:1/app:1',
      '169.254.169.254/latest:1',
      `${fake.host}.evil.example/app:1`,
    ]) {
      const { allowed, status } = await ask(podOf(name));
      assert.deepEqual(
        [allowed, / is refused: /.test(status?.message ?? '')],
        [false, true],
        `${name}: ${status?.message}`,
      );
    }
    assert.equal(fake.requests.length, 0);
    await adopt(`{rules: [{name: all}], ${nodes}}`);
    for (const name of ['app:1', 'team/app:1', image('app:1')])
      assert.match(message(await ask(podOf(name))), /is refused: not-allowed: /, 'CRI-O, and the loopback');
    assert.equal(fake.requests.length, 0);
  });

  test('what drives terminals does not come back, and no message is longer than an event', async () => {
    await world.stage();
    const { ask } = world;
    const bad = '\u001b[31m\r\n\u202e\u2028\u0000';
    const pod = {
      metadata: { name: `x${bad}` },
      spec: {
        containers: Array.from({ length: 50 }, (_, index) => ({
          name: `c${index}${bad}`,
          image: `${bad}${'y'.repeat(5000)}`,
        })),
      },
    };
    const text = message(await ask(pod, { name: '', namespace: bad }));
    assert.ok(text.length <= 900 && text.length > 100, String(text.length));
    assert.doesNotMatch(text, /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u);
  });
});

test('of a pod that is judged only what decides stays in memory', () => {
  const much = 'x'.repeat(100_000);
  const pod = {
    metadata: {
      ...{ name: 'web', generateName: 'w-', labels: { a: 'b' }, managedFields: [much] },
      annotations: { much, 'kubernetes.io/config.mirror': 'y' },
    },
    spec: {
      ...{ hostname: much, nodeSelector: { c: 'd' }, imagePullSecrets: [{ name: 's' }], initContainers: null },
      containers: [{ name: 'c', image: 'r.example/app', env: [{ name: much }] }, 7],
      volumes: [
        { name: 'v', image: { reference: 'r.example/v', much } },
        { name: 'm', configMap: { name: much } },
      ],
    },
  };
  assert.deepEqual(JSON.parse(JSON.stringify(essentialsOf(pod))), {
    metadata: {
      ...{ name: 'web', generateName: 'w-', labels: { a: 'b' } },
      annotations: { 'kubernetes.io/config.mirror': '' },
    },
    spec: {
      ...{ nodeSelector: { c: 'd' }, imagePullSecrets: [{ name: 's' }], initContainers: null },
      containers: [{ name: 'c', image: 'r.example/app' }, 7],
      volumes: [{ name: 'v', image: { reference: 'r.example/v' } }, { name: 'm' }],
    },
  });
  assert.deepEqual(essentialsOf({ spec: [] }).spec, []);
});

test('a thousand containers are bounded: one name is asked for once, a thousand names end in time', async () => {
  await world.stage();
  const { ask, image, fake } = world;
  const one = await ask(podOf(...Array.from({ length: 1000 }, () => image('app:1'))));
  assert.equal(one.allowed, true, message(one));
  const manifests = fake.requests.splice(0).filter(({ path }) => path.includes('/manifests/'));
  assert.ok(manifests.length <= 2, String(manifests.length));
  fake.fault = () => true;
  const started = performance.now();
  const many = await ask(podOf(...Array.from({ length: 1000 }, (_, index) => image(`app:${index}x`))), {
    path: '/validate?timeout=500ms',
  });
  assert.equal(many.allowed, false);
  assert.match(message(many), /; and 998 more images \(rule all\)$/);
  // The usual time would be 9 s.
  assert.ok(performance.now() - started < 5000);
  assert.ok(fake.requests.length <= 8, String(fake.requests.length));
});

test('a flood is answered, and what is too much is turned away', async (t) => {
  await world.stage();
  const { ask, image, fake } = world;
  const answers = await Promise.all(Array.from({ length: 50 }, () => ask(podOf(image('app:1')))));
  assert.ok(answers.every(({ allowed }) => allowed));
  const manifests = fake.requests.filter(({ path }) => path.includes('/manifests/'));
  assert.ok(manifests.length < 50, 'who asks at the same time shares the answer');
  const small = await startWorld(t, { active: 1, queue: 1 });
  small.fake.fault = () => true;
  const body = JSON.stringify(review(podOf(small.image('app:1'))));
  const statuses = await Promise.all(Array.from({ length: 4 }, () => small.post('/validate?timeout=400ms', body)));
  assert.deepEqual(statuses.map(({ status }) => status).toSorted(), [200, 200, 503, 503]);
});

test('a namespace whose registry hangs keeps out no other, nor Gatekeeper, and none has all places', async (t) => {
  const { ask, post, image, fake, instruments } = await startWorld(t, { active: 16 }, { perNamespace: 4 });
  let isOpen = false;
  fake.fault = ({ url = '' }) => url.includes('/hangs') || (url.includes('/manifests/') && !isOpen);
  // Three pods whose images hang take the sixteen places of their namespace; the fourth waits behind them with a good image.
  const names = Array.from({ length: 24 }, (_, index) => image(`hangs${index}:1`));
  const pods = [0, 8, 16].map((start) => podOf(...names.slice(start, start + 8)));
  const path = '/validate?timeout=1500ms';
  let isPending = true;
  const hanging = [...pods, podOf(image('app:1'))].map((pod) => ask(pod, { namespace: 'gatekeeper', path }));
  const all = Promise.all(hanging).finally(() => {
    isPending = false;
  });
  while (!/active_calls 4\n/.test(instruments.render()) || fake.requests.length < 16) await setTimeout(5);
  isOpen = true;
  const more = await ask(podOf(image('app:1')), { namespace: 'gatekeeper', path });
  assert.match(message(more), /cannot be judged: throttled: too many pods of its namespace/);
  const other = await ask(podOf(image('app:1')), { namespace: 'other' });
  assert.equal(other.allowed, true, message(other));
  const version = { apiVersion: 'externaldata.gatekeeper.sh/v1beta1', kind: 'ProviderRequest' };
  const { body } = await post('/gatekeeper/all', JSON.stringify({ ...version, request: { keys: [image('app:1')] } }));
  assert.equal(JSON.parse(body).response.items[0].error, '');
  assert.ok(isPending, 'the others did not wait for it');
  for (const answered of await all) assert.equal(answered.allowed, false);
});

test('what manifests are said to be, and do not send, keeps out nobody', async () => {
  await world.stage();
  const { ask, image } = world;
  const names = await putWaiting(world, 8, { size: 4 * 1024 * 1024 });
  const waiting = holdBack(world);
  const asked = ['a', 'b', 'c', 'd'].map((namespace) => ask(podOf(...names), { namespace }));
  while (waiting.count < 32) await setTimeout(5);
  const other = await ask(podOf(image('app:1')), { namespace: 'other' });
  assert.equal(other.allowed, true, message(other));
  waiting.release();
  for (const answered of await Promise.all(asked)) assert.match(message(answered), /is not here/);
});

test('images that take too much memory give way, those of the namespace with the most first', async (t) => {
  // What counts is the number of values: each of these takes 6 MB, and has 40 kB.
  const small = await startWorld(t, {}, { memory: 20_000_000 });
  const { ask, image } = small;
  const names = await putWaiting(small, 4, { padding: Array(5000).fill({ a: 1 }) });
  const waiting = holdBack(small);
  const [first = '', ...others] = names;
  const little = ask(podOf(first), { namespace: 'little' });
  while (waiting.count < 1) await setTimeout(5);
  const much = others.map((name) => ask(podOf(name), { namespace: 'much' }));
  assert.match(message(await Promise.race(much)), /cannot be judged: throttled: images .* take too much memory/);
  while (waiting.count < 4) await setTimeout(5);
  const other = await ask(podOf(image('app:1')), { namespace: 'other' });
  assert.equal(other.allowed, true, message(other));
  waiting.release();
  assert.match(message(await little), /is not here/);
  const said = (await Promise.all(much)).map((answered) => /is not here|throttled/.exec(message(answered))?.[0]);
  assert.deepEqual(said.toSorted(), ['is not here', 'is not here', 'throttled']);
  assert.match(
    message(await ask(podOf(...others), { namespace: 'much' })),
    /is not here/,
    'what has ended counts no more',
  );
});

test('what packets say of themselves counts as memory where keys are asked', async (t) => {
  const small = await startWorld(t, {}, { memory: 4_000_000 });
  const { ask, image, open, stage } = small;
  // 20 kB of a packet that names 5,000 recipients, which take 5 MB.
  const packet = Buffer.from(JSON.stringify({ recipients: Array(5000).fill({}) })).toString('base64');
  const root = JSON.parse(Buffer.from((await open('app:1').readRoot()).bytes).toString());
  for (const layer of root.layers) layer.annotations['org.opencontainers.image.enc.keys.jwe'] = packet;
  await open('many:1').writeRoot(createStoredManifest(Buffer.from(JSON.stringify(root)), root.mediaType));
  const unwrapper = { unwrap: async () => Promise.reject(new OcicryptError('integrity', 'not for this key')) };
  for (const [unwrap, expected] of [
    [true, /cannot be judged: throttled: images .* take too much memory/],
    [false, undefined],
  ] as const) {
    const policy = `rules: [{name: all, unwrap: ${unwrap}}]\nregistries: [REGISTRY]\nnodes: [{runtime: containerd}]\n`;
    await stage({ policy, unwrapper });
    const answered = await ask(podOf(image('many:1')));
    if (expected === undefined) assert.doesNotMatch(message(answered), /throttled/);
    else assert.match(message(answered), expected);
  }
});

test('a decision that cannot be recorded is a refusal', async () => {
  await world.stage({ record: async () => Promise.reject(new Error('the disk is full')) });
  const { ask, image } = world;
  assert.equal((await ask(podOf(image('app:1')))).allowed, false);
});
