import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { OcicryptError } from '../../src/base/errors.ts';
import { formatKeyUri, type KeyUri, parseKeyUri } from '../../src/base/key-uri.ts';
import {
  countedAs,
  hasOperatorParts,
  isByAlias,
  isForWrappingOnly,
  isNamed,
  parseAllowRule,
  selectForCaller,
  selectForPacket,
} from '../../src/provider/policy.ts';
import { sample, seeded } from '../fixtures/seed.ts';

const KEY = 'gcpkms://projects/p/locations/l/keyRings/r/cryptoKeys/k';
const V1 = `${KEY}/cryptoKeyVersions/1`;
const V2 = `${KEY}/cryptoKeyVersions/2`;
const ARN = 'arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab';
const THUMBPRINT = `keyfile:sha256:${'ab'.repeat(32)}`;
const show = (uri: KeyUri | undefined) => (uri === undefined ? undefined : formatKeyUri(uri));

/** What a packet's key opens under one rule. */
function packet(rule: string, key: string, version?: string, versions: 'exact' | 'ignored' = 'exact') {
  return show(selectForPacket(parseAllowRule(rule), parseKeyUri(key), version, versions));
}

function caller(rule: string, key: string, versions: 'exact' | 'ignored' = 'exact') {
  return show(selectForCaller(parseAllowRule(rule), parseKeyUri(key), versions));
}

test('an entry opens itself and nothing else', () => {
  assert.equal(packet(KEY, KEY), KEY);
  for (const other of [
    `${KEY}2`,
    KEY.replace(/k$/, 'K'),
    KEY.replace('/r/', '/s/'),
    KEY.replace('p/', 'q/'),
    'awskms:///alias/k',
  ]) {
    assert.equal(packet(KEY, other), undefined, other);
  }
});

test('a prefix ends on a segment boundary', () => {
  const rule = 'gcpkms://projects/p/*';
  assert.equal(packet(rule, KEY), KEY);
  assert.equal(packet(rule, KEY.replace('projects/p/', 'projects/pp/')), undefined);
  assert.equal(packet('gcpkms://projects/p/locations/l/keyRings/r/*', KEY), KEY);
  assert.equal(packet('gcpkms://projects/p/locations/l/keyRings/r/cryptoKeys/k/*', KEY.replace(/k$/, 'kk')), undefined);
  for (const text of [
    '*',
    '/*',
    'gcpkms://*',
    'gcpkms://projects*',
    'gcpkms://projects/p*',
    'gcpkms:///*',
    'awskms:///*',
    'awskms://h/*',
    'azurekms://*',
    'azurekms://vault/*',
    'hashivault://*',
    'keyfile:///*',
    'keyfile:///home/*',
    'pkcs11:*',
    'gcpkms://projects/p/../*',
    'gcpkms://projects/p//*',
  ]) {
    assert.throws(() => parseAllowRule(text), OcicryptError, text);
  }
});

test('what packets and callers may name without end is counted as one: versions of a key, keys below a prefix', () => {
  const [ring, azure] = ['gcpkms://projects/p/locations/l/keyRings/r', 'azurekms://v.vault.azure.net'];
  const rules = [`${ring}/cryptoKeys/own`, `${azure}/own/${'1'.repeat(32)}`, `${ring}/*`, `${azure}/*`].map(
    parseAllowRule,
  );
  for (const [key, counted] of [
    [`${ring}/cryptoKeys/own`, `${ring}/cryptoKeys/own`],
    [`${ring}/cryptoKeys/own/cryptoKeyVersions/7`, `${ring}/cryptoKeys/own`],
    [`${ring}/cryptoKeys/k1`, `${ring}/`],
    [`${ring}/cryptoKeys/k2/cryptoKeyVersions/7`, `${ring}/`],
    [`${azure}/own/${'5'.repeat(32)}`, `${azure}/own`],
    [`${azure}/k1`, `${azure}/`],
    ['hashivault://k', 'hashivault://k'],
  ] as const) {
    assert.equal(countedAs(rules, parseKeyUri(key)), counted);
  }
});

