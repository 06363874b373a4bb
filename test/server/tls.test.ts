// Names in client certificates, read from OpenSSL's text. What clients see of TLS: test/executable/server/tls.test.ts.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseNames } from '../../src/server/tls.ts';

test('P20 names that OpenSSL has to quote are no names', () => {
  assert.deepEqual(
    parseNames('DNS:a.example, URI:spiffe://x/y, IP Address:10.0.0.1, email:a@b.example, othername:<unsupported>'),
    ['a.example', 'spiffe://x/y', '10.0.0.1', 'a@b.example'],
  );
  assert.deepEqual(parseNames('DNS:"a.example, DNS:b.example"'), []);
  assert.deepEqual(parseNames(''), []);
});
