// Vectors with one fault in the packet itself: its members, its form, its cryptography.

import { createHmac } from 'node:crypto';
import type { ErrorCode } from '../src/base/errors.ts';
import {
  canonicalJson,
  contextOf,
  counting,
  DATA_KEY,
  type Entry,
  GOOGLE,
  googleEntry,
  hkdf,
  type Json,
  KEYFILES,
  keyfileEntry,
  OPTSDATA,
  packetV1,
  type Sealing,
  SWAPPED,
  sealMembers,
  thumbprint,
  wrapWithGoogle,
  wrapWithKeyfile,
} from '../test/fixtures/packets.ts';
import { base64, FIRST, GCP, MEMBERS, type Named, PACKET, type Setup, unwrapRequest } from './vectors-shape.ts';

const ALLOWED: Setup = { allow: [GCP] };
const WRAPPED = wrapWithGoogle(GOOGLE.first, OPTSDATA, {}, counting(208, 12));

export function v1Faults(): readonly Named[] {
  const good = JSON.parse(packetV1(GCP, WRAPPED));
  const changed = (members: Readonly<Record<string, unknown>>) => JSON.stringify({ ...good, ...members });
  const holding = (plaintext: string | Uint8Array, context = {}) =>
    packetV1(GCP, wrapWithGoogle(GOOGLE.first, Buffer.from(plaintext), context, counting(208, 12)));
  const fault = (name: string, comment: string, expect: ErrorCode, packet: string): Named => [
    name,
    { comment, expect, setup: ALLOWED, request: unwrapRequest(packet) },
  ];
  const record = JSON.parse(OPTSDATA.toString());
  return [
    fault('v1-url-missing', 'no key_url', 'bad-input', changed({ key_url: undefined })),
    fault('v1-url-empty', 'an empty key_url', 'bad-input', changed({ key_url: '' })),
    fault('v1-url-number', 'a number as key_url', 'bad-input', changed({ key_url: 1 })),
    fault('v1-url-no-uri', 'a key_url that is no key URI', 'bad-input', changed({ key_url: 'my key' })),
    [
      'v1-url-before-labels',
      {
        comment: 'the same, found before labels are compared',
        expect: 'bad-input',
        setup: { ...ALLOWED, context: { env: 'prod' } },
        request: unwrapRequest(changed({ key_url: 'my key' })),
      },
    ],
    fault('v1-url-keyfile', 'a path as key_url', 'bad-input', changed({ key_url: 'keyfile:///etc/passwd' })),
    fault(
      'v1-url-aws',
      'a key of another service as key_url',
      'bad-input',
      changed({ key_url: 'awskms:///1234abcd-12ab-34cd-56ef-1234567890ab' }),
    ),
    fault(
      'v1-url-aws-bare',
      'an AWS key as its own tools name it, in a packet with a wrap_type',
      'bad-input',
      changed({ key_url: 'alias/images' }),
    ),
    fault(
      'v1-url-aws-scheme',
      'an AWS key with a scheme in a packet without a wrap_type, which no writer makes',
      'bad-input',
      changed({ key_url: 'awskms:///alias/images', wrap_type: undefined }),
    ),
    fault(
      'v1-url-control',
      'a key_url with an escape sequence of terminals',
      'bad-input',
      changed({ key_url: '\u001b[31mgcpkms://' }),
    ),
    fault(
      'v1-url-direction',
      'a key_url that turns the direction of text',
      'bad-input',
      changed({ key_url: '\u202egcpkms://' }),
    ),
    fault(
      'v1-url-long',
      'a key_url of 20000 characters',
      'bad-input',
      changed({ key_url: `gcpkms://${'a'.repeat(20_000)}` }),
    ),
    fault('v1-url-twice', 'key_url twice', 'bad-input', packetV1(GCP, WRAPPED).replace('{', '{"key_url":"x",')),
    fault('v1-wrapped-missing', 'no wrapped_key', 'bad-input', changed({ wrapped_key: undefined })),
    fault('v1-wrapped-empty', 'an empty wrapped_key', 'bad-input', changed({ wrapped_key: '' })),
    fault(
      'v1-wrapped-array',
      'an array as wrapped_key, which no writer makes',
      'bad-input',
      changed({ wrapped_key: [...WRAPPED] }),
    ),
    fault(
      'v1-wrapped-base64',
      'wrapped_key without its padding',
      'bad-input',
      changed({ wrapped_key: base64(WRAPPED.subarray(0, 40)).replace('=', '') }),
    ),
    fault('v1-type-other', 'another wrap_type', 'bad-input', changed({ wrap_type: 'rsa_3072' })),
    fault('v1-type-null', 'wrap_type is null', 'bad-input', changed({ wrap_type: null })),
    fault('v1-array', 'an array', 'bad-input', `[${packetV1(GCP, WRAPPED)}]`),
    fault('v1-trailing', 'a second packet behind it', 'bad-input', packetV1(GCP, WRAPPED).repeat(2)),
    fault('foreign-tpm', 'a packet of the TPM provider', 'bad-input', changed({ session_key: 'AA==' })),
    fault(
      'foreign-skr',
      'a packet of Microsoft’s provider',
      'bad-input',
      JSON.stringify({ kid: 'k', wrapped_data: 'AA==', kms_endpoint: 'localhost:1', attester_endpoint: 'localhost:1' }),
    ),
    fault(
      'foreign-coco',
      'a packet of Confidential Containers',
      'bad-input',
      JSON.stringify({ kid: 'kbs:///a/b/c', wrapped_data: 'AA==', iv: 'AAAAAAAAAAAAAAAA', wrap_type: 'A256GCM' }),
    ),
    fault('v1-bit', 'a bit of the ciphertext', 'integrity', packetV1(GCP, flip(WRAPPED, 40))),
    fault('v1-cut', 'a ciphertext that is cut', 'integrity', packetV1(GCP, WRAPPED.subarray(0, 41))),
    fault(
      'v1-other-key',
      'the ciphertext of another key',
      'integrity',
      packetV1(GCP, wrapWithGoogle(GOOGLE.second, OPTSDATA, {}, counting(208, 12))),
    ),
    fault('v1-context', 'a ciphertext with additional data', 'integrity', holding(OPTSDATA, { 'ocicrypt-kms': 'v2' })),
    fault('v1-data-key', 'the data key of a v2 packet', 'integrity', holding(DATA_KEY)),
    fault('v1-oracle-text', 'another program’s secret under the same key', 'integrity', holding('database password')),
    fault('v1-oracle-json', 'another program’s JSON', 'integrity', holding('{"symkey":"c2VjcmV0"}')),
    fault(
      'v1-oracle-symkey',
      'a record whose key has 16 bytes',
      'integrity',
      holding(JSON.stringify({ ...record, symkey: base64(Buffer.alloc(16)) })),
    ),
    fault('v1-oracle-trailing', 'a record with bytes behind it', 'integrity', holding(`${OPTSDATA.toString()}!`)),
    fault('v1-oracle-array', 'a record within an array', 'integrity', holding(`[${OPTSDATA.toString()}]`)),
    fault('v1-oracle-large', 'a record of 4097 bytes', 'integrity', holding(OPTSDATA.toString().padEnd(4097))),
    fault(
      'v1-record-spellings',
      'a record with a member in two spellings, of which other readers take the second',
      'integrity',
      holding(OPTSDATA.toString().replace('{', `{"SYMKEY":"${base64(counting(7))}",`)),
    ),
    fault('v1-oracle-empty', 'an empty object', 'integrity', holding('{}')),
  ];
}

