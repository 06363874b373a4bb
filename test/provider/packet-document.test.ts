// docs/packet.md, checked by an opening that is written from its text with node:crypto and imports nothing of src.
import assert from 'node:assert/strict';
import { createDecipheriv, createHash, createHmac, hkdfSync, timingSafeEqual } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { describe, test } from 'node:test';

const document = readFileSync(new URL('../../docs/packet.md', import.meta.url), 'utf8');
const example: Readonly<Record<string, string>> = JSON.parse(/```json\n([\s\S]*?)```/.exec(document)?.[1] ?? '');

type Recipient = { algorithm: string; key: string; version?: string; wrapped_key: string };
type Members = {
  ciphertext: string;
  labels: Record<string, string>;
  mac: string;
  nonce: string;
  recipients: Recipient[];
  version: string;
};

/** Every value on the way, in the document's order. */
type Steps = Record<string, string>;

describe('the worked example of docs/packet.md', () => {
  test('has every value right', () => {
    const { optsdata, ...steps } = open(Buffer.from(hex('keyfile')), text('packet'));
    for (const [name, value] of Object.entries(steps)) assert.equal(value, example[name], name);
    assert.equal(optsdata, example.optsdata);
    assert.deepEqual(
      Object.keys(example).toSorted(),
      ['keyfile', 'packet', 'optsdata', ...Object.keys(steps)].toSorted(),
    );
  });
});

test('vectors of key files open by the text of docs/packet.md alone, or fail by it', () => {
  const directory = new URL('../vectors/packets/', import.meta.url);
  const first = Buffer.from(Array.from({ length: 32 }, (_, index) => index));
  let opened = 0;
  let refused = 0;
  for (const name of readdirSync(directory).filter((file) => /^(?:ok-)?v2-/.test(file))) {
    const vector = JSON.parse(readFileSync(new URL(name, directory), 'utf8'));
    if (!(vector.setup.keys ?? []).includes('first') || vector.setup.context !== undefined) continue;
    const packet = Buffer.from(JSON.parse(vector.request).keyunwrapparams.annotation, 'base64').toString();
    if (vector.expect === 'ok') {
      const reply = JSON.parse(vector.reply).keyunwrapresults.optsdata;
      assert.equal(Buffer.from(open(first, packet).optsdata ?? '').toString('base64'), reply, name);
      opened++;
    } else {
      assert.throws(() => open(first, packet), Error, name);
      refused++;
    }
  }
  assert.ok(opened >= 8 && refused >= 90, `${opened} opened, ${refused} refused`);
});

/** docs/packet.md section 5, for a key file. Throws where anything is wrong. */
function open(key: Buffer, packet: string): Steps {
  // 1. size, form, limits
  assert.ok(Buffer.byteLength(packet) <= 32768);
  const members: Members = JSON.parse(packet);
  assert.equal(members.version, 'ocicrypt-kms/v2');
  assert.deepEqual(Object.keys(members), ['ciphertext', 'labels', 'mac', 'nonce', 'recipients', 'version']);
  assert.equal(canonical(members), packet);
  assert.ok(Object.keys(members.labels).length <= 8 && !Array.isArray(members.labels));
  for (const [name, value] of Object.entries(members.labels)) {
    assert.match(name, /^[A-Za-z][A-Za-z0-9_.-]{0,63}$/);
    assert.match(value, /^(?! )[ -~]{1,256}(?<! )$/);
  }
  assert.ok(Array.isArray(members.recipients) && members.recipients.length >= 1 && members.recipients.length <= 16);
  for (const recipient of members.recipients) {
    for (const name of Object.keys(recipient)) assert.ok(['algorithm', 'key', 'version', 'wrapped_key'].includes(name));
    assert.match(recipient.algorithm, /^[A-Za-z0-9_.+:-]{1,64}$/);
    if ('version' in recipient) assert.match(recipient.version ?? '', /^[A-Za-z0-9_.+:-]{1,64}$/);
    assert.match(
      recipient.key,
      /^(?:keyfile:sha256:[0-9a-f]{64}|keyfile:\/\/\/[^?]+|gcpkms:\/\/projects\/[\w/-]+|age1[02-9ac-hj-np-z]{58})$/,
    );
    assert.ok(!('version' in recipient && recipient.key.includes('/cryptoKeyVersions/')));
    assert.ok(bytes(recipient.wrapped_key).length >= 1 && bytes(recipient.wrapped_key).length <= 8192);
  }
  const [mac, nonce, content] = [bytes(members.mac), bytes(members.nonce), bytes(members.ciphertext)];
  assert.deepEqual([mac.length, nonce.length, content.length >= 17], [32, 12, true]);
  // 3. the recipients that this key is, of which each is tried
  const thumbprint = `keyfile:sha256:${createHash('sha256').update('ocicrypt-kms keyfile v1').update(Buffer.of(0)).update(key).digest('hex')}`;
  const failures: unknown[] = [];
  for (const recipient of members.recipients.filter((one) => one.key === thumbprint)) {
    try {
      assert.equal(recipient.algorithm, 'AES-256-GCM');
      return { thumbprint, ...openWith(key, recipient, members, { mac, nonce, content }) };
    } catch (failure) {
      failures.push(failure);
    }
  }
  throw new Error('no recipient opens it', { cause: failures });
}

