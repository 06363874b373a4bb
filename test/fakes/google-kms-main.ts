/**
 * A Google Cloud KMS to try things with, for those who have no cloud:
 *
 *     node test/fakes/google-kms-main.ts [KEY…]
 *
 * It makes the keys (projects/…/cryptoKeys/…, one named "key" where none is given), a certificate authority and the key
 * file of a service account, prints how to use them, and runs until it is interrupted. Everything is thrown away then.
 */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createCertificateAuthority } from '../fixtures/certificates.ts';
import { GoogleIdentities } from './google-identities.ts';
import { startFakeGoogleKms } from './google-kms.ts';

const named = process.argv.slice(2).map((key) => key.replace(/^gcpkms:\/\//, ''));
const keys = named.length > 0 ? named : ['projects/test-project/locations/global/keyRings/ring/cryptoKeys/key'];

const directory = await mkdtemp(join(tmpdir(), 'fake-google-kms-'));
const authority = await createCertificateAuthority(directory);
const identities = new GoogleIdentities();
const credentials = join(directory, 'adc.json');
await writeFile(credentials, JSON.stringify(identities.createServiceAccount('wrapper')), { mode: 0o600 });
const kms = await startFakeGoogleKms(identities, { tls: await authority.issue('server') });
for (const key of keys) kms.createKey(key);

process.stdout.write(`endpoint     ${kms.endpoint}
CA           ${authority.certificate}
credentials  ${credentials}
${keys.map((key) => `key          gcpkms://${key}\n`).join('')}
ocicrypt-kms doctor gcpkms://${keys[0]} --adc ${credentials} --gcp-endpoint ${kms.endpoint} --ca ${authority.certificate}
`);

for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.once(signal, async () => {
    await kms.close();
    await rm(directory, { recursive: true, force: true });
  });
}
