// Recipients and providers as users configure them: how they are read, who is asked, and what is said when none opens.
import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { type ErrorCode, OcicryptError } from '../../src/base/errors.ts';
import { createConfiguredCall } from '../../src/client/configured.ts';
import { createUnwrapper, type KeyHolder } from '../../src/client/holders.ts';
import { createProviderHolder, createProviderWrapper } from '../../src/client/provider.ts';
import { runProviderCommand } from '../../src/client/provider-command.ts';
import { readProviderConfig } from '../../src/client/provider-config.ts';
import { parseRecipients } from '../../src/client/recipients.ts';
import { isCode } from '../fixtures/codes.ts';

const KEY = 'gcpkms://projects/p/locations/global/keyRings/r/cryptoKeys/k';
const SIGNAL = new AbortController().signal;

test('recipients are sorted by who wraps for them, each once', () => {
  const { keys, providers, jwe } = parseRecipients([
    KEY,
    'jwe:a.pem',
    'provider:x:a:b',
    KEY,
    'provider:x',
    'jwe:b.pem',
  ]);
  assert.deepEqual(keys, [KEY]);
  assert.deepEqual([...providers], [['x', ['a:b', 'Enabled']]]);
  assert.deepEqual(jwe, ['a.pem', 'b.pem']);
  for (const text of ['jwe:', 'provider:', 'provider::x', 'pgp:a', 'pkcs7:a']) {
    assert.throws(() => parseRecipients([text]), isCode('usage'), text);
  }
  assert.throws(() => parseRecipients(['nonsense']), isCode('bad-input'));
});

test('a configuration is read as ocicrypt reads it, and what would be unsafe is refused when it is asked for', async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'config-'));
  t.after(() => rm(directory, { recursive: true }));
  const file = join(directory, 'ocicrypt.json');
  const tls = { 'root-ca-file': '/ca', 'cert-file': '/c', 'key-file': '/k', 'server-name': 'n' };
  await writeFile(
    file,
    JSON.stringify({
      'key-providers': {
        both: { cmd: { path: '/p', args: ['a'] }, grpc: 'localhost:1' },
        unix: { grpc: 'unix:///s' },
        unix1: { grpc: 'unix:/s' },
        local: { grpc: 'dns:///[::1]:1' },
        secure: { grpc: 'h:1', 'grpc-tls': tls },
        clear: { grpc: 'h:1' },
        bare: { grpc: '/s' },
        http: { grpc: 'http://h:1' },
        none: {},
        twice: { cmd: { path: '/p' }, CMD: { path: '/q' } },
        blind: { grpc: 'h:1', 'grpc-tls': { 'insecure-skip-verify': true } },
      },
    }),
  );
  const providers = await readProviderConfig(file);
  const read = (name: string) => providers.get(name)?.();
  const GRPC = { kind: 'grpc', tls: undefined, refusal: undefined };
  assert.deepEqual(read('both'), { kind: 'command', path: '/p', words: ['a'], hasIdleServer: true });
  for (const name of ['unix', 'unix1']) {
    assert.deepEqual(read(name), { ...GRPC, target: { kind: 'unix', path: '/s' } });
  }
  assert.deepEqual(read('local'), { ...GRPC, target: { kind: 'tcp', host: '::1', port: 1 } });
  assert.deepEqual(read('secure'), {
    ...GRPC,
    target: { kind: 'tls', host: 'h', port: 1 },
    tls: { authority: '/ca', serverName: 'n', certificate: '/c', privateKey: '/k' },
  });
  for (const name of ['bare', 'http', 'none', 'twice']) {
    assert.throws(() => read(name), isCode('configuration'), name);
  }
  for (const name of ['clear', 'blind']) {
    const provider = read(name);
    assert.ok(provider !== undefined);
    assert.throws(() => createConfiguredCall(provider), isCode('configuration'), name);
  }
  assert.equal((await readProviderConfig(undefined)).size, 0);
  assert.equal((await readProviderConfig(join(directory, 'missing'))).size, 0);
  for (const text of ['', '{', '{}', '{"key-providers":[]}', '{"key-providers":{},"Key-Providers":{}}']) {
    await writeFile(file, text);
    await assert.rejects(readProviderConfig(file), isCode('configuration'), text);
  }
});

