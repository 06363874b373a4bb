// A key that a caller names, beside the operator's entries that may be the same key: what is wrapped to, and what is opened.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { generateX25519Identity, identityToRecipient } from 'age-encryption';
import { formatKeyUri, type KeyUri, parseKeyUri } from '../../src/base/key-uri.ts';
import { openKek } from '../../src/kms/open.ts';
import { createProvider, type ProviderOptions } from '../../src/provider/handle.ts';
import { parseAllowRule } from '../../src/provider/policy.ts';
import { KEYFILES, OPTSDATA, thumbprint } from '../fixtures/packets.ts';
import { createTestKek } from '../fixtures/provider.ts';
import { unwrapRequest, wrapRequest } from '../fixtures/vectors/shape.ts';

const directory = mkdtempSync(join(tmpdir(), 'named-'));
after(() => rmSync(directory, { recursive: true, force: true }));
const path = (name: string) => join(directory, name);
const identities = [await generateX25519Identity(), await generateX25519Identity()];
const [first = '', second = ''] = await Promise.all(identities.map((identity) => identityToRecipient(identity)));
writeFileSync(path('identities'), `${identities.join('\n')}\n`, { mode: 0o600 });
writeFileSync(path('key'), KEYFILES.first, { mode: 0o600 });
writeFileSync(path('short'), KEYFILES.first.subarray(1), { mode: 0o600 });

const ARN = 'awskms:///arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab';
const OTHER = ARN.replace('1234abcd', '00000000');
const ALIAS = 'awskms:///alias/images';

/** A provider, and the keys that it opened. The alias is that of {@link ARN}. */
function start(allow: readonly string[], more: Partial<ProviderOptions> = {}) {
  const opened: string[] = [];
  const open = async (uri: KeyUri) => {
    const name = formatKeyUri(uri);
    opened.push(name);
    if (uri.scheme === 'awskms') return createTestKek(name === ALIAS ? ARN : name);
    if (uri.scheme === 'azurekms') return createTestKek(name);
    return openKek(uri, { age: { identityFiles: [path('identities')] } });
  };
  const provider = createProvider({
    openKek: open,
    rules: allow.map(parseAllowRule),
    callerKeysAllowed: false,
    names: { configured: undefined, fallback: 'kmscrypt' },
    ...more,
  });
  return {
    opened,
    async wrap(...keys: readonly string[]): Promise<readonly string[]> {
      const reply = await provider.handle(Buffer.from(wrapRequest(keys)));
      const packet = Buffer.from(JSON.parse(Buffer.from(reply).toString()).keywrapresults.annotation, 'base64');
      return JSON.parse(packet.toString()).recipients.map(({ key }: { readonly key: string }) => key);
    },
    async unwrap(packet: Uint8Array, ...keys: readonly string[]): Promise<Buffer> {
      const reply = await provider.handle(Buffer.from(unwrapRequest(packet, keys)));
      return Buffer.from(JSON.parse(Buffer.from(reply).toString()).keyunwrapresults.optsdata, 'base64');
    },
    async packet(...keys: readonly string[]): Promise<Buffer> {
      const reply = await provider.handle(Buffer.from(wrapRequest(keys)));
      return Buffer.from(JSON.parse(Buffer.from(reply).toString()).keywrapresults.annotation, 'base64');
    },
  };
}

test('a file of the operator’s that cannot be used hides no other file, wherever it stands', async () => {
  for (const bad of ['short', 'missing']) {
    const [broken, key, holder] = [bad, 'key', 'identities'].map((name) => `keyfile://${path(name)}`);
    const rules = [broken, key, holder].flatMap((rule) => rule ?? []);
    for (const callerKeysAllowed of [true, false]) {
      for (const name of [thumbprint(KEYFILES.first), second]) {
        const { wrap, packet, unwrap } = start(rules, { callerKeysAllowed });
        assert.deepEqual(await wrap(name), [name]);
        assert.deepEqual(await unwrap(await packet(name), name), OPTSDATA);
      }
    }
    // Its own error is said where it may be why nothing was found.
    const code = bad === 'short' ? 'configuration' : 'not-found';
    await assert.rejects(start(rules).wrap(thumbprint(KEYFILES.second)), { code });
  }
});

test('a recipient of an identity file is what is wrapped to, and what is opened', async () => {
  const { wrap, packet, unwrap } = start([`keyfile://${path('identities')}`]);
  assert.deepEqual(await wrap(second), [second]);
  assert.deepEqual(await wrap(second, first), [second, first]);
  assert.deepEqual(await unwrap(await packet(second), second), OPTSDATA);
  await assert.rejects(unwrap(await packet(second), first), { code: 'not-allowed' });
});

test('an entry that is an alias does not stand for an ARN that a caller names to wrap with', async () => {
  await assert.rejects(start([ALIAS]).wrap(OTHER), { code: 'not-allowed' });
  await assert.rejects(start([ALIAS]).wrap(ARN), { code: 'not-allowed' }, 'only AWS knows');
  assert.deepEqual(await start([ALIAS]).wrap(ALIAS), [ARN]);
  assert.deepEqual(await start([ALIAS, OTHER]).wrap(OTHER), [OTHER]);
  assert.deepEqual(await start([ALIAS], { callerKeysAllowed: true }).wrap(OTHER), [OTHER]);
  const defaultKey = parseKeyUri(ALIAS);
  await assert.rejects(start([ALIAS], { callerKeysAllowed: true, defaultKey }).wrap(OTHER), { code: 'bad-input' });
});

test('by an alias only the ARN that the caller names is opened', async () => {
  const packet = await start([ARN]).packet(ARN);
  for (const more of [{}, { callerKeysAllowed: true }, { defaultKey: parseKeyUri(ALIAS) }]) {
    const named = start([ALIAS], more);
    assert.deepEqual(await named.unwrap(packet, ARN), OPTSDATA);
    assert.deepEqual(named.opened, [ALIAS]);
    await assert.rejects(start([ALIAS], more).unwrap(packet, OTHER), { code: 'not-allowed' });
  }
});

test('the default key is known by a version in any case', async () => {
  const key = 'azurekms://vault.vault.azure.net/k/0123456789abcdef0123456789abcdef';
  const { wrap } = start([key], { defaultKey: parseKeyUri(key) });
  assert.deepEqual(await wrap(key.replace('abcdef', 'ABCDEF')), [key]);
  await assert.rejects(wrap(key.replace('abcdef', 'abcde0')), { code: 'bad-input' });
});
