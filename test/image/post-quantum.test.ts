// Which recipients hold against a quantum computer of the future: by the table of docs/packet.md, row by row.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, test } from 'node:test';
import { asKeyUri } from '../../src/base/key-uri.ts';
import { describePacket, type PacketDescription } from '../../src/image/model/packets.ts';
import { findClassic, findUndoing } from '../../src/image/post-quantum.ts';
import { canonicalJson, type Entry, sealMembers } from '../fixtures/packets.ts';

const document = readFileSync(new URL('../../docs/packet.md', import.meta.url), 'utf8');
const GOOGLE = 'gcpkms://projects/p/locations/l/keyRings/r/cryptoKeys/k';
const X25519 = `age1${'q'.repeat(58)}`;
const HYBRID = `age1pq1${'q'.repeat(1952)}`;

/** A key of each kind that the table names. */
const KEYS: Readonly<Record<string, string>> = {
  'keyfile:': `keyfile:sha256:${'ab'.repeat(32)}`,
  'gcpkms:': GOOGLE,
  'awskms:': 'awskms:///arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab',
  'azurekms:': 'azurekms://v.vault.azure.net/k',
  'hashivault:': 'hashivault://k',
  'pkcs11:': 'pkcs11:object=k',
  'age1…': X25519,
  'age1pq1…': HYBRID,
};

type Row = { readonly key: string; readonly algorithms: readonly string[]; readonly layout: string };

function rows(): readonly Row[] {
  const table = /### 4\.6[\s\S]*?\n\| `key`[^\n]*\n[^\n]*\n((?:\|[^\n]*\n)+)/.exec(document)?.[1] ?? '';
  return table.split('\n').flatMap((line) => {
    const [, first = '', second = '', , fourth = ''] = line.split('|').map((cell) => cell.trim());
    const key = KEYS[/`([^`]+)`/.exec(first)?.[1] ?? ''];
    if (key === undefined) return [];
    const algorithms = [...second.matchAll(/`([^`]+)`/g)].map(([, name = '']) => name.replace('B_SHAH', '3072_SHA256'));
    return [{ key, algorithms, layout: fourth }];
  });
}

function packetOf(...entries: readonly (readonly [key: string, algorithm: string])[]): PacketDescription {
  const recipients = entries.map(([key, algorithm]): Entry => ({ algorithm, key, wrapped_key: 'AAAA' }));
  const packet = Buffer.from(canonicalJson(sealMembers({ recipients })));
  return describePacket({ scheme: 'provider.kmscrypt', packet });
}

describe('every kind of recipient that docs/packet.md has', () => {
  const all = rows();
  test('is in the table that this is about', () => {
    assert.ok(all.length >= 13);
    for (const key of Object.values(KEYS)) assert.ok(asKeyUri(key) !== undefined && all.some((row) => row.key === key));
  });
  for (const { key, algorithms, layout } of all) {
    for (const algorithm of algorithms) {
      const isClassic =
        layout.includes('RSA') || algorithm.startsWith('RSA') || algorithm === 'X25519' || algorithm.includes('rsa');
      test(`${key.slice(0, 20)} by ${algorithm} ${isClassic ? 'does not hold' : 'holds'}`, () => {
        const [recipient] = packetOf([key, algorithm]).recipients;
        assert.equal(recipient?.postQuantum, !isClassic);
      });
    }
  }
});

test('what no table has does not hold: an algorithm of another service, JWE, PGP, what cannot be read', () => {
  assert.equal(findClassic([packetOf([GOOGLE, 'SYMMETRIC_DEFAULT'])]).length, 1);
  const json = (value: unknown) => Buffer.from(JSON.stringify(value));
  for (const [scheme, packet] of [
    ['jwe', json({ recipients: [{ header: { alg: 'RSA-OAEP' } }] })],
    ['jwe', json({ recipients: [{ header: { alg: 'ECDH-ES+A256KW' } }] })],
    ['pgp', Buffer.from('x')],
    ['provider.x', json({ kid: 'k', wrapped_data: 'AAAA', wrap_type: 'rsa_3072', attester_endpoint: 'x' })],
    ['provider.x', json({ key_url: 'tpm', session_key: 'AAAA', wrapped_key: 'AAAA', wrap_type: 'AES' })],
    ['provider.x', Buffer.from('junk')],
    ['new', Buffer.from('x')],
  ] as const) {
    assert.equal(findClassic([describePacket({ scheme, packet })]).length, 1, packet.toString());
  }
  for (const packet of [
    { key_url: GOOGLE, wrapped_key: 'AAAA', wrap_type: 'AES' },
    { key_url: 'alias/x', wrapped_key: 'AAAA' },
    { kid: 'kbs:///a/b/c', wrapped_data: 'AAAA', iv: 'AAAA', wrap_type: 'A256GCM' },
    { kid: 'alias/x', wrapped_data: 'AAAA', provider: 'aws', version: '0.1.0' },
  ]) {
    assert.deepEqual(findClassic([describePacket({ scheme: 'provider.x', packet: json(packet) })]), []);
  }
});

test('a classic recipient undoes a post-quantum one, in the same packet or beside it; a symmetric one does not', () => {
  const hybrid = [HYBRID, 'mlkem768x25519'] as const;
  const classic = [X25519, 'X25519'] as const;
  const symmetric = [GOOGLE, 'GOOGLE_SYMMETRIC_ENCRYPTION'] as const;
  assert.deepEqual(findUndoing([packetOf(hybrid, classic)]), [`${X25519} (X25519)`]);
  assert.deepEqual(findUndoing([packetOf(hybrid), packetOf(classic)]), [`${X25519} (X25519)`]);
  assert.deepEqual(findUndoing([packetOf(hybrid, symmetric)]), []);
  assert.deepEqual(findUndoing([packetOf(classic, symmetric)]), []);
});
