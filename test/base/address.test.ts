// One reading of addresses: what is this machine, and what each door takes for HOST:PORT and unix:PATH.
import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { type Address, formatAddress, isLoopback, parseHostPort, parseUnix } from '../../src/base/address.ts';
import { createHttpClient } from '../../src/base/http/client.ts';
import { readProviderConfig } from '../../src/client/provider-config.ts';

const SRC = fileURLToPath(new URL('../../src', import.meta.url));
const OWN = ['localhost', '::1', '127.0.0.1', '127.9.9.9'];
const OTHERS = [
  '127.evil.com',
  '127.0.0.1.evil.com',
  'localhost.evil.com',
  '127.0.0.256',
  '128.0.0.1',
  '::2',
  '',
  '127.',
];

test('only names and addresses of this machine are loopback', () => {
  assert.deepEqual(
    OWN.map(isLoopback),
    OWN.map(() => true),
  );
  assert.deepEqual(
    OTHERS.map(isLoopback),
    OTHERS.map(() => false),
  );
});

test('nothing secret goes in clear to a host that only looks like this machine', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'address-'));
  for (const host of OTHERS.filter((name) => name.endsWith('.evil.com'))) {
    const request = { method: 'POST', url: `http://${host}/`, signal: AbortSignal.timeout(1000) } as const;
    await assert.rejects(createHttpClient({ environment: {} }).request(request), { code: 'configuration' }, host);
    const file = join(directory, 'providers.json');
    await writeFile(file, JSON.stringify({ 'key-providers': { other: { grpc: `${host}:50051` } } }));
    const other = (await readProviderConfig(file)).get('other')?.();
    assert.ok(other?.kind === 'grpc' && other.refusal?.code === 'configuration', host);
  }
  await rm(directory, { recursive: true });
});

test('HOST:PORT has a port, and brackets around an IPv6 address', () => {
  assert.deepEqual(parseHostPort('kms.test:443'), { host: 'kms.test', port: 443 });
  assert.deepEqual(parseHostPort('[::1]:0'), { host: '::1', port: 0 });
  for (const text of [
    'kms.test',
    ':443',
    '::1:443',
    '[kms]:1',
    '[::g]:1',
    'a:65536',
    'a:-1',
    'a b:1',
    'a:1\n',
    'u@a:1',
  ]) {
    assert.equal(parseHostPort(text), undefined, text);
  }
});

test('unix: and unix:// stand before a path', () => {
  assert.deepEqual(['unix:/a', 'unix:///a', 'unix:a', 'tcp://a'].map(parseUnix), ['/a', '/a', 'a', undefined]);
});

test('an address is written as it is read', () => {
  const addresses: readonly Address[] = [
    { kind: 'unix', path: '/run/s' },
    { kind: 'tls', host: '::1', port: 1 },
    { kind: 'tcp', host: 'localhost', port: 2 },
  ];
  assert.deepEqual(addresses.map(formatAddress), ['unix:///run/s', 'tls://[::1]:1', 'tcp://localhost:2']);
});

test('no other file decides what is this machine, or reads HOST:PORT', () => {
  const guesses = /startsWith\('127|\^127|=== '::1'|:\(\\d\{1,5\}\)\$|\^unix:/;
  const files = globSync('**/*.ts', { cwd: SRC }).filter((file) => guesses.test(readFileSync(join(SRC, file), 'utf8')));
  assert.deepEqual(files, ['base/address.ts']);
});
