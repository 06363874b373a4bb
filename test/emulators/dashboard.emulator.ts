// Every query of the dashboard and every alert of the chart, evaluated by Prometheus's engine over metrics that our own
// processes show: of a server that was used and abused, of an agent, and of the webhook's instruments.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { before, type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { parse } from 'yaml';
import { OcicryptError } from '../../src/base/errors.ts';
import { Agent } from '../../src/cli/node/agent-loop.ts';
import { createKeyfile } from '../../src/kms/keyfile/key.ts';
import { WebhookInstruments } from '../../src/server/webhook-instruments.ts';
import { readStatus } from '../executable/server/served.ts';
import { createCertificateAuthority } from '../fixtures/certificates.ts';
import { runExecutable } from '../fixtures/executable.ts';
import { serve } from '../fixtures/serve.ts';
import { askPrometheus, type Scrape } from '../peers/promql.ts';

const FILES = fileURLToPath(new URL('../../deploy/helm/ocicrypt-kms/files', import.meta.url));
/** Seconds since 1970. */
const START = 1_800_000_000;
const STEP = 30;
const STEPS = 10;
const END = START + STEP * STEPS;
const NAMESPACE = 'system';
const AWS_KEY = 'awskms:///arn:aws:kms:eu-west-1:111122223333:key/12345678-1234-1234-1234-123456789012';

type Panel = { readonly title: string; readonly targets: readonly { readonly expr: string }[] };
type Rule = { readonly alert: string; readonly expr: string; readonly annotations: Readonly<Record<string, string>> };

const dashboard: { readonly panels: readonly Panel[] } = JSON.parse(
  readFileSync(join(FILES, 'dashboard.json'), 'utf8'),
);
const rules: readonly Rule[] = parse(readFileSync(join(FILES, 'alerts.yaml'), 'utf8')).groups[0].rules;

/** What Grafana puts in. */
function filled(query: string): string {
  return query.replaceAll('$__rate_interval', '2m').replaceAll('$namespace', '.*');
}

/** A page that was read at the beginning, and another one later and ever since. */
function scrapes(pod: string, first: string, ...later: readonly string[]): readonly Scrape[] {
  return Array.from({ length: STEPS + 1 }, (_, index) => ({
    at: START + index * STEP,
    labels: { namespace: NAMESPACE, pod },
    text: later[index - (STEPS + 1 - later.length)] ?? first,
  }));
}

let good: readonly Scrape[];
let bad: readonly Scrape[];

async function wrap(socket: string, key: string): Promise<void> {
  const request = {
    op: 'keywrap',
    keywrapparams: {
      ec: { Parameters: { kmscrypt: [Buffer.from(key).toString('base64')] }, DecryptConfig: { Parameters: null } },
      optsdata: Buffer.from(
        JSON.stringify({
          symkey: Buffer.alloc(32).toString('base64'),
          digest: `sha256:${'0'.repeat(64)}`,
          cipheroptions: { nonce: Buffer.alloc(16).toString('base64') },
        }),
      ).toString('base64'),
    },
  };
  await runExecutable(['keyprovider', `--remote=unix://${socket}`], { input: JSON.stringify(request) });
}

/** A server that is used, and then meets everything that an alert is for. */
async function readServer(
  t: Pick<TestContext, 'after'>,
): Promise<readonly [before: string, used: string, abused: string, again: string]> {
  const directory = mkdtempSync(join(tmpdir(), 'dashboard-'));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  const file = (name: string) => join(directory, name);
  createKeyfile(file('key'));
  const authority = await createCertificateAuthority(directory);
  const { certificate, privateKey } = await authority.issue('server');
  // Takes connections and says nothing.
  const silent = createServer((socket) => socket.on('error', () => undefined)).listen(0, '127.0.0.1');
  await once(silent, 'listening');
  t.after(() => silent.close());
  const address = silent.address();
  assert.ok(typeof address === 'object' && address !== null);
  writeFileSync(file('config.yaml'), `key: [${file('key')}]\nallow: [hashivault://k, "${AWS_KEY}"]\n`);
  const { child, log } = await serve(
    t,
    [
      ...[
        `--config=${file('config.yaml')}`,
        `--listen=unix://${file('s')}`,
        '--listen=tls://127.0.0.1:0',
        '--timeout=2s',
      ],
      ...[
        `--tls-cert=${certificate}`,
        `--tls-key=${privateKey}`,
        '--insecure-any-client',
        `--status=unix://${file('status')}`,
      ],
      '--aws-endpoint=https://127.0.0.1:1',
    ],
    {
      environment: {
        ...{
          VAULT_ADDR: `https://127.0.0.1:${address.port}`,
          VAULT_TOKEN: 'x',
          AWS_ACCESS_KEY_ID: 'AKIDEXAMPLE',
          AWS_REGION: 'eu-west-1',
        },
        ...{ AWS_SECRET_ACCESS_KEY: 'x' },
      },
    },
  );
  const metrics = async () => (await readStatus(file('status'), '/metrics')).body;
  await wrap(file('s'), `keyfile://${file('key')}`);
  const first = await metrics();
  for (let count = 0; count < 3; count++) await wrap(file('s'), `keyfile://${file('key')}`);
  const used = await metrics();
  const abuse = async () => {
    await wrap(file('s'), 'gcpkms://projects/p/locations/l/keyRings/r/cryptoKeys/k');
    await wrap(file('s'), 'hashivault://k');
    await wrap(file('s'), AWS_KEY);
  };
  await abuse();
  const abusedOnce = await metrics();
  await abuse();
  writeFileSync(certificate, 'no certificate');
  writeFileSync(file('config.yaml'), 'keys: []\n');
  child.kill('SIGHUP');
  for (
    let last = '';
    !/certificate_reloads_total\{result="failed"\} 1[\s\S]*policy_reloads_total\{result="failed"\} 1/.test(last);
    last = await metrics()
  )
    assert.equal(child.exitCode, null, log());
  return [first, used, abusedOnce, await metrics()];
}

