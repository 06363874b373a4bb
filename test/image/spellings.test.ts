/** What clients written in Go read beside us: a member is found as they find it, and in two spellings by nobody. */
import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { packTar } from 'modern-tar';
import { describePacket } from '../../src/image/model/packets.ts';
import { parseImageReference } from '../../src/image/model/reference.ts';
import { openImageSource } from '../../src/image/transports/open.ts';
import { findCredentials } from '../../src/image/transports/registry/credentials.ts';
import { decodePacket } from '../../src/provider/packet.ts';
import { digestOf, rejects, scratch } from './harness.ts';

test('an auth file is read in any spelling, and in two it is refused', async (t) => {
  const file = join(await scratch(t), 'auth.json');
  const row = { auth: Buffer.from('me:secret').toString('base64') };
  const find = async (json: object) => {
    await writeFile(file, JSON.stringify(json));
    return findCredentials('registry.example', 'app', { authFile: file });
  };
  const found = { kind: 'password', username: 'me', password: 'secret' };
  for (const name of ['auths', 'Auths', 'auth\u017f']) {
    assert.deepEqual(await find({ [name]: { 'registry.example': row } }), found, name);
  }
  await rejects('configuration', find({ auths: { 'registry.example': row }, Auths: {} }));
  await rejects('configuration', find({ auths: { 'registry.example': { ...row, AUTH: 'x' } } }));
});

test('the manifest.json of docker save is read in any spelling, and in two it is refused', async (t) => {
  const path = join(await scratch(t), 'saved.tar');
  const layer = await packTar([{ header: { name: 'a', size: 1 }, body: 'a' }]);
  const config = JSON.stringify({ rootfs: { type: 'layers', diff_ids: [digestOf(layer)] } });
  const read = async (entry: object) => {
    const manifest = Buffer.from(JSON.stringify([entry]));
    await writeFile(
      path,
      await packTar([
        { header: { name: 'manifest.json', size: manifest.length }, body: manifest },
        { header: { name: 'c.json', size: config.length }, body: config },
        { header: { name: 'l.tar', size: layer.length }, body: layer },
      ]),
    );
    const source = openImageSource(parseImageReference(`docker-archive:${path}`));
    try {
      return await source.readRoot();
    } finally {
      await source.close();
    }
  };
  const { digest } = await read({ Config: 'c.json', Layers: ['l.tar'] });
  assert.equal((await read({ config: 'c.json', 'layer\u017f': ['l.tar'] })).digest, digest);
  await rejects('bad-input', read({ Config: 'c.json', Layers: ['l.tar'], layers: [] }));
});

test('a packet of the reference provider names one key to all readers', () => {
  const packet = {
    key_url: 'gcpkms://projects/p/locations/l/keyRings/r/cryptoKeys/k',
    wrapped_key: 'AAAA',
    wrap_type: 'AES',
  };
  for (const name of ['Key_url', '\u212aey_url', 'KEY_URL', 'Wrapped_key', 'wrap_Type']) {
    const bytes = Buffer.from(
      JSON.stringify({ ...packet, [name]: 'gcpkms://projects/p/locations/l/keyRings/r/cryptoKeys/other' }),
    );
    assert.throws(() => decodePacket(bytes), { code: 'bad-input' }, name);
    assert.deepEqual(describePacket({ scheme: 'provider.x', packet: bytes }).recipients, [], name);
  }
});