export function v2Faults(): readonly Named[] {
  return [...formFaults(), ...memberFaults(), ...recipientFaults(), ...cryptographicFaults()];
}

function formFaults(): readonly Named[] {
  const text = (name: string, comment: string, packet: string) => bad(name, comment, packet);
  const { version, ...rest } = MEMBERS;
  return [
    bad('v2-version-missing', 'no version', canonicalJson(rest)),
    bad('v2-version-unknown', 'a version to come', changed({ version: 'ocicrypt-kms/v3' })),
    bad('v2-version-space', 'a version with a space', changed({ version: 'ocicrypt-kms/v2 ' })),
    bad('v2-version-number', 'a number as version', changed({ version: 2 })),
    text('v2-form-order', 'members in another order', JSON.stringify({ version, ...rest })),
    text('v2-form-space', 'white space within', PACKET.replace(',', ', ')),
    text('v2-form-space-before', 'white space before', ` ${PACKET}`),
    text('v2-form-newline', 'a newline at the end', `${PACKET}\n`),
    text('v2-form-escape', 'an escape that is not needed', PACKET.replace('ocicrypt-kms/v2', '\\u006fcicrypt-kms/v2')),
    text('v2-form-slash', 'an escaped slash', PACKET.replace('ocicrypt-kms/v2', 'ocicrypt-kms\\/v2')),
    text('v2-form-duplicate', 'a member twice', PACKET.replace('{', `{"ciphertext":"${String(MEMBERS.ciphertext)}",`)),
    text('v2-form-trailing', 'a second packet behind it', PACKET.repeat(2)),
    bad('v2-unknown-member', 'an unknown member', changed({ note: 'x' })),
    bad('v2-foreign-member', 'a member of v1', changed({ key_url: GCP })),
  ];
}

