/** A fake Google KMS with two keys, somebody who may use them, and a way to open them: for the tests of gcpkms. */
import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseKeyUri } from '../../../src/base/key-uri.ts';
import { type GcpKmsSettings, openGcpKms } from '../../../src/kms/gcpkms/key.ts';
import type { Kek } from '../../../src/kms/kek.ts';
import { GoogleIdentities, type ServiceAccountFile } from '../../fakes/google-identities.ts';
import { type FakeGoogleKms, startFakeGoogleKms } from '../../fakes/google-kms.ts';
import { createCertificateAuthority } from '../../fixtures/certificates.ts';

export const RING = 'projects/test-project/locations/europe-west1/keyRings/ring';
export const FIRST = `${RING}/cryptoKeys/first`;
export const SECOND = `${RING}/cryptoKeys/second`;

export type World = {
  readonly directory: string;
  readonly identities: GoogleIdentities;
  readonly account: ServiceAccountFile;
  readonly kms: FakeGoogleKms;
  /** `--adc`, `--ca`, `--gcp-endpoint`. */
  readonly words: readonly string[];
  /** Each time anew; `now` is its clock. */
  readonly open: (key: string, more?: Partial<GcpKmsSettings>, now?: () => number) => Kek;
  readonly close: () => Promise<void>;
};

export async function startWorld(): Promise<World> {
  const directory = await mkdtemp(join(tmpdir(), 'gcpkms-'));
  const authority = await createCertificateAuthority(directory);
  const identities = new GoogleIdentities();
  const account = identities.createServiceAccount('wrapper');
  const credentialsFile = join(directory, 'adc.json');
  await writeFile(credentialsFile, JSON.stringify(account), { mode: 0o600 });
  const kms = await startFakeGoogleKms(identities, { tls: await authority.issue('server') });
  kms.createKey(FIRST);
  kms.createKey(SECOND);
  const opened: Kek[] = [];
  return {
    directory,
    identities,
    account,
    kms,
    words: [`--adc=${credentialsFile}`, `--ca=${authority.certificate}`, `--gcp-endpoint=${kms.endpoint}`],
    open(key, more = {}, now) {
      const uri = parseKeyUri(key);
      assert.ok(uri.scheme === 'gcpkms');
      const caFiles = [authority.certificate];
      const settings = { credentialsFile, endpoint: kms.endpoint, caFiles, environment: {}, ...more };
      const kek = openGcpKms(uri, settings, now);
      opened.push(kek);
      return kek;
    },
    async close() {
      for (const kek of opened) kek.close?.();
      await kms.close();
      await rm(directory, { recursive: true, force: true });
    },
  };
}

/** An answer as Google refuses. */
export function refusal(status: number, rpc: string, message: string, reason = '') {
  const details = reason === '' ? [] : [{ '@type': 'type.googleapis.com/google.rpc.ErrorInfo', reason }];
  return { status, body: JSON.stringify({ error: { code: status, message, status: rpc, details } }) };
}
