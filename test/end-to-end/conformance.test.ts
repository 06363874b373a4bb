// npm run conformance: our own provider passes as a command and as a server, and what fails elsewhere is reported.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { commandDoor, grpcDoor } from '../../tools/conformance/doors.ts';
import { formatReport, isConformant, makeReport, parseExpected, type Report } from '../../tools/conformance/report.ts';
import { blocksOf, readDocument } from '../docs/transcript.ts';
import { formatExchanges, makeExchanges } from '../fixtures/vectors/exchanges.ts';
import { startGoogle } from './google.ts';
import { createWorkspace, DIST } from './workspace.ts';

const SCRIPT = fileURLToPath(new URL('../../scripts/conformance.ts', import.meta.url));

type Run = { readonly status: number; readonly stdout: string; readonly stderr: string };

function conformance(...words: readonly string[]): Promise<Run> {
  return new Promise((resolve) => {
    execFile(process.execPath, [SCRIPT, ...words], { maxBuffer: 2 ** 26 }, (error, stdout, stderr) => {
      resolve({ status: error === null ? 0 : Number(error.code), stdout, stderr });
    });
  });
}

async function reportOf(...words: readonly string[]): Promise<Report & { readonly status: number }> {
  const { status, stdout, stderr } = await conformance('--json', ...words);
  assert.ok(stdout !== '', stderr);
  return { status, ...JSON.parse(stdout) };
}

function countOf(report: Report, level: string, result: string): number {
  return report.results.filter((one) => one.level === level && one.result === result).length;
}

test('test/vectors/protocol.json is what scripts/vectors.ts makes, with every request of a client', async () => {
  const exchanges = makeExchanges();
  assert.equal(await readDocument('test/vectors/protocol.json'), formatExchanges(exchanges));
  assert.equal(new Set(exchanges.map(({ name }) => name)).size, exchanges.length);
  assert.ok(exchanges.length >= 120);
});

test('our command and our server are conformant, by the commands of docs/conformance.md', async (t) => {
  const { directory } = await createWorkspace(t);
  const document = await readDocument('docs/conformance.md');
  const blocks = blocksOf(document);
  const npm = `npm() { shift 3; '${process.execPath}' '${SCRIPT}' "$@"; }`;
  const script = blocks.filter(({ language }) => language === 'bash').map(({ text }) => text);
  const text = ['set -eu', "trap 'kill $! || true' EXIT", npm, ...script].join('\n');
  const environment = { ...process.env, PATH: `${DIST}:${process.env.PATH}` };
  const { stdout } = await promisify(execFile)('bash', ['-c', text], { cwd: directory, env: environment });
  const shown = blocks.find(({ language, text: lines }) => language === 'text' && !lines.startsWith('usage: '));
  assert.ok(shown !== undefined && stdout.startsWith(shown.text), stdout);
  const byMethod = makeExchanges().filter(({ method }) => method !== undefined).length;
  const all = makeExchanges().length;
  assert.ok(shown.text.includes(`protocol: ${all - byMethod} passed, 0 failed, ${byMethod} not played`));
  // The server is given one recipient, and one exchange needs two.
  assert.match(stdout, new RegExp(`^protocol: ${all - 1} passed, 0 failed, 1 not played$`, 'm'));
  // All of them are played to the executable by test/executable/vectors.test.ts.
  assert.match(stdout, /^packets: (?:1[5-9]|[2-9]\d) passed, 0 failed, 0 not played$/m);
  assert.match(stdout, /^packets: [2-9]\d\d passed, 0 failed, \d+ not played$/m);
  assert.equal(stdout.match(/^conformant$/gm)?.length, 3);
});

test('docs/conformance.md has the usage of the runner', async () => {
  const { stdout } = await conformance('--help');
  const usage = blocksOf(await readDocument('docs/conformance.md')).find(({ text }) => text.startsWith('usage: '));
  assert.equal(usage?.text, stdout);
});

test('every place of an exchange is in test/vectors/README.md, and every outcome', async () => {
  const readme = await readDocument('test/vectors/README.md');
  const exchanges = makeExchanges();
  // A place that is not filled would be a malformed request by itself.
  const places = [...JSON.stringify(exchanges).matchAll(/\{\{[^}]*\}\}/g)].map(([place]) => place);
  const documented = [...readme.matchAll(/`(\{\{[^}]*\}\})`/g)].map(([, place = '']) => place);
  assert.deepEqual([...new Set(places)].sort(), documented.sort());
  for (const { expect } of exchanges) assert.ok(readme.includes(`| \`${expect}\` |`), expect);
});