function memberFaults(): readonly Named[] {
  const withLabels = (labels: Json) => changed({ labels });
  const many = Object.fromEntries(Array.from({ length: 9 }, (_, index) => [`l${index}`, 'x']));
  return [
    bad('v2-labels-missing', 'no labels', without('labels')),
    bad('v2-labels-null', 'labels that are null', withLabels(null)),
    bad('v2-labels-array', 'labels in an array', withLabels([])),
    bad('v2-labels-nine', 'nine labels', withLabels(many)),
    bad('v2-label-number', 'a number as value', withLabels({ env: 1 })),
    bad('v2-label-empty', 'an empty value', withLabels({ env: '' })),
    bad('v2-label-long', 'a value of 257 characters', withLabels({ env: 'x'.repeat(257) })),
    bad('v2-label-space', 'a value that ends in a space', withLabels({ env: 'x ' })),
    bad('v2-label-control', 'a control character in a value', withLabels({ env: 'a\u0001b' })),
    bad('v2-label-unicode', 'a value that is not ASCII', withLabels({ env: 'é' })),
    bad(
      'v2-label-surrogate',
      'a lone surrogate in a value',
      PACKET.replace('"labels":{}', '"labels":{"env":"\\ud800"}'),
    ),
    bad('v2-label-name-empty', 'an empty name', withLabels({ '': 'x' })),
    bad('v2-label-name-digit', 'a name that starts with a digit', withLabels({ '1': 'x' })),
    bad('v2-label-name-long', 'a name of 65 characters', withLabels({ ['x'.repeat(65)]: 'x' })),
    bad('v2-label-name-proto', 'a name that is no label', PACKET.replace('"labels":{}', '"labels":{"__proto__":"x"}')),
    bad('v2-label-order', 'labels that are not sorted', PACKET.replace('"labels":{}', '"labels":{"b":"x","a":"x"}')),
    bad('v2-label-twice', 'a label twice', PACKET.replace('"labels":{}', '"labels":{"a":"x","a":"x"}')),
    bad('v2-mac-missing', 'no MAC', without('mac')),
    bad('v2-mac-short', 'a MAC of 31 bytes', changed({ mac: base64(Buffer.alloc(31)) })),
    bad('v2-mac-long', 'a MAC of 33 bytes', changed({ mac: base64(Buffer.alloc(33)) })),
    bad('v2-nonce-missing', 'no nonce', without('nonce')),
    bad('v2-nonce-short', 'a nonce of 11 bytes', changed({ nonce: base64(Buffer.alloc(11)) })),
    bad('v2-nonce-long', 'a nonce of 16 bytes', changed({ nonce: base64(Buffer.alloc(16)) })),
    bad('v2-ciphertext-missing', 'no ciphertext', without('ciphertext')),
    bad('v2-ciphertext-tag', 'a tag and nothing else', changed({ ciphertext: base64(Buffer.alloc(16)) })),
    bad(
      'v2-ciphertext-base64',
      'padding that is missing',
      changed({ ciphertext: String(MEMBERS.ciphertext).slice(0, -1) }),
    ),
    bad('v2-ciphertext-null', 'null', changed({ ciphertext: null })),
  ];
}

