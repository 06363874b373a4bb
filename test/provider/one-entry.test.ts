// One entry for a key, and labels that no packet can have: what only the keys themselves or the library's caller tell.
import assert from 'node:assert/strict';
import { linkSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { createKekStore } from '../../src/kms/store.ts';
import { createProvider, type ProviderOptions } from '../../src/provider/handle.ts';
import { AGE, KEYFILES, OPTSDATA, thumbprint } from '../fixtures/packets.ts';
import { unwrapRequest, wrapRequest } from '../fixtures/vectors/shape.ts';

const directory = mkdtempSync(join(tmpdir(), 'one-entry-'));
after(() => rmSync(directory, { recursive: true, force: true }));
const path = (name: string) => join(directory, name);
writeFileSync(path('key'), KEYFILES.first, { mode: 0o600 });
writeFileSync(path('copy'), KEYFILES.first, { mode: 0o600 });
writeFileSync(path('other'), KEYFILES.second, { mode: 0o600 });
writeFileSync(path('identity'), `${AGE.identity}\n`, { mode: 0o600 });
symlinkSync('key', path('link'));
linkSync(path('key'), path('hard'));

function provider(more: Partial<ProviderOptions> = {}) {
  const keks = createKekStore({ age: { identityFiles: [path('identity')] } });
  return createProvider({
    openKek: (uri) => keks.open(uri),
    rules: [],
    callerKeysAllowed: true,
    names: { configured: undefined, fallback: 'kmscrypt' },
    ...more,
  });
}

test('a key file by several paths, and an identity file beside its own recipient, have one entry each', async () => {
  const files = ['link', 'key', 'copy', 'hard', 'identity', 'other'].map((name) => `keyfile://${path(name)}`);
  const reply = await provider().handle(Buffer.from(wrapRequest([...files, AGE.recipient])));
  const packet = Buffer.from(JSON.parse(Buffer.from(reply).toString()).keywrapresults.annotation, 'base64');
  const keys = JSON.parse(packet.toString()).recipients.map(({ key }: { readonly key: string }) => key);
  assert.deepEqual(keys, [thumbprint(KEYFILES.first), AGE.recipient, thumbprint(KEYFILES.second)]);
  for (const name of ['copy', 'other', 'identity']) {
    const request = unwrapRequest(packet, [`keyfile://${path(name)}`]);
    const rules = [{ kind: 'key', uri: { scheme: 'keyfile', path: path(name) } }] as const;
    const opened = await provider({ rules }).handle(Buffer.from(request));
    const { optsdata } = JSON.parse(Buffer.from(opened).toString()).keyunwrapresults;
    assert.deepEqual(Buffer.from(optsdata, 'base64'), OPTSDATA);
  }
});

test('a provider is not made with labels that no packet can have', () => {
  provider({ labels: { env: 'prod' } });
  for (const labels of [{ 'a b': 'x' }, { env: 'ü' }, { env: '' }, { env: ' x' }, { '': 'x' }]) {
    assert.throws(() => provider({ labels }), { code: 'usage' }, JSON.stringify(labels));
  }
});