test('what the reference provider does wrong is found, and can be expected', async (t) => {
  const workspace = await createWorkspace(t);
  const google = await startGoogle(t, workspace);
  const script = fileURLToPath(new URL('reference-stand-in.ts', import.meta.url));
  const node = `NODE_EXTRA_CA_CERTS=${google.authority} ${process.execPath}`;
  const command = `env ${node} ${script} ${google.kms.endpoint} ${google.accessToken()}`;
  const words = ['--cmd', command, '--recipient', google.key, '--recipient', google.createKey('second')];
  const only = (pattern: string) => ['--only', `protocol/(?:${pattern})$`];
  const report = await reportOf(
    ...words,
    ...only('skopeo-wrap|skopeo-unwrap|containerd-unwrap|ocicrypt-rs-wrap|op-only-.*|op-unknown'),
  );
  const failed = report.failures.map(({ name }) => name);
  assert.deepEqual(failed, ['protocol/ocicrypt-rs-wrap', 'protocol/op-only-wrap', 'protocol/op-only-unwrap']);
  assert.equal(report.status, 1);
  assert.match(report.failures.at(-1)?.detail ?? '', /^fell over: /);
  assert.equal(countOf(report, 'protocol', 'pass'), 4);

  const list = workspace.path('expected');
  await writeFile(list, '# looks before it is asked\nprotocol/op-only-wrap\nprotocol/op-only-unwrap here too\n');
  const expected = await reportOf(...words, ...only('op-only-.*'), '--expected', list);
  assert.deepEqual([expected.status, expected.failures, expected.known.length], [0, [], 2]);
});

test('an expected failure that passes, or that there is not, is a fault of the list', () => {
  const about = { level: 'protocol', comment: '', expected: '', detail: '' } as const;
  const results = [
    { ...about, name: 'protocol/a', result: 'pass' } as const,
    { ...about, name: 'protocol/b', result: 'fail' } as const,
  ];
  const report = makeReport(results, parseExpected('protocol/a\nprotocol/b why # and more\n\nprotocol/c'), true);
  assert.deepEqual([report.failures, report.stale, isConformant(report)], [[], ['protocol/a', 'protocol/c'], false]);
  // What was not played says nothing.
  assert.deepEqual(makeReport(results, new Set(['protocol/b', 'protocol/c']), false).stale, []);
  assert.match(formatReport(report), /^protocol\/a is listed as an expected failure and did not fail$/m);
});

test('what is neither a reply nor a failure that a client could show is told so', async () => {
  const why = new Map<string, RegExp>([
    ['sh -c "echo x; echo y >&2; exit 1"', /^exit 1 after 2 bytes of output$/],
    ['false', /^exit 1 without a word on standard error$/],
    ['sh -c "kill -9 \\$\\$"', /^ended by SIGKILL$/],
    ['sh -c "echo panic: x >&2; exit 2"', /^fell over: panic: x$/],
    ['sleep 60', /^no end within 0\.5 s$/],
  ]);
  for (const [command, pattern] of why) {
    const outcome = await commandDoor(command, undefined, 500).call(Buffer.from('{}'), 'wrap');
    assert.ok(outcome.kind === 'broken' && pattern.test(outcome.why), `${command}: ${JSON.stringify(outcome)}`);
  }
  const missing = await commandDoor('/nonexistent/provider', undefined, 500).call(Buffer.from('{}'), 'wrap');
  assert.equal(missing.kind, 'failure');
  const lost = await grpcDoor('unix:///nonexistent/socket', 500).call(Buffer.from('{}'), 'wrap');
  assert.equal(lost.kind, 'broken');
  const { status, stdout } = await conformance(
    '--cmd',
    'echo {}',
    '--recipient',
    'x',
    '--only',
    'protocol/skopeo-unwrap$',
  );
  assert.equal(status, 1);
  assert.match(stdout, /FAILED protocol\/skopeo-wrap .*\n {2}wanted: .*\n {2}got: the reply holds no packet\n/);
  assert.match(stdout, /got: the first request made no packet\nnot conformant\n$/);
});

test('a call that names no provider, two or nothing to ask for is shown the usage', async () => {
  const wrong = [
    ['--cmd', 'true'],
    ['--cmd', 'true', '--grpc', 'unix:///x', '--packets'],
  ];
  for (const words of wrong) {
    const { status, stdout, stderr } = await conformance(...words);
    assert.deepEqual([status, stdout], [64, ''], words.join(' '));
    assert.match(stderr, /^usage: /);
  }
});