function recipientFaults(): readonly Named[] {
  const entry = keyfileEntry(KEYFILES.first);
  const one = (members: Readonly<Record<string, Json | undefined>>) =>
    changed({ recipients: [defined({ ...entry, ...members })] });
  const google = googleEntry(GOOGLE.first);
  return [
    bad('v2-recipients-missing', 'no recipients', without('recipients')),
    bad('v2-recipients-empty', 'an empty list', changed({ recipients: [] })),
    bad('v2-recipients-object', 'an object', changed({ recipients: { '0': entry } })),
    bad('v2-recipients-17', 'seventeen', changed({ recipients: Array.from({ length: 17 }, () => entry) })),
    bad('v2-recipient-text', 'a text', changed({ recipients: ['x'] })),
    bad('v2-recipient-unknown-member', 'an unknown member', one({ endpoint: 'localhost:1' })),
    bad('v2-key-missing', 'no key', one({ key: undefined })),
    bad('v2-key-no-uri', 'a key that is no key URI', one({ key: 'key' })),
    bad(
      'v2-key-spelling',
      'a key in another spelling',
      changed({ recipients: [{ ...google, key: GOOGLE.first.name }] }),
    ),
    bad(
      'v2-key-endpoint',
      'a key with an endpoint',
      changed({ recipients: [{ ...google, key: 'awskms://localhost:1/alias/a' }] }),
    ),
    bad('v2-algorithm-missing', 'no algorithm', one({ algorithm: undefined })),
    bad('v2-algorithm-empty', 'an empty algorithm', one({ algorithm: '' })),
    bad('v2-algorithm-space', 'an algorithm with a space', one({ algorithm: 'AES 256' })),
    bad('v2-algorithm-long', 'an algorithm of 65 characters', one({ algorithm: 'x'.repeat(65) })),
    bad('v2-recipient-version-empty', 'an empty version', one({ version: '' })),
    bad('v2-recipient-version-null', 'a version that is null', one({ version: null })),
    bad('v2-recipient-version-number', 'a version that is a number', one({ version: 1 })),
    bad(
      'v2-recipient-version-both',
      'a version in key and beside it',
      changed({ recipients: [{ ...google, key: `${GCP}/cryptoKeyVersions/2` }] }),
    ),
    bad('v2-wrapped-missing', 'no wrapped key', one({ wrapped_key: undefined })),
    bad('v2-wrapped-empty', 'an empty wrapped key', one({ wrapped_key: '' })),
    bad('v2-wrapped-large', 'a wrapped key of 8193 bytes', one({ wrapped_key: base64(Buffer.alloc(8193)) })),
    bad('v2-wrapped-base64', 'bits behind the last byte', one({ wrapped_key: 'AB==' })),
  ];
}

