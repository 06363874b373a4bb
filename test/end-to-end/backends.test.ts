// One image for several kinds of keys, through real skopeo: each key opens it alone, whatever the others do.

import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { test } from 'node:test';
import { generateHybridIdentity, generateX25519Identity, identityToRecipient } from 'age-encryption';
import { startFakeVault } from '../fakes/vault.ts';
import { createCertificateAuthority } from '../fixtures/certificates.ts';
import { writeImage } from '../fixtures/images.ts';
import { createToken, ensureSoftHsm, useTokenStore } from '../fixtures/softhsm.ts';
import { copy, writeOcicryptConfig } from '../real-clients/skopeo.ts';
import { realClients } from '../real-clients/tools.ts';
import {
  assertRefusal,
  createWorkspace,
  digests,
  isEncrypted,
  keyprovider,
  packetsOf,
  readImage,
  succeed,
} from './workspace.ts';

test('an image for Vault, age and a token is opened by each of them alone, with Vault down by the others', async (t) => {
  if (!(await realClients(t, ['skopeo']))) return;
  const hsm = await ensureSoftHsm();
  if ('missing' in hsm) {
    if (process.env.CI === 'true') throw new Error(hsm.missing);
    return t.skip(hsm.missing);
  }
  const { path, oci, directory } = await createWorkspace(t);
  const authority = await createCertificateAuthority(directory);
  const vault = await startFakeVault({ tls: await authority.issue('server') });
  t.after(() => vault.close());
  vault.createKey('transit/images');
  const softhsm = await useTokenStore(directory);
  createToken(hsm, 'end to end', '97531').createAesKey('images');
  await writeFile(path('pin'), '97531\n', { mode: 0o600 });
  const identities = [await generateX25519Identity(), await generateHybridIdentity()];
  await writeFile(path('identity.txt'), `${identities.join('\n')}\n`, { mode: 0o600 });
  const recipients = await Promise.all(identities.map((identity) => identityToRecipient(identity)));

  const vaultEnvironment = {
    VAULT_ADDR: vault.address,
    VAULT_TOKEN: vault.createToken({ 'transit/*': ['update'] }),
    VAULT_CACERT: authority.certificate,
  };
  const token = 'pkcs11:token=end%20to%20end;object=images';
  const tokenOptions = [
    `--pkcs11-module=${hsm.module}`,
    `--pkcs11-binding=${hsm.binding}`,
    `--pkcs11-pin-file=${path('pin')}`,
  ];
  const config = (name: string, ...options: readonly string[]) =>
    writeOcicryptConfig(path(`${name}.json`), { kmscrypt: keyprovider(...options) });
  const source = await writeImage(path('plain'), { layers: [{}, {}] });

  const keys = ['hashivault://images', token, ...recipients];
  await succeed(
    copy(source.reference, oci('encrypted'), {
      env: { ...(await config('build', ...tokenOptions)), ...vaultEnvironment, SOFTHSM2_CONF: softhsm },
      encryptionKeys: keys.map((key) => `provider:kmscrypt:${key}`),
    }),
  );
  const { layers } = await readImage(path('encrypted'));
  for (const layer of layers) {
    assert.ok(isEncrypted(layer));
    assert.equal(packetsOf(layer).length, 1);
  }

  // A node names no key, as containerd does: each has only what its operator gave it.
  const nodes = {
    vault: { ...(await config('vault', '--allow=hashivault://images')), ...vaultEnvironment },
    token: { ...(await config('token', `--allow=${token}`, ...tokenOptions)), SOFTHSM2_CONF: softhsm },
    age: await config('age', `--key=${path('identity.txt')}`),
  };
  const open = (name: string, env: Readonly<Record<string, string>>) =>
    copy(oci('encrypted'), oci(name), { env, decryptionKeys: ['provider:kmscrypt'] });
  for (const [name, env] of Object.entries(nodes)) {
    await succeed(open(name, env));
    assert.deepEqual(digests((await readImage(path(name))).layers), digests(source.images[0].layers));
  }

  vault.sealed = true;
  await succeed(open('token-again', nodes.token));
  await succeed(open('age-again', nodes.age));
  assertRefusal(await open('vault-again', nodes.vault), 'unavailable', 'hashivault://images');
  vault.sealed = false;
  vault.setDenied('transit/decrypt/images');
  assertRefusal(await open('vault-denied', nodes.vault), 'refused', 'hashivault://images', 'transit/decrypt/images');
});
