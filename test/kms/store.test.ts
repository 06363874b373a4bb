// Keys that are kept open: how many, and what happens to those that make room while somebody still uses them.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { parseKeyUri } from '../../src/base/key-uri.ts';
import type { Kek } from '../../src/kms/kek.ts';
import { createKeyfile } from '../../src/kms/keyfile/key.ts';
import type { BackendSettings } from '../../src/kms/open.ts';
import { createKekStore, type KekStore } from '../../src/kms/store.ts';
import { type FakeVault, startFakeVault } from '../fakes/vault.ts';
import { createCertificateAuthority } from '../fixtures/certificates.ts';
import { soon } from './expect.ts';

/** As many as a store keeps open. */
const MAXIMUM = 256;

describe('a store of keys', () => {
  let directory = '';
  let vault: FakeVault;
  let settings: BackendSettings;
  before(async () => {
    directory = await mkdtemp(join(tmpdir(), 'store-'));
    const authority = await createCertificateAuthority(directory);
    vault = await startFakeVault({ tls: await authority.issue('server') });
    for (const name of ['one', 'two']) vault.createKey(`transit/${name}`);
    const VAULT_TOKEN = vault.createToken({ 'transit/*': ['update'] });
    const environment = { VAULT_ADDR: vault.address, VAULT_TOKEN, VAULT_CACERT: authority.certificate };
    settings = {
      age: { identityFiles: [] },
      awskms: { environment },
      azurekms: { environment },
      gcpkms: { environment },
      hashivault: { environment },
      kbs: { files: new Map() },
      pkcs11: { modules: [], oaepSha1: false, environment },
    };
  });
  after(async () => {
    await vault.close();
    await rm(directory, { recursive: true, force: true });
  });

  const open = (store: KekStore, key: string) => store.open(parseKeyUri(key));
  /** Opens keys that nobody asks anything. */
  async function fill(store: KekStore, count: number): Promise<void> {
    for (let index = 0; index < count; index++) await open(store, `hashivault://filler-${index}`);
  }
  /** Bun keeps connections for the whole process, whoever closes what. */
  async function hasNoConnections(): Promise<void> {
    if ('bun' in process.versions) return;
    for (let wait = 0; vault.server.openConnections > 0 && wait < 500; wait++) await pause(10);
    assert.equal(vault.server.openConnections, 0);
  }

  test('gives the same key for the same name, and opens it once', async () => {
    const store = createKekStore(settings);
    const keks = await Promise.all([open(store, 'hashivault://one'), open(store, 'openbao://one')]);
    assert.equal(keks[0], keks[1]);
    assert.notEqual(await open(store, 'hashivault://two'), keks[0]);
    await store.close();
  });

  test('keeps apart what differs in what only the operator sets', async () => {
    const store = createKekStore(settings);
    const key = '1234abcd-12ab-34cd-56ef-1234567890ab';
    const names = [
      ...['', 'one.example', 'two.example'].map((host) => `awskms://${host}/${key}`),
      ...['', '?module-path=/one.so', '?module-path=/two.so', ';slot-id=1'].map((more) => `pkcs11:object=o${more}`),
    ];
    const opened = [...names, ...names].map((name) => open(store, name));
    assert.equal(new Set(opened).size, names.length);
    await Promise.allSettled(opened);
    await store.close();
  });

  test('is closed once all that was being opened is', async () => {
    const store = createKekStore(settings);
    let opened = false;
    const opening = open(store, 'hashivault://one').then((kek) => {
      opened = true;
      return kek;
    });
    await store.close();
    assert.ok(opened);
    (await opening).close?.();
  });

  test('does not remember that a key could not be opened', async () => {
    const store = createKekStore(settings);
    const file = join(directory, 'late.key');
    await assert.rejects(open(store, `keyfile://${file}`), { code: 'not-found' });
    createKeyfile(file);
    await roundTrip(await open(store, `keyfile://${file}`));
    await store.close();
  });

  test('closes the key that was asked for longest ago, and no other', async () => {
    const store = createKekStore(settings);
    const files = ['one', 'two'].map((name) => join(directory, name));
    for (const file of files) createKeyfile(file);
    const [one, two] = await Promise.all(files.map((file) => open(store, `keyfile://${file}`)));
    assert.ok(one && two);
    await open(store, `keyfile://${files[0]}`);
    await fill(store, MAXIMUM - 1);
    // What is closed needs its file again.
    for (const file of files) await rm(file);
    await roundTrip(one);
    await assert.rejects(two.wrap(randomBytes(32), {}, soon()), { code: 'not-found' });
    await store.close();
    await assert.rejects(one.wrap(randomBytes(32), {}, soon()), { code: 'not-found' });
  });

  test('lets a call end first', async () => {
    const store = createKekStore(settings);
    const kek = await open(store, 'hashivault://one');
    const arrived = Promise.withResolvers<void>();
    vault.server.setFault(() => {
      arrived.resolve();
      return { kind: 'latency', milliseconds: 100 };
    });
    const wrapping = kek.wrap(randomBytes(32), {}, soon());
    await arrived.promise;
    vault.server.setFault(undefined);
    await fill(store, MAXIMUM);
    assert.equal((await wrapping).key, 'hashivault://one');
    await hasNoConnections();
    await store.close();
  });

  test('opens it anew for whoever had it before, and closes it again', async () => {
    const store = createKekStore(settings);
    const file = join(directory, 'dropped.key');
    createKeyfile(file);
    const [local, remote] = [await open(store, `keyfile://${file}`), await open(store, 'hashivault://one')];
    const wrapped = await local.wrap(randomBytes(32), {}, soon());
    await fill(store, MAXIMUM);
    await local.unwrap(wrapped, {}, soon());
    await roundTrip(local);
    await roundTrip(remote);
    await hasNoConnections();
    await rm(file);
    await assert.rejects(local.unwrap(wrapped, {}, soon()), { code: 'not-found' });
    await store.close();
  });
});

async function roundTrip(kek: Kek): Promise<void> {
  const plaintext = randomBytes(32);
  const wrapped = await kek.wrap(plaintext, {}, soon());
  assert.deepEqual(Buffer.from(await kek.unwrap(wrapped, {}, soon())), plaintext);
}