test('a version in an entry means that version, exactly', () => {
  assert.equal(packet(KEY, V1), KEY, 'an entry without version matches every version');
  assert.equal(packet(V1, V1), V1);
  assert.equal(packet(V1, V2), undefined);
  assert.equal(packet(V1, KEY), undefined);
  assert.equal(packet(V1, KEY, '1'), V1, 'the version may stand beside the key');
  assert.equal(packet(V1, KEY, '2'), undefined);
  assert.equal(packet(V1, V2, '1'), undefined, 'what stands beside does not replace the key’s own');
});

test('under the reference provider’s name, versions of a Google key are one key', () => {
  assert.equal(packet(V1, V2, undefined, 'ignored'), V1);
  assert.equal(packet(V1, KEY, undefined, 'ignored'), V1);
  assert.equal(packet(V1, `${KEY}2`, undefined, 'ignored'), undefined);
  const azure = 'azurekms://v.vault.azure.net/k';
  assert.equal(
    packet(`${azure}/${'1'.repeat(32)}`, `${azure}/${'2'.repeat(32)}`, undefined, 'ignored'),
    undefined,
    'but not of others',
  );
});

test('the operator’s entry is opened, never the packet’s text', () => {
  assert.equal(packet('awskms:///alias/oci', `awskms:///${ARN}`), 'awskms:///alias/oci');
  const rule = parseAllowRule(`awskms://127.0.0.1:4566/${ARN}`);
  const opened = selectForPacket(rule, parseKeyUri(`awskms://169.254.169.254/${ARN}`), undefined, 'exact');
  assert.ok(opened?.scheme === 'awskms' && opened.endpoint === '127.0.0.1:4566');
  const pkcs11 = parseAllowRule('pkcs11:token=t;object=k?module-path=/usr/lib/good.so');
  const module = selectForPacket(
    pkcs11,
    parseKeyUri('pkcs11:token=t;object=k?module-path=/tmp/evil.so'),
    undefined,
    'exact',
  );
  assert.ok(module?.scheme === 'pkcs11' && module.query.get('module-path') === '/usr/lib/good.so');
});

test('an alias of an account does not open the keys of another', () => {
  const alias = 'arn:aws:kms:us-east-1:111122223333:alias/oci';
  assert.equal(packet(alias, `awskms:///${ARN}`), `awskms:///${alias}`);
  for (const other of [
    ARN.replace('111122223333', '444455556666'),
    ARN.replace('us-east-1', 'us-east-2'),
    ARN.replace('arn:aws:', 'arn:aws-cn:'),
  ]) {
    assert.equal(packet(alias, other), undefined, other);
  }
  assert.equal(packet('awskms:///alias/oci', 'awskms:///alias/other'), undefined, 'a packet’s alias proves nothing');
});

test('Azure names are the same in any case and spelling', () => {
  const rule = 'azurekms://MyVault/Key';
  for (const key of ['azurekms://myvault.vault.azure.net/key', 'https://MYVAULT.vault.azure.net/keys/KEY']) {
    assert.equal(packet(rule, key), 'azurekms://myvault.vault.azure.net/key');
    assert.equal(packet('azurekms://MyVault.vault.azure.net/*', key), 'azurekms://myvault.vault.azure.net/key');
  }
  assert.equal(packet(rule, 'azurekms://myvault.evil.example/key'), undefined);
  assert.equal(
    packet('azurekms://myvault.vault.azure.net/*', 'azurekms://myvault.vault.azure.net.evil.example/key'),
    undefined,
  );
});

test('a path in a packet is never opened, whatever is allowed', () => {
  const path = 'keyfile:///etc/ocicrypt/key';
  assert.equal(packet(path, path), undefined);
  assert.equal(packet(path, THUMBPRINT), undefined, 'only opening the file tells its thumbprint');
  assert.equal(packet(THUMBPRINT, THUMBPRINT), THUMBPRINT);
});

