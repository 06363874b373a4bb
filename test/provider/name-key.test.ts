// The line of an error names the key, and no file of this machine to callers of a server.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { describeForCaller, OcicryptError } from '../../src/base/errors.ts';
import { nameKey, showKey } from '../../src/provider/name-key.ts';

const KEY = 'gcpkms://projects/p/locations/l/keyRings/r/cryptoKeys/k';

test('an error that does not name the key is given its name, and stays the same in all else', () => {
  const error = new OcicryptError('unavailable', 'host.example is down', { retryable: true, hint: 'wait' });
  const { code, message, retryable, hint } = nameKey(error, KEY);
  assert.deepEqual([code, message, retryable, hint], ['unavailable', `key ${KEY}: host.example is down`, true, 'wait']);
  const named = new OcicryptError('refused', `${KEY} may not be used`);
  assert.equal(nameKey(named, KEY), named);
  assert.equal(nameKey(new TypeError('x'), KEY).code, 'internal');
});

test('a key that is known by its path is a file, which callers of a server are not told', () => {
  assert.equal(showKey(KEY), KEY);
  const thumbprint = `keyfile:sha256:${'0'.repeat(64)}`;
  assert.equal(showKey(thumbprint), thumbprint);
  const error = new OcicryptError('not-found', showKey('keyfile:///keys/one'));
  assert.equal(error.message, 'keyfile:///keys/one');
  assert.equal(describeForCaller(error), 'not-found: keyfile://…');
});