function cryptographicFaults(): readonly Named[] {
  const entry = keyfileEntry(KEYFILES.first);
  const other = keyfileEntry(KEYFILES.second);
  const both = sealMembers({ recipients: [entry, other] });
  const labels = { env: 'prod' };
  const labelled = sealMembers({ labels, recipients: [keyfileEntry(KEYFILES.first, { labels })] });
  const bytes = (name: string) => Buffer.from(String(MEMBERS[name]), 'base64');
  const wrapped = Buffer.from(String(entry.wrapped_key), 'base64');
  const sealed = (recipient: Entry, sealing: Sealing = {}) =>
    canonicalJson(sealMembers({ ...sealing, recipients: [recipient] }));
  const rewrapped = (key: Uint8Array) => sealed({ ...entry, wrapped_key: base64(key) });
  const wrap = (dataKey: Uint8Array, context: Readonly<Record<string, string>>) =>
    wrapWithKeyfile(KEYFILES.first, dataKey, context, counting(160, 12));
  const context = contextOf();
  const [short, long] = [counting(128, 31), counting(128, 33)];
  /** Everything as it should be but for how it is sealed: the key file has wrapped for just this content. */
  const consistent = (sealing: Sealing) => sealed(keyfileEntry(KEYFILES.first, sealing), sealing);
  const holding = (optsdata: Uint8Array) => consistent({ optsdata });
  const reseal = (members: Entry, change: Readonly<Record<string, Json>>) => canonicalJson({ ...members, ...change });
  const damaged = (name: string, comment: string, packet: string): Named => [
    name,
    { comment, expect: 'integrity', setup: FIRST, request: unwrapRequest(packet) },
  ];
  return [
    damaged('v2-mac-bit', 'a bit of the MAC', changed({ mac: base64(flip(bytes('mac'), 0)) })),
    damaged('v2-mac-zero', 'a MAC of zeros', changed({ mac: base64(Buffer.alloc(32)) })),
    damaged('v2-nonce-bit', 'a bit of the nonce', changed({ nonce: base64(flip(bytes('nonce'), 11)) })),
    damaged('v2-ciphertext-bit', 'a bit of the content', changed({ ciphertext: base64(flip(bytes('ciphertext'), 0)) })),
    damaged('v2-tag-bit', 'a bit of the tag', changed({ ciphertext: base64(flip(bytes('ciphertext'), -1)) })),
    damaged(
      'v2-ciphertext-cut',
      'a byte less of the content',
      changed({ ciphertext: base64(bytes('ciphertext').subarray(0, -1)) }),
    ),
    damaged('v2-label-added', 'a label more', changed({ labels })),
    damaged('v2-label-removed', 'a label less', reseal(labelled, { labels: {} })),
    damaged('v2-label-changed', 'another value', reseal(labelled, { labels: { env: 'dev' } })),
    damaged('v2-recipient-added', 'a recipient more', changed({ recipients: [entry, other] })),
    damaged('v2-recipient-removed', 'a recipient less', reseal(both, { recipients: [entry] })),
    damaged('v2-recipients-swapped', 'recipients in another order', reseal(both, { recipients: [other, entry] })),
    damaged('v2-recipient-twice', 'a recipient twice, under the MAC for one', changed({ recipients: [entry, entry] })),
    damaged(
      'v2-algorithm-changed',
      'another algorithm',
      changed({ recipients: [{ ...entry, algorithm: 'AES-128-GCM' }] }),
    ),
    damaged(
      'v2-recipient-version-added',
      'a version that was not there',
      changed({ recipients: [{ ...entry, version: '1' }] }),
    ),
    damaged('v2-wrapped-bit', 'a bit of the wrapped key', rewrapped(flip(wrapped, 20))),
    damaged('v2-wrapped-nonce', 'a bit of its nonce', rewrapped(flip(wrapped, 0))),
    damaged('v2-wrapped-tag', 'a bit of its tag', rewrapped(flip(wrapped, -1))),
    damaged('v2-wrapped-cut', 'a nonce and a tag only', rewrapped(wrapped.subarray(0, 28))),
    damaged('v2-wrapped-one', 'one byte', rewrapped(Buffer.of(1))),
    damaged('v2-wrapped-other', 'wrapped by another key', sealed({ ...other, key: thumbprint(KEYFILES.first) })),
    damaged('v2-context-none', 'wrapped without context', rewrapped(wrap(DATA_KEY, {}))),
    damaged(
      'v2-context-labels',
      'wrapped for a packet with labels',
      rewrapped(wrap(DATA_KEY, { ...context, 'label.env': 'prod' })),
    ),
    damaged(
      'v2-context-version',
      'wrapped for another version',
      rewrapped(wrap(DATA_KEY, { ...context, 'ocicrypt-kms': 'v3' })),
    ),
    damaged(
      'v2-context-content-none',
      'wrapped without the digest of the content',
      rewrapped(wrap(DATA_KEY, { 'ocicrypt-kms': 'v2' })),
    ),
    damaged(
      'v2-context-content-other',
      'wrapped for other content',
      rewrapped(wrap(DATA_KEY, contextOf({ optsdata: SWAPPED }))),
    ),
    damaged(
      'v2-swapped-keyfile',
      'another record beside the same wrapped key, as somebody makes it who may only unwrap: the key file refuses it',
      sealed(entry, { optsdata: SWAPPED }),
    ),
    damaged('v2-data-key-short', 'a data key of 31 bytes', consistent({ dataKey: short })),
    damaged('v2-data-key-long', 'a data key of 33 bytes', consistent({ dataKey: long })),
    damaged('v2-data-key-record', 'the record itself in place of a data key', rewrapped(wrap(OPTSDATA, context))),
    damaged('v2-data-key-other', 'another data key', sealed(keyfileEntry(KEYFILES.first, {}, counting(7)))),
    damaged('v2-content-key', 'sealed with the data key itself', consistent({ contentKey: DATA_KEY })),
    damaged(
      'v2-content-mac-key',
      'sealed with the MAC key',
      consistent({ contentKey: hkdf(DATA_KEY, 'ocicrypt-kms/v2 mac') }),
    ),
    damaged(
      'v2-content-bit',
      'a bit of the content, all else consistent with it',
      consistent({ ciphertext: flip(bytes('ciphertext'), 0) }),
    ),
    damaged(
      'v2-content-tag',
      'a bit of its tag, all else consistent with it',
      consistent({ ciphertext: flip(bytes('ciphertext'), -1) }),
    ),
    damaged('v2-mac-key', 'a MAC under the data key itself', consistent({ macKey: DATA_KEY })),
    damaged(
      'v2-mac-content-key',
      'a MAC under the content key',
      consistent({ macKey: hkdf(DATA_KEY, 'ocicrypt-kms/v2 content') }),
    ),
    damaged(
      'v2-mac-partial',
      'a MAC over labels, recipients and version only',
      changed({ mac: base64(partialMac(MEMBERS)) }),
    ),
    damaged('v2-content-large', 'content of 4097 bytes', holding(Buffer.from(OPTSDATA.toString().padEnd(4097)))),
    damaged('v2-content-text', 'content that is no record', holding(Buffer.from('secret'))),
    damaged(
      'v2-content-symkey',
      'content whose key has 31 bytes',
      holding(Buffer.from(OPTSDATA.toString().replace(/"symkey":"[^"]+"/, `"symkey":"${base64(Buffer.alloc(31))}"`))),
    ),
    ...(['symkey', 'digest', 'cipheroptions', 'nonce'] as const).map((member) =>
      damaged(
        `v2-content-spellings-${member}`,
        `content with ${member} in two spellings`,
        holding(
          Buffer.from(
            OPTSDATA.toString().replace(new RegExp(`"${member}":`), `"${member.toUpperCase()}":"x","${member}":`),
          ),
        ),
      ),
    ),
    damaged(
      'v2-content-spellings-folded',
      'content with symkey beside a spelling with U+017F and U+212A, which fold to s and k',
      holding(Buffer.from(OPTSDATA.toString().replace('{', '{"\u017fym\u212aey":"x",'))),
    ),
    damaged('v2-content-trailing', 'content with a byte behind it', holding(Buffer.concat([OPTSDATA, Buffer.of(0)]))),
  ];
}

/** The MAC of a packet as if nonce and ciphertext were not of its business. */
function partialMac({ labels, recipients, version }: Entry): Buffer {
  const part = canonicalJson({ labels: labels ?? {}, recipients: recipients ?? [], version: version ?? '' });
  return createHmac('sha256', hkdf(DATA_KEY, 'ocicrypt-kms/v2 mac')).update(part).digest();
}

function bad(name: string, comment: string, packet: string): Named {
  return [name, { comment, expect: 'bad-input', setup: FIRST, request: unwrapRequest(packet) }];
}

function changed(members: Readonly<Record<string, Json>>): string {
  return canonicalJson({ ...MEMBERS, ...members });
}

function without(name: string): string {
  return canonicalJson(defined({ ...MEMBERS, [name]: undefined }));
}

function defined(members: Readonly<Record<string, Json | undefined>>): Entry {
  return Object.fromEntries(
    Object.entries(members).flatMap(([name, value]) => (value === undefined ? [] : [[name, value]])),
  );
}

/** The bytes with the lowest bit of one of them changed; from the end where `index` is negative. */
function flip(bytes: Uint8Array, index: number): Buffer {
  const copy = Buffer.from(bytes);
  const at = index < 0 ? copy.length + index : index;
  copy[at] = (copy[at] ?? 0) ^ 1;
  return copy;
}