/** The loop of an agent whose node is as it is told, until it has been reported or not. */
async function readAgent(isReady: boolean, isReported: boolean): Promise<string> {
  const stop = new AbortController();
  const agent = new Agent({
    rounds: {
      run: async () => ({ isReady, reason: isReady ? 'Decrypts' : 'CheckFailed', message: '' }),
      hasNews: () => false,
    },
    node: {
      async report() {
        queueMicrotask(() => stop.abort());
        if (!isReported) throw new OcicryptError('unavailable', 'away');
      },
      complain: () => assert.fail('the node is that of no other agents'),
    },
    period: 1,
    log: () => undefined,
    stop: stop.signal,
  });
  await agent.run();
  assert.equal(agent.isReady(), isReady && isReported);
  return agent.render();
}

function readWebhook(outcomes: readonly string[], daysLeft: number): string {
  const instruments = new WebhookInstruments();
  instruments.read(
    { connections: () => 1, activeCalls: () => 0, queuedCalls: () => 0, bufferedBytes: () => 0 },
    () => END + daysLeft * 86_400,
  );
  for (const outcome of outcomes) {
    instruments.review('/validate', outcome === 'ok' ? 'allowed' : 'denied', 12);
    instruments.image(outcome);
  }
  return instruments.render();
}

before(async (t) => {
  assert.ok('after' in t);
  const [first, used, abused, again] = await readServer(t);
  const ready = await readAgent(true, true);
  const [one, two] = [readWebhook(['ok'], 60), readWebhook(['ok', 'ok', 'integrity'], 60)];
  good = [...scrapes('server', first, used), ...scrapes('agent', ready, ready), ...scrapes('webhook', one, two)];
  const failed = await readAgent(false, false);
  const unknown = readWebhook(['ok', 'unavailable'], 3);
  const known = readWebhook(['ok', 'unavailable', 'unavailable'], 3);
  bad = [
    ...scrapes('server', first, abused, again),
    ...scrapes('agent', failed, failed),
    ...scrapes('webhook', unknown, known),
  ];
});

test('every query of the dashboard has an answer over what our processes show', async () => {
  const queries = dashboard.panels.flatMap(({ title, targets }) =>
    targets.map(({ expr }) => [title, filled(expr)] as const),
  );
  assert.ok(queries.length > 20);
  const answers = await askPrometheus(
    [...good, ...bad.map((one) => ({ ...one, labels: { ...one.labels, namespace: 'other' } }))],
    queries.map(([, query]) => query),
    END,
  );
  for (const [index, [title, query]] of queries.entries()) {
    const samples = answers[index] ?? [];
    assert.ok(samples.length > 0, `${title}: ${query}`);
    // A quantile of nothing is NaN.
    assert.ok(
      samples.some(({ value }) => Number(value) >= 0) && !samples.some(({ value }) => Number(value) < 0),
      title,
    );
  }
});

test('no alert fires while all is well, and each of them when it should', async () => {
  const queries = rules.map(({ expr }) => expr);
  const calm = await askPrometheus(good, queries, END);
  assert.deepEqual(
    rules.filter((_, index) => (calm[index] ?? []).length > 0).map(({ alert }) => alert),
    [],
  );
  const loud = await askPrometheus(bad, queries, END);
  assert.deepEqual(
    rules.filter((_, index) => (loud[index] ?? []).length === 0).map(({ alert }) => alert),
    [],
  );
  for (const [index, { alert, annotations }] of rules.entries()) {
    // What a text names, the alert has.
    const names = Object.values(annotations).flatMap((text) =>
      [...text.matchAll(/\$labels\.(\w+)/g)].map(([, name]) => name ?? ''),
    );
    for (const name of names)
      assert.ok(
        loud[index]?.every(({ labels }) => labels[name] !== undefined),
        `${alert}: ${name}`,
      );
  }
});

test('backends are told apart: each failure is of its own', async () => {
  const unavailable = rules.find(({ alert }) => alert === 'OcicryptKmsUnavailable')?.expr ?? '';
  const deadlines = rules.find(({ alert }) => alert === 'OcicryptKmsDeadlines')?.expr ?? '';
  const [down = [], late = []] = await askPrometheus(bad, [unavailable, deadlines], END);
  assert.deepEqual(
    down.map(({ labels }) => labels.backend),
    ['awskms'],
  );
  assert.deepEqual(
    late.map(({ labels }) => labels.backend),
    ['hashivault'],
  );
});
