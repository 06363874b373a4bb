// Which failures of a connection may be an address that is wrong, and which cannot.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { asOcicryptError } from '../../../src/base/errors.ts';
import { createHttpClient } from '../../../src/base/http/client.ts';
import { networkError, prospectsOf } from '../../../src/base/http/errors.ts';
import { startWireServer } from '../../fakes/wire.ts';

test('no connection may pass, and may be an address that is wrong; a name that is none is said at once', () => {
  const url = new URL('https://kms.test:1');
  for (const [code, retryable, unreached] of [
    ['ECONNREFUSED', true, true],
    ['ConnectionRefused', true, true],
    ['EHOSTUNREACH', true, true],
    ['ENETUNREACH', true, true],
    ['EAI_AGAIN', true, true],
    ['ECONNRESET', true, false],
    ['EPIPE', true, false],
    ['ENOTFOUND', false, false],
    ['CERT_HAS_EXPIRED', false, false],
    ['ERR_TLS_CERT_ALTNAME_INVALID', false, false],
  ] as const) {
    const cause = Object.assign(new Error('no'), { code });
    const error = networkError(url, cause);
    assert.deepEqual([error.code, error.retryable, error.unreached], ['unavailable', retryable, unreached], code);
    const byProxy = networkError(url, cause, new URL('http://proxy.test:2'));
    assert.deepEqual([byProxy.retryable, byProxy.unreached], [retryable, unreached], `${code} of a proxy`);
  }
});

test('a socket that is not there may come, and one that is somebody else’s stays so', () => {
  assert.deepEqual(prospectsOf('ENOENT'), { retryable: true, unreached: true });
  for (const code of ['EACCES', 'EPERM']) assert.equal(prospectsOf(code).retryable, false);
});

test('an address that has answered is right, whatever happens to it then', async () => {
  const server = await startWireServer(() => ({ status: 200, body: '' }));
  const client = createHttpClient();
  const ask = (url: string) => client.request({ method: 'GET', url, signal: AbortSignal.timeout(5000) });
  const never = await startWireServer(() => ({ status: 200, body: '' }));
  await never.close();
  const refused = await ask(never.url).catch(asOcicryptError);
  assert.ok('unreached' in refused && refused.unreached && refused.retryable);
  assert.equal((await ask(server.url)).status, 200);
  await server.close();
  const gone = await ask(server.url).catch(asOcicryptError);
  assert.ok('unreached' in gone && !gone.unreached && gone.retryable);
  client.close();
});