test('what only the operator may set is refused from a caller', () => {
  for (const key of [
    'awskms://h:1/alias/a',
    'pkcs11:object=k?module-path=/m.so',
    'pkcs11:object=k?pin-source=file:/p',
  ]) {
    assert.ok(hasOperatorParts(parseKeyUri(key)), key);
  }
  for (const key of ['awskms:///alias/a', 'pkcs11:object=k', KEY, THUMBPRINT])
    assert.ok(!hasOperatorParts(parseKeyUri(key)), key);
  const rule = parseAllowRule(`awskms:///arn:aws:kms:us-east-1:111122223333:key/*`);
  assert.equal(selectForCaller(rule, parseKeyUri(`awskms://169.254.169.254/${ARN}`), 'exact'), undefined);
  const named = selectForCaller(
    parseAllowRule(`awskms:///${ARN}`),
    parseKeyUri(`awskms://169.254.169.254/${ARN}`),
    'exact',
  );
  assert.ok(
    named?.scheme === 'awskms' && named.endpoint === undefined,
    'the entry is opened, not what the caller wrote',
  );
});

test('a caller may narrow an entry to one version, and no further', () => {
  assert.equal(caller(KEY, V1), V1);
  assert.equal(caller(V1, KEY), undefined);
  assert.equal(caller(V1, V2), undefined);
  assert.equal(caller(V1, V2, 'ignored'), V1);
  assert.equal(caller('gcpkms://projects/p/*', V1), V1);
});

test('a version of a symmetric Google key is for wrapping only, where versions count', () => {
  const alias = 'awskms:///alias/k';
  for (const [rule, key, algorithm, versions, expected] of [
    [V1, KEY, 'GOOGLE_SYMMETRIC_ENCRYPTION', 'exact', true],
    [V1, V2, 'GOOGLE_SYMMETRIC_ENCRYPTION', 'exact', true],
    [V1, V1, 'GOOGLE_SYMMETRIC_ENCRYPTION', 'ignored', false],
    [V1, V1, 'RSA_DECRYPT_OAEP_3072_SHA256', 'exact', false],
    [V1, `${KEY}2`, 'GOOGLE_SYMMETRIC_ENCRYPTION', 'exact', false],
    [V1, alias, 'GOOGLE_SYMMETRIC_ENCRYPTION', 'exact', false],
    [KEY, V1, 'GOOGLE_SYMMETRIC_ENCRYPTION', 'exact', false],
    [alias, alias, 'GOOGLE_SYMMETRIC_ENCRYPTION', 'exact', false],
    [alias, V1, 'GOOGLE_SYMMETRIC_ENCRYPTION', 'exact', false],
    ['gcpkms://projects/p/*', V1, 'GOOGLE_SYMMETRIC_ENCRYPTION', 'exact', false],
  ] as const) {
    const only = isForWrappingOnly(parseAllowRule(rule), parseKeyUri(key), algorithm, versions);
    assert.equal(only, expected, `${rule} ${key} ${algorithm} ${versions}`);
  }
});

test('an object of a token is the same by its name or its id, and by nothing that both name and differ in', () => {
  for (const [entry, asked, good] of [
    ['token=t;object=k', 'token=t;object=k', true],
    ['token=t;object=k', 'object=k', true],
    ['object=k', 'token=t;object=k', true],
    ['id=%01', 'object=k;id=%01', true],
    ['object=k;id=%01', 'id=%01', true],
    ['object=k;id=%01', 'object=k;id=%02', false],
    ['object=k', 'object=l', false],
    ['id=%01', 'id=%02', false],
    ['id=%01', 'object=k', false],
    ['token=t;object=k', 'token=u;object=k', false],
    ['token=t;id=%01', 'token=t;object=k', false],
  ] as const)
    assert.equal(packet(`pkcs11:${entry}`, `pkcs11:${asked}`) !== undefined, good, `${entry} ${asked}`);
});

test('only the service knows that an alias is of a named ARN, and only that is said of one', () => {
  const alias = 'awskms:///alias/k';
  const aliasArn = `awskms:///${ARN.replace(/key\/.*/, 'alias/k')}`;
  for (const [entry, named, expected] of [
    [alias, `awskms:///${ARN}`, true],
    [aliasArn, `awskms:///${ARN}`, true],
    [alias, alias, false],
    [aliasArn, aliasArn, false],
    [`awskms:///${ARN}`, `awskms:///${ARN}`, false],
    [alias, KEY, false],
    [KEY, alias, false],
  ] as const)
    assert.equal(isByAlias(parseKeyUri(entry), parseKeyUri(named)), expected, `${entry} ${named}`);
});

