// Files of certificates as they are in the field: glued, cut off, with marks, in directories.
import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { asOcicryptError } from '../../../src/base/errors.ts';
import { readCertificateFile } from '../../../src/base/http/certificates.ts';
import { trustingContext } from '../../../src/base/http/client-context.ts';
import { readRoots } from '../../../src/base/http/roots.ts';
import { createCertificateAuthority } from '../../fixtures/certificates.ts';

const directory = mkdtempSync(join(tmpdir(), 'certificates-'));
after(() => rmSync(directory, { recursive: true, force: true }));
const PEM: string[] = [];
before(async () => {
  for (const name of ['first', 'second', 'third']) {
    const { certificate } = await createCertificateAuthority(directory, name);
    PEM.push(readFileSync(certificate, 'latin1').trimEnd());
  }
});

const write = (content: string | Uint8Array, name = 'file.pem') => {
  const file = join(directory, name);
  writeFileSync(file, content);
  return file;
};
const fingerprints = (pem: string) =>
  [...pem.matchAll(/-----BEGIN[^-]+-----[^-]+-----END[^-]+-----/g)].map(
    ([block]) => new X509Certificate(block).fingerprint256,
  );
const read = (content: string | Uint8Array) => fingerprints(readCertificateFile(write(content), 'the authorities'));
const expected = () => PEM.map((pem) => new X509Certificate(pem).fingerprint256);
const refusal = (content: string | Uint8Array) => {
  try {
    readCertificateFile(write(content), 'the authorities');
  } catch (error) {
    return asOcicryptError(error);
  }
  return assert.fail('it was read');
};

describe('a file of certificates is read', () => {
  for (const [how, join] of [
    ['one below the other', () => PEM.join('\n')],
    ['glued, without a line end between them', () => PEM.join('')],
    ['with a byte order mark', () => `\u00ef\u00bb\u00bf${PEM.join('\n')}`],
    ['with line ends of Windows', () => PEM.join('\n').replaceAll('\n', '\r\n')],
    ['with text around them', () => `# authorities\n${PEM.join('\nsubject= /CN=x\nissuer= y\n')}\nend\n`],
    ['with blanks at the ends of lines', () => PEM.join('\n').replaceAll('\n', ' \n')],
    ['under the old name of the block', () => PEM.join('\n').replaceAll(' CERTIFICATE-', ' X509 CERTIFICATE-')],
    ['among blocks of other kinds', () => PEM.join('\n-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n')],
  ] as const) {
    test(how, () => assert.deepEqual(read(Buffer.from(join(), 'latin1')), expected()));
  }
  test('in DER', () => {
    assert.deepEqual(read(new X509Certificate(PEM[0] ?? '').raw), expected().slice(0, 1));
  });
});

describe('a damaged block is named with its file', () => {
  const cut = (pem = '') => pem.slice(0, pem.length / 2);
  for (const [how, make, block] of [
    ['cut off at the end of the file', () => `${PEM[0]}\n${cut(PEM[1])}`, 2],
    ['cut off before another', () => `${cut(PEM[0])}\n${PEM[1]}`, 1],
    ['without some of its lines', () => `${PEM[0]}\n${PEM[1]?.replace(/\n.{64}\n/, '\n')}\n${PEM[2]}`, 2],
    ['that is not base64', () => `${PEM[0]?.replace('M', '!')}`, 1],
    ['of nothing', () => `${PEM[0]}\n-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n`, 2],
    ['of something else', () => '-----BEGIN CERTIFICATE-----\nMAMCAQE=\n-----END CERTIFICATE-----\n', 1],
  ] as const) {
    test(how, () => {
      const { code, message } = refusal(make());
      assert.equal(code, 'configuration');
      assert.ok(message.includes('file.pem') && message.includes(`block ${block} `), message);
    });
  }
  test('and a file without any says so', () => {
    for (const content of ['', 'no certificate', '-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n']) {
      assert.equal(refusal(content).code, 'configuration');
    }
  });
});

test('a directory gives what is good in it, as for OpenSSL; only that of Vault is entered', () => {
  const roots = join(directory, 'roots');
  mkdirSync(join(roots, 'below'), { recursive: true });
  writeFileSync(join(roots, 'README'), 'not one');
  writeFileSync(join(roots, 'cut.pem'), PEM[0]?.slice(0, 300) ?? '');
  writeFileSync(join(roots, 'with-a-bad-one.pem'), `${PEM[0]}\n${PEM[1]?.slice(0, 300)}`);
  writeFileSync(join(roots, 'below', '5f0e2b1a.0'), PEM[2] ?? '');
  symlinkSync('.', join(roots, 'circle'));
  const found = (given: readonly (Buffer | string)[]) => fingerprints(given.map(String).join('')).toSorted();
  const file = write(PEM[1] ?? '', 'own.pem');
  const [first = '', second = '', third = ''] = expected();
  assert.deepEqual(found(readRoots({}, { SSL_CERT_FILE: file, SSL_CERT_DIR: roots })), [first, second].toSorted());
  assert.deepEqual(
    found(readRoots({ caDirectory: roots }, { SSL_CERT_FILE: file, SSL_CERT_DIR: '/nowhere' })),
    [first, second, third].toSorted(),
  );
});

test('clients that trust the same roots have one context, and those that trust others another', () => {
  const [one = '', other = ''] = PEM;
  const context = trustingContext([one]);
  assert.equal(trustingContext([Buffer.from(one)]), context);
  const others = [[other], [one, other], [`${one}\n${other}`], []].map(trustingContext);
  assert.equal(new Set([context, ...others]).size, 5);
});
