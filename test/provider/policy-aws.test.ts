// Which AWS keys of packets an operator's entry covers: ARNs, ids, aliases, replicas of multi-Region keys.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseKeyUri } from '../../src/base/key-uri.ts';
import { parseAllowRule, selectForPacket } from '../../src/provider/policy.ts';

const ID = '1234abcd-12ab-34cd-56ef-1234567890ab';
const OTHER = '99999999-12ab-34cd-56ef-1234567890ab';
const MRK = 'mrk-1234abcd12ab34cd56ef1234567890ab';
const arn = (resource: string, region = 'eu-west-1', account = '111122223333', partition = 'aws') =>
  `arn:${partition}:kms:${region}:${account}:${resource}`;

const cases: readonly (readonly [what: string, entry: string, packet: string, covered: boolean])[] = [
  ['the same ARN', arn(`key/${ID}`), arn(`key/${ID}`), true],
  ['the same ARN in capitals', arn(`key/${ID.toUpperCase()}`), arn(`key/${ID}`), true],
  ['another key', arn(`key/${ID}`), arn(`key/${OTHER}`), false],
  ['another account', arn(`key/${ID}`), arn(`key/${ID}`, 'eu-west-1', '444455556666'), false],
  ['another region', arn(`key/${ID}`), arn(`key/${ID}`, 'us-east-1'), false],
  ['a replica', arn(`key/${MRK}`), arn(`key/${MRK}`, 'us-east-1'), true],
  ['a multi-Region key of another account', arn(`key/${MRK}`), arn(`key/${MRK}`, 'us-east-1', '444455556666'), false],
  [
    'a multi-Region key of another partition',
    arn(`key/${MRK}`),
    arn(`key/${MRK}`, 'cn-north-1', '111122223333', 'aws-cn'),
    false,
  ],
  ['a bare id, by its ARN', arn(`key/${ID}`), `awskms:///${ID}`, true],
  ['another bare id, by an ARN', arn(`key/${ID}`), `awskms:///${OTHER}`, false],
  ['an ARN, by its bare id', `awskms:///${ID}`, arn(`key/${ID}`), true],
  ['an ARN, by another bare id', `awskms:///${OTHER}`, arn(`key/${ID}`), false],
  ['any ARN, by an alias, for AWS to decide', 'awskms:///alias/x', arn(`key/${ID}`), true],
  ['an ARN of its region, by an alias with ARN', arn('alias/x'), arn(`key/${ID}`), true],
  ['an ARN of another region, by an alias with ARN', arn('alias/x'), arn(`key/${ID}`, 'us-east-1'), false],
  ['a replica, by an alias with ARN', arn('alias/x'), arn(`key/${MRK}`, 'us-east-1'), true],
  [
    'a replica of another account, by an alias with ARN',
    arn('alias/x'),
    arn(`key/${MRK}`, 'us-east-1', '444455556666'),
    false,
  ],
  ['the same alias', 'awskms:///alias/x', 'awskms:///alias/x', true],
  ['an alias, by the ARN of a key', arn(`key/${ID}`), 'awskms:///alias/x', false],
  ['another alias', 'awskms:///alias/x', 'awskms:///alias/y', false],
  ['the ARN of another alias', 'awskms:///alias/x', arn('alias/y'), false],
  ['the ARN of another alias, by an ARN', arn('alias/x'), arn('alias/y'), false],
  ['the ARN of an alias, by the ARN of a key', arn(`key/${ID}`), arn('alias/x'), false],
  ['a key of Google', 'awskms:///alias/x', 'gcpkms://projects/p/locations/l/keyRings/r/cryptoKeys/k', false],
];

for (const [what, entry, packet, covered] of cases) {
  test(`an entry covers ${covered ? '' : 'not '}${what}, and is what is opened`, () => {
    const rule = parseAllowRule(entry);
    const selected = selectForPacket(rule, parseKeyUri(packet), undefined, 'exact');
    assert.deepEqual(selected, covered ? parseKeyUri(entry) : undefined);
  });
}

test('a prefix covers the keys of its region only, and no other name of them', () => {
  const rule = parseAllowRule('awskms:///arn:aws:kms:eu-west-1:111122223333:key/*');
  const select = (packet: string) => selectForPacket(rule, parseKeyUri(packet), undefined, 'exact');
  assert.ok(select(arn(`key/${MRK}`)) !== undefined);
  for (const packet of [arn(`key/${MRK}`, 'us-east-1'), `awskms:///${ID}`, arn('alias/x')]) {
    assert.equal(select(packet), undefined);
  }
});
