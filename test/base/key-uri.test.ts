import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { OcicryptError } from '../../src/base/errors.ts';
import { asKeyUri, azureHost, formatKeyUri, parseKeyUri } from '../../src/base/key-uri.ts';

type Accepted = {
  uri: string;
  backend: string;
  canonical: string;
  key?: string;
  version?: string;
  host?: string;
  endpoint?: string;
};
const vectors: { accept: Accepted[]; reject: string[] } = JSON.parse(
  readFileSync(new URL('../vectors/key-uris.json', import.meta.url), 'utf8'),
);

for (const { uri, backend, canonical, ...parts } of vectors.accept) {
  test(`accepts ${uri.slice(0, 80)}`, () => {
    const parsed = parseKeyUri(uri);
    assert.equal(parsed.scheme, backend);
    for (const [name, value] of Object.entries(parts)) assert.equal(Reflect.get(parsed, name), value, name);
    assert.equal(formatKeyUri(parsed), canonical);
    assert.equal(formatKeyUri(parseKeyUri(canonical)), canonical, 'the canonical form is its own canonical form');
  });
}

for (const uri of vectors.reject) {
  test(`refuses ${JSON.stringify(uri).slice(0, 160)}`, () => {
    assert.equal(asKeyUri(uri), undefined);
    assert.throws(
      () => parseKeyUri(uri),
      (error) => error instanceof OcicryptError && error.code === 'bad-input' && error.hint !== undefined,
    );
  });
}

const DIALECTS: readonly (readonly [string, string])[] = [
  [
    'gcp-kms://projects/p/locations/l/keyRings/r/cryptoKeys/k',
    'gcpkms://projects/p/locations/l/keyRings/r/cryptoKeys/k',
  ],
  [
    'cloudkms:resource=projects/p/locations/l/keyRings/r/cryptoKeys/k',
    'gcpkms://projects/p/locations/l/keyRings/r/cryptoKeys/k',
  ],
  ['awskms://alias/ExampleAlias?region=us-east-1', 'awskms:///alias/ExampleAlias'],
  [
    'awskms:key-id=1234abcd-12ab-34cd-56ef-1234567890ab;region=us-east-1',
    'awskms:///1234abcd-12ab-34cd-56ef-1234567890ab',
  ],
  ['azurekeyvault://v.vault.azure.net/keys/k?algorithm=RSA-OAEP-256', 'azurekms://v.vault.azure.net/k'],
  ['azurekms:name=k;vault=v?version=1', 'azurekms://v.vault.azure.net/k'],
  ['hcvault://vault.example.com:8200/transit/keys/k', 'hashivault://k'],
  ['https://vault.example.com:8200/v1/a/b/keys/k', 'hashivault://k?engine=a/b'],
  [
    'gcpkms:///projects/p/locations/l/keyRings/r/cryptoKeys/k',
    'gcpkms://projects/p/locations/l/keyRings/r/cryptoKeys/k',
  ],
  [
    'GCPKMS://projects/p/locations/l/keyRings/r/cryptoKeys/k',
    'gcpkms://projects/p/locations/l/keyRings/r/cryptoKeys/k',
  ],
  [
    'https://cloudkms.googleapis.com/v1/projects/p/locations/l/keyRings/r/cryptoKeys/k',
    'gcpkms://projects/p/locations/l/keyRings/r/cryptoKeys/k',
  ],
  [
    '//cloudkms.googleapis.com/projects/p/locations/l/keyRings/r/cryptoKeys/k',
    'gcpkms://projects/p/locations/l/keyRings/r/cryptoKeys/k',
  ],
  ['gcpkms:projects/p/locations/l/keyRings/r/cryptoKeys/k/', 'gcpkms://projects/p/locations/l/keyRings/r/cryptoKeys/k'],
  [
    'gcpkms://projects/p/locations/l/keyrings/r/cryptokeys/k',
    'gcpkms://projects/p/locations/l/keyRings/r/cryptoKeys/k',
  ],
  [
    ' "gcpkms://projects/p/locations/l/keyRings/r/cryptoKeys/k"\n',
    'gcpkms://projects/p/locations/l/keyRings/r/cryptoKeys/k',
  ],
  [
    'provider:kmscrypt:gcpkms://projects/p/locations/l/keyRings/r/cryptoKeys/k',
    'gcpkms://projects/p/locations/l/keyRings/r/cryptoKeys/k',
  ],
  ['awskms://arn:aws:kms:eu-west-1:111122223333:alias/x', 'awskms:///arn:aws:kms:eu-west-1:111122223333:alias/x'],
  ['awskms:arn:aws:kms:eu-west-1:111122223333:alias/x', 'awskms:///arn:aws:kms:eu-west-1:111122223333:alias/x'],
  ['ARN:aws:kms:eu-west-1:111122223333:alias/x', 'arn:aws:kms:eu-west-1:111122223333:alias/x'],
  ['alias/x', 'awskms:///alias/x'],
  ['AWSKMS:///alias/x', 'awskms:///alias/x'],
  ['1234abcd-12ab-34cd-56ef-1234567890ab', 'awskms:///1234abcd-12ab-34cd-56ef-1234567890ab'],
  ['mrk-1234abcd12ab34cd56ef1234567890ab', 'awskms:///mrk-1234abcd12ab34cd56ef1234567890ab'],
  ['awskms:///key/1234abcd-12ab-34cd-56ef-1234567890ab', 'awskms:///1234abcd-12ab-34cd-56ef-1234567890ab'],
  ['azurekms://H/keys/K', 'azurekms://H/K'],
  [
    'azurekms://h.vault.azure.net/keys/k/0123456789abcdef0123456789abcdef',
    'azurekms://h.vault.azure.net/k/0123456789abcdef0123456789abcdef',
  ],
  ['h.vault.azure.net/keys/k', 'azurekms://h.vault.azure.net/k'],
  ['http://h.vault.azure.net/keys/k', 'azurekms://h.vault.azure.net/k'],
  ['hashivault:///k', 'hashivault://k'],
  ['HASHIVAULT://k', 'hashivault://k'],
  ['vault:k', 'hashivault://k'],
  ['hashivault://a/b/keys/k', 'hashivault://k?engine=a/b'],
  ['transit/keys/k', 'hashivault://k'],
  ['keyfile:/x/app.key', 'keyfile:///x/app.key'],
  ['pkcs11://token=t;object=k', 'pkcs11:token=t;object=k'],
  ['PKCS11:token=t;object=k', 'pkcs11:token=t;object=k'],
];
for (const [foreign, ours] of DIALECTS) {
  test(`shows our spelling of ${foreign}`, () => {
    assert.throws(
      () => parseKeyUri(foreign),
      (error) => error instanceof OcicryptError && error.hint === `here that key is ${ours}`,
    );
  });
}

