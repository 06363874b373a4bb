// What the README says of those who come from the reference provider: each difference of its list, and that it is all there.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { after, before, describe, type TestContext, test } from 'node:test';
import type { Address } from '../../src/base/address.ts';
import { asOcicryptError, type ErrorCode } from '../../src/base/errors.ts';
import { encodeBytesField } from '../../src/base/grpc.ts';
import { callOnce } from '../../src/client/grpc-client.ts';
import { readDocument } from '../docs/transcript.ts';
import { executablePath, type Finished, runExecutable } from '../fixtures/executable.ts';
import { serve } from '../fixtures/serve.ts';
import { unwrapRequest, wrapRequest } from '../fixtures/vectors/shape.ts';
import { type Google, startGoogle } from './google.ts';
import { createWorkspace, type Workspace } from './workspace.ts';

const REFERENCE = { program: () => [executablePath('kms_oci_crypt')] as const };
let google: Google;
let workspace: Workspace;
const cleanups: (() => unknown)[] = [];
before(async () => {
  const t = { after: (cleanup: () => unknown) => void cleanups.unshift(cleanup) };
  workspace = await createWorkspace(t);
  google = await startGoogle(t, workspace);
});
after(async () => {
  for (const cleanup of cleanups) await cleanup();
});

/** `kms_oci_crypt` as a client runs it. */
function run(words: readonly string[], input: string): Promise<Finished> {
  return runExecutable(words, { name: 'kms_oci_crypt', input });
}

async function packetOf(words: readonly string[], keys: readonly string[]): Promise<string> {
  const { status, stdout, stderr } = await run(words, wrapRequest(keys));
  assert.equal(status, 0, stderr);
  return atob(JSON.parse(stdout.toString()).keywrapresults.annotation);
}

/** Demands that a command failed with this code, in one line. */
function assertCode({ status, stdout, stderr }: Finished, code: ErrorCode): void {
  assert.match(stderr, new RegExp(`^kms_oci_crypt: ${code}: [^\n]+\n$`));
  assert.deepEqual([status !== 0, stdout.length], [true, 0]);
}

async function startReference(t: TestContext, words: readonly string[]) {
  const server = await serve(t, words, REFERENCE);
  const [address = ''] = server.addresses;
  return { ...server, target: { kind: 'tcp', host: '127.0.0.1', port: Number(address.split(':').at(-1)) } as const };
}

function call(target: Address, method: 'WrapKey' | 'UnWrapKey', request: string): Promise<Uint8Array> {
  return callOnce(target, undefined, {
    method: `/keyprovider.KeyProviderService/${method}`,
    message: encodeBytesField(Buffer.from(request)),
    ...{ timeout: 10_000, maximumReply: 100_000, signal: AbortSignal.timeout(15_000) },
  });
}

/** By the words that each item of the list begins with. */
const DIFFERENCES: Readonly<Record<string, (t: TestContext) => Promise<void>>> = {
  async 'Keys must be allowed.'() {
    const packet = await packetOf(google.options, [google.key]);
    assertCode(await run(google.options, unwrapRequest(packet)), 'not-allowed');
    for (const word of [`--kmsURI=${google.key}`, `--allow=${google.key}`]) {
      assert.equal((await run([...google.options, word], unwrapRequest(packet))).status, 0);
    }
  },
  async '`--kmsURI` replaces no key.'() {
    const words = [...google.options, `--kmsURI=${google.createKey('other')}`];
    assertCode(await run(words, wrapRequest([google.key])), 'bad-input');
  },
  async 'The server listens on the loopback only,'(t) {
    const { addresses, log } = await startReference(t, ['--grpcport=:0', ...google.options, `--kmsURI=${google.key}`]);
    assert.match(addresses.join(' '), /^tcp:\/\/127\.0\.0\.1:\d+$/);
    assert.match(log(), /serving in clear on the loopback/);
  },
  async 'Each gRPC method does its own operation.'(t) {
    const { target } = await startReference(t, ['--grpcport=:0', ...google.options, `--kmsURI=${google.key}`]);
    await call(target, 'WrapKey', wrapRequest([google.key]));
    const refused = call(target, 'UnWrapKey', wrapRequest([google.key]));
    await assert.rejects(refused, (error) => asOcicryptError(error).code === 'bad-input');
  },
  async 'Credentials must be yours alone.'() {
    const file = workspace.path('open.json');
    writeFileSync(file, readFileSync(google.credentials));
    const words = [...google.options.filter((word) => !word.startsWith('--adc')), `--adc=${file}`];
    chmodSync(file, 0o644);
    const refused = await run(words, wrapRequest([google.key]));
    assertCode(refused, 'configuration');
    assert.match(refused.stderr, /chmod 600/);
    chmodSync(file, 0o600);
    await packetOf(words, [google.key]);
  },
  async 'Credentials are read when they are needed.'(t) {
    await startReference(t, ['--grpcport=:0', '--adc=/nonexistent/adc.json', `--kmsURI=${google.key}`]);
    const refused = await run(['--adc=/nonexistent/adc.json'], wrapRequest([google.key]));
    assert.match(refused.stderr, /^kms_oci_crypt: [a-z-]+: [^\n]*\/nonexistent\/adc\.json[^\n]*\n$/);
  },
  async 'The debug log is closed to others.'() {
    const file = workspace.path('debug.log');
    const shell = `umask 000; exec "$@"`;
    const input = wrapRequest([google.key]);
    await runExecutable([...google.options, `--debugLog=${file}`], { name: 'kms_oci_crypt', input, shell });
    assert.equal(statSync(file).mode & 0o777, 0o600);
    for (const line of readFileSync(file, 'utf8').trimEnd().split('\n'))
      assert.equal(typeof JSON.parse(line), 'object');
  },
  async 'Words that are no options are refused.'() {
    for (const word of ['word', '', '-']) {
      assertCode(await run([...google.options, word], wrapRequest([google.key])), 'usage');
    }
  },
  async 'All recipients are wrapped.'() {
    const [one, other] = [google.createKey('one'), google.createKey('two')];
    const packet = await packetOf(google.options, [one, other]);
    assert.ok(packet.includes(one) && packet.includes(other) && !packet.includes('key_url'), packet);
    for (const key of [one, other]) {
      assert.equal((await run([...google.options, `--kmsURI=${key}`], unwrapRequest(packet))).status, 0);
    }
  },
  async 'Versions of a key are one key.'() {
    const [key, version] = [google.key, `${google.key}/cryptoKeyVersions/1`];
    const packet = JSON.stringify({ ...JSON.parse(await packetOf(google.options, [key])), key_url: version });
    assert.equal((await run([...google.options, `--kmsURI=${key}`], unwrapRequest(packet))).status, 0);
  },
  async 'Failures have a code.'() {
    for (const request of ['', '{}', '{"op":"keywrap"}', wrapRequest([])]) {
      assertCode(await run(google.options, request), 'bad-input');
    }
  },
};