test('a recipient is what the caller named, whatever else the rule would open', () => {
  const named = (key: string, recipient: string, version?: string) =>
    isNamed(
      { kind: 'prefix', prefix: 'gcpkms://projects/p/', named: parseKeyUri(key) },
      parseKeyUri(recipient),
      version,
      'exact',
    );
  assert.ok(isNamed(parseAllowRule(KEY), parseKeyUri(`${KEY}2`), undefined, 'exact'), 'none was named');
  assert.ok(named('keyfile:///etc/key', THUMBPRINT), 'a path says nothing of what the file holds');
  assert.ok(!named(THUMBPRINT, THUMBPRINT.replaceAll('ab', 'cd')));
  assert.ok(named(THUMBPRINT, THUMBPRINT));
  assert.ok(named(V1, KEY, '1') && named(V1, V1) && named(KEY, V2));
  assert.ok(!named(V1, KEY, '2') && !named(V1, V2, '1') && !named(KEY, `${KEY}2`));
});

const SEGMENT = fc.constantFrom('a', 'b', 'ab', 'A', 'a-b');
const google = fc
  .tuple(SEGMENT, SEGMENT, SEGMENT, fc.option(fc.integer({ min: 1, max: 3 }), { nil: undefined }))
  .map(
    ([project, ring, key, version]) =>
      `gcpkms://projects/${project.toLowerCase()}/locations/l/keyRings/${ring}/cryptoKeys/${key}${version === undefined ? '' : `/cryptoKeyVersions/${version}`}`,
  );
const azure = fc.tuple(SEGMENT, SEGMENT).map(([host, key]) => `azurekms://${host}.example/${key}`);
const aws = fc
  .tuple(fc.constantFrom('1', '2'), fc.constantFrom('a', 'b'))
  .map(
    ([account, id]) =>
      `awskms:///arn:aws:kms:us-east-1:${account.repeat(12)}:key/${id.repeat(8)}-1111-1111-1111-${id.repeat(12)}`,
  );
const vault = fc.tuple(SEGMENT, SEGMENT).map(([key, engine]) => `hashivault://${key}?engine=${engine}`);
const anyKey = fc.oneof(google, azure, aws, vault, fc.constant(THUMBPRINT), fc.constant('keyfile:///etc/key'));
const anyRule = fc.oneof(
  anyKey,
  google.map((key) => key.replace(/keyRings.*/, '*')),
  google.map((key) => key.replace(/cryptoKeys.*/, '*')),
  azure.map((key) => key.replace(/[^/]*$/, '*')),
  aws.map((key) => key.replace(/key\/.*/, 'key/*')),
);

test(seeded('nothing outside the list is ever opened'), () => {
  fc.assert(
    fc.property(anyRule, anyKey, (rule, key) => {
      const opened = packet(rule, key) ?? caller(rule, key);
      if (opened === undefined) return;
      const [asked, entry] = [
        formatKeyUri(parseKeyUri(key)),
        rule.endsWith('/*') ? rule.slice(0, -1) : formatKeyUri(parseKeyUri(rule)),
      ];
      const lower = (text: string) => (text.startsWith('azurekms:') ? text.toLowerCase() : text);
      if (rule.endsWith('/*'))
        assert.ok(asked.startsWith(lower(entry)) && opened === asked, `${rule} opened ${opened} for ${key}`);
      else
        assert.ok(
          asked === entry || asked.startsWith(`${entry}/cryptoKeyVersions/`),
          `${rule} opened ${opened} for ${key}`,
        );
    }),
    sample(5000),
  );
});

test(seeded('an allowed key is allowed in every spelling of it'), () => {
  fc.assert(
    fc.property(google, (key) => {
      for (const spelling of [key, key.slice('gcpkms://'.length), key.replace('cryptoKeyVersions', 'versions')]) {
        assert.equal(packet(key, spelling), key);
        assert.equal(packet(spelling, key), key);
      }
    }),
    sample(200),
  );
});