test('a relative name of a file is told how files are named', () => {
  for (const text of ['app.key', './app.key', 'keys/app.key', '~/app.key', 'keyfile:app.key', 'keyfile://app.key']) {
    assert.throws(
      () => parseKeyUri(text),
      (error) => error instanceof OcicryptError && /keys=FILE/.test(error.hint ?? ''),
    );
  }
});

test('a token in the place of a key is not repeated', () => {
  for (const text of [
    'vault:hvs.CAESIJabcdefghijklmnopqrstuvwxyz123',
    'hashivault:///hvs.CAESIJabcdefghijklmnopqrst',
  ]) {
    assert.throws(
      () => parseKeyUri(text),
      (error) => error instanceof OcicryptError && !`${error.message}${error.hint}`.includes('CAESI'),
    );
  }
});

test('an Azure vault without a dot is a vault of the public cloud, in any case', () => {
  assert.equal(azureHost('MyVault'), 'myvault.vault.azure.net');
  assert.equal(
    formatKeyUri(parseKeyUri('azurekms://MyVault/Key')),
    formatKeyUri(parseKeyUri('https://myvault.vault.azure.net:443/keys/key')),
  );
});

test('a canonical form names no endpoint, module, PIN source or default mount', () => {
  assert.equal(formatKeyUri(parseKeyUri('awskms://127.0.0.1:4566/alias/a')), 'awskms:///alias/a');
  assert.equal(
    formatKeyUri(parseKeyUri('pkcs11:token=t;object=k;id=%0A?pin-source=file:/p&module-path=/m.so')),
    'pkcs11:id=%0a;object=k;token=t',
  );
  assert.equal(formatKeyUri(parseKeyUri('openbao://k?engine=transit')), 'hashivault://k');
});

test('a PIN in a URI is refused', () => {
  assert.equal(asKeyUri('pkcs11:token=t;object=k?pin-value=1234'), undefined);
});