describe('coming from the reference provider', () => {
  test('the README lists these differences and no others', async () => {
    const [, section = ''] = /\n## Coming from [^\n]+\n(.*?)\n## /s.exec(await readDocument('README.md')) ?? [];
    const listed = [...section.matchAll(/^- \*\*(.+?)\*\*/gm)].map(([, lead]) => lead);
    assert.deepEqual(listed, Object.keys(DIFFERENCES));
  });

  for (const [lead, check] of Object.entries(DIFFERENCES)) test(lead, check);
});

describe('what does not differ', () => {
  const isV1 = (packet: string) =>
    /^\{"key_url":"gcpkms:[^"]+","wrapped_key":"[^"]+","wrap_type":"AES"\}$/.test(packet);

  for (const [name, program] of [
    ['kms_oci_crypt serve', REFERENCE.program],
    ['ocicrypt-kms serve', () => [executablePath()] as const],
  ] as const) {
    test(`${name} --grpcport: one dash or two, empty values, v1 for one Google key, any of its versions`, async (t) => {
      const kmsURI = `-kmsURI=${google.key}`;
      for (const words of [
        ['-grpcport=:0', kmsURI, '--debugLog='],
        ['--grpcport', ':0', '-kmsURI', google.key, '-debugLog', ''],
        ['-grpcport', ':0', '--kmsURI=', kmsURI, '--adc='],
      ]) {
        const isAdcEmpty = words.includes('--adc=');
        const options = isAdcEmpty ? google.options.filter((word) => !word.startsWith('--adc')) : google.options;
        const environment = isAdcEmpty ? { GOOGLE_APPLICATION_CREDENTIALS: google.credentials } : {};
        const { addresses } = await serve(t, [...options, ...words], { program, environment });
        const [address = ''] = addresses;
        const target = { kind: 'tcp', host: '127.0.0.1', port: Number(address.split(':').at(-1)) } as const;
        const wrapped = wrapRequest([google.key]).replace('kmscrypt', 'grpc-keyprovider');
        const reply = Buffer.from(await call(target, 'WrapKey', wrapped)).toString();
        const packet = atob(/"annotation":"([^"]+)"/.exec(reply)?.[1] ?? '');
        assert.ok(isV1(packet), packet);
        const version = packet.replace(google.key, `${google.key}/cryptoKeyVersions/1`);
        for (const one of [packet, version]) await call(target, 'UnWrapKey', unwrapRequest(one));
      }
    });
  }

  test('without --grpcport the server is where that server is', async () => {
    const words = ['serve', ...google.options, `--kmsURI=${google.key}`];
    const child = spawn(executablePath('kms_oci_crypt'), words, { stdio: ['ignore', 'ignore', 'pipe'] });
    let log = '';
    for await (const chunk of child.stderr) {
      log += chunk;
      // Another server of this machine may be there already.
      if (/"serving"|EADDRINUSE/.test(log)) break;
    }
    child.kill('SIGKILL');
    await once(child, 'close').catch(() => undefined);
    assert.match(log, /tcp:\/\/127\.0\.0\.1:50051/);
    assert.match(log, /serving in clear on the loopback/);
  });

  test('empty values are none, and a debug log that cannot be opened is complained of', async () => {
    const environment = { GOOGLE_APPLICATION_CREDENTIALS: google.credentials };
    const options = google.options.filter((word) => !word.startsWith('--adc'));
    const directory = workspace.path('directory');
    mkdirSync(directory);
    for (const [words, complaint] of [
      [['--adc=', '-kmsURI', '', '--debugLog='], /^$/],
      [[`--debugLog=${directory}`], /^warning: no debug log is written: not-written: [^\n]+\n$/],
    ] as const) {
      const input = wrapRequest([google.key]);
      const finished = await runExecutable([...options, ...words], { name: 'kms_oci_crypt', input, environment });
      assert.deepEqual([finished.status, finished.stdout.length > 0], [0, true], finished.stderr);
      assert.match(finished.stderr, complaint);
      // Ours says that something is missing.
      const ours = await runExecutable(['keyprovider', ...options, ...words], { input, environment });
      assert.equal(ours.status, words.length > 1 ? 64 : 74, ours.stderr);
    }
  });
});