type Parts = { readonly mac: Buffer; readonly nonce: Buffer; readonly content: Buffer };

function openWith(key: Buffer, recipient: Recipient, members: Members, { mac, nonce, content }: Parts): Steps {
  // 4. the key file unwraps, with the context
  const digest = createHash('sha256').update(nonce).update(content).digest('base64');
  const context = canonical({
    'ocicrypt-kms': 'v2',
    content: digest,
    ...Object.fromEntries(Object.entries(members.labels).map(([name, value]) => [`label.${name}`, value])),
  });
  const wrapped = bytes(recipient.wrapped_key);
  const dataKey = decrypt(key, wrapped.subarray(0, 12), wrapped.subarray(12), Buffer.from(context));
  // 5. the data key, the MAC, the content
  assert.equal(dataKey.length, 32);
  const derive = (info: string) => Buffer.from(hkdfSync('sha256', dataKey, '', info, 32));
  const { mac: _, ...others } = members;
  const authenticated = canonical(others);
  const macKey = derive('ocicrypt-kms/v2 mac');
  assert.ok(timingSafeEqual(createHmac('sha256', macKey).update(authenticated).digest(), mac), 'MAC');
  const contentKey = derive('ocicrypt-kms/v2 content');
  const optsdata = decrypt(contentKey, nonce, content, Buffer.alloc(0)).toString();
  checkRecord(optsdata);
  return {
    content: digest,
    context,
    wrapped_key_nonce: wrapped.subarray(0, 12).toString('hex'),
    wrapped_key_ciphertext: wrapped.subarray(12, -16).toString('hex'),
    wrapped_key_tag: wrapped.subarray(-16).toString('hex'),
    data_key: dataKey.toString('hex'),
    mac_key: macKey.toString('hex'),
    content_key: contentKey.toString('hex'),
    authenticated,
    mac: mac.toString('hex'),
    nonce: nonce.toString('hex'),
    ciphertext: content.subarray(0, -16).toString('hex'),
    tag: content.subarray(-16).toString('hex'),
    optsdata,
  };
}

/** docs/packet.md section 1.1, and step 6 of section 5. */
function checkRecord(optsdata: string): void {
  assert.ok(Buffer.byteLength(optsdata) <= 4096);
  const record = JSON.parse(optsdata);
  assert.equal(bytes(record.symkey).length, 32);
  assert.equal(bytes(record.cipheroptions.nonce).length, 16);
  assert.match(record.digest, /^[a-z0-9]+([+._-][a-z0-9]+)*:[a-zA-Z0-9=_-]{32,}$/);
  for (const [object, names] of [
    [record, ['symkey', 'digest', 'cipheroptions']],
    [record.cipheroptions, ['nonce']],
  ]) {
    const folded = Object.keys(object).map((name) => name.replaceAll('\u017f', 's').toLowerCase());
    for (const name of names) assert.equal(folded.filter((one) => one === name).length, 1, name);
  }
}

function decrypt(key: Uint8Array, nonce: Uint8Array, sealed: Buffer, additional: Uint8Array): Buffer {
  assert.ok(sealed.length > 16);
  const decipher = createDecipheriv('aes-256-gcm', key, nonce, { authTagLength: 16 });
  decipher.setAAD(additional);
  decipher.setAuthTag(sealed.subarray(-16));
  return Buffer.concat([decipher.update(sealed.subarray(0, -16)), decipher.final()]);
}

/** RFC 8785 for objects, arrays and texts. */
function canonical(value: unknown): string {
  if (typeof value === 'string') return JSON.stringify(value);
  if (Array.isArray(value)) return `[${value.map(canonical).join(',')}]`;
  assert.ok(typeof value === 'object' && value !== null);
  const members = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
  return `{${members.map(([name, member]) => `${JSON.stringify(name)}:${canonical(member)}`).join(',')}}`;
}

/** Strict base64: what would be written otherwise is refused. */
function bytes(base64: string): Buffer {
  const decoded = Buffer.from(base64, 'base64');
  assert.equal(decoded.toString('base64'), base64);
  return decoded;
}

function text(name: string): string {
  const value = example[name];
  assert.ok(value !== undefined, name);
  return value;
}

function hex(name: string): Buffer {
  return Buffer.from(text(name), 'hex');
}