test('a command gets the request, gives the reply, and ends when nobody waits', async () => {
  const shell = (script: string) => ({ path: '/bin/sh', words: ['-c', script] });
  const request = new TextEncoder().encode('{"op":"keywrap"}');
  assert.deepEqual(new Uint8Array(await runProviderCommand(shell('cat'), request, SIGNAL)), request);
  const ours = shell('echo "ocicrypt-kms: throttled: key x: too much" >&2; exit 75');
  await assert.rejects(runProviderCommand(ours, request, SIGNAL), isCode('throttled'));
  await assert.rejects(runProviderCommand(shell('exit 1'), request, SIGNAL), isCode('unavailable'));
  await assert.rejects(runProviderCommand(shell('yes'), request, SIGNAL), isCode('unavailable'));
  await assert.rejects(
    runProviderCommand({ path: '/nonexistent/x', words: [] }, request, SIGNAL),
    isCode('configuration'),
  );
  const started = performance.now();
  await assert.rejects(runProviderCommand(shell('exec sleep 30'), request, AbortSignal.timeout(200)));
  assert.ok(performance.now() - started < 20_000);
});

test('a provider gets all values in one call, and bytes come back in either spelling', async () => {
  const asked: unknown[] = [];
  const wrapper = createProviderWrapper('x', ['a', 'b'], async (request) => {
    asked.push(JSON.parse(new TextDecoder().decode(request)));
    return new TextEncoder().encode('{"keywrapresults":{"annotation":[1,2,255]}}');
  });
  assert.deepEqual(await wrapper.wrap(new Uint8Array([7]), SIGNAL), [Uint8Array.of(1, 2, 255)]);
  const ec = { Parameters: { x: ['YQ==', 'Yg=='] }, DecryptConfig: { Parameters: {} } };
  assert.deepEqual(asked, [
    { op: 'keywrap', keywrapparams: { ec, optsdata: 'Bw==' }, keyunwrapparams: { dc: null, annotation: null } },
  ]);
  const holder = createProviderHolder(new Set(['x']), {}, async () =>
    new TextEncoder().encode('{"KeyUnwrapResults":{"OptsData":"Bw=="}}'),
  );
  assert.ok(holder.opens('provider.x') && !holder.opens('provider.y') && !holder.opens('jwe'));
  assert.deepEqual(await holder.open({ scheme: 'provider.x', packet: new Uint8Array([1]) }, SIGNAL), Uint8Array.of(7));
  const empty = createProviderWrapper('x', ['a'], async () => new TextEncoder().encode('{}'));
  await assert.rejects(empty.wrap(new Uint8Array([7]), SIGNAL), isCode('bad-input'));
});

test('holders are asked in their order, and the failure that says most is told', async () => {
  const fails = (code: ErrorCode): KeyHolder => ({
    opens: (scheme) => scheme === 'a',
    open: async () => Promise.reject(new OcicryptError(code, `it is ${code}`)),
  });
  const opens: KeyHolder = { opens: (scheme) => scheme === 'b', open: async () => Uint8Array.of(1) };
  const a = { scheme: 'a', packet: new Uint8Array([1]) };
  const b = { scheme: 'b', packet: new Uint8Array([1]) };
  const unwrap = (holders: readonly KeyHolder[], keys = [a]) => createUnwrapper(holders, 'hint').unwrap(keys, SIGNAL);
  assert.deepEqual(await unwrap([fails('integrity'), opens], [a, b]), Uint8Array.of(1));
  await assert.rejects(unwrap([fails('integrity')]), isCode('integrity'));
  await assert.rejects(unwrap([fails('integrity'), fails('unavailable'), fails('not-allowed')]), isCode('unavailable'));
  await assert.rejects(unwrap([opens]), isCode('not-allowed'));
  await assert.rejects(unwrap([]), isCode('not-allowed'));
});
