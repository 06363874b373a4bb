// Names in client certificates, read from OpenSSL's text. What clients see of TLS: test/executable/server/tls.test.ts.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { asOcicryptError } from '../../src/base/errors.ts';
import { parseClientName, parseNames } from '../../src/server/client-names.ts';

test('P20 each kind of name is its own, and is written in one way', () => {
  assert.deepEqual(
    parseNames('DNS:A.example, URI:spiffe://x/y, IP Address:10.0.0.1, email:a@b.example, othername:<unsupported>'),
    ['a.example', 'URI:spiffe://x/y', 'IP:10.0.0.1', 'email:a@b.example'],
  );
  // As OpenSSL writes it, and as Node does.
  for (const address of ['2001:DB8:0:0:0:0:0:1', '2001:db8::1']) {
    assert.deepEqual(parseNames(`IP Address:${address}`), ['IP:2001:db8::1']);
    assert.equal(parseClientName(`IP:${address}`), 'IP:2001:db8::1');
  }
  assert.equal(parseClientName('A.example'), parseClientName('DNS:a.EXAMPLE'));
});

test('P20 no certificate has a right by a name of another kind', () => {
  const written = ['a.example', 'URI:a.example', 'email:a.example', 'IP:10.0.0.1', 'URI:spiffe://x/y'];
  const certificates = ['DNS:a.example', 'URI:a.example', 'email:a.example', 'IP Address:10.0.0.1', 'URI:spiffe://x/y'];
  for (const [index, name] of written.entries()) {
    for (const [other, certificate] of certificates.entries()) {
      assert.equal(parseNames(certificate).includes(parseClientName(name)), index === other, `${name} ${certificate}`);
    }
  }
  for (const text of ['DNS:URI:spiffe://x/y', 'DNS:IP:10.0.0.1', 'DNS:email:a@b', 'DNS:10.0.0.1', 'DNS:a b', 'URI:']) {
    for (const name of written) assert.ok(!parseNames(text).includes(parseClientName(name)), text);
  }
});

test('P20 names that OpenSSL has to quote are no names', () => {
  assert.deepEqual(parseNames('DNS:"a.example, DNS:b.example"'), []);
  assert.deepEqual(parseNames(''), []);
});

test('what is no name of a client is told, with the way to write it', () => {
  for (const [text, hint] of [
    ['spiffe://x/y', 'URI:spiffe://x/y'],
    ['a@b.example', 'email:a@b.example'],
    ['10.0.0.1', 'IP:10.0.0.1'],
    ['::1', 'IP:::1'],
    ['a b', 'URI:…'],
    ['', 'URI:…'],
    ['IP:a', 'URI:…'],
  ] as const) {
    assert.throws(
      () => parseClientName(text),
      (error) => asOcicryptError(error).hint?.includes(hint) === true,
      text,
    );
  }
});
