// Keys of clouds through the executable, which finds each service by the name that the cloud gave it.
import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { startFakeAwsKms } from '../fakes/aws-kms.ts';
import { startFakeAzureVault } from '../fakes/azure-key-vault.ts';
import { GoogleIdentities } from '../fakes/google-identities.ts';
import { startFakeGoogleKms } from '../fakes/google-kms.ts';
import { type CertificateAuthority, createCertificateAuthority } from '../fixtures/certificates.ts';
import { type ExecutableName, runExecutable } from '../fixtures/executable.ts';
import { KEYFILES } from '../fixtures/packets.ts';
import { startProxy } from '../fixtures/proxy.ts';
import { REPLY, unwrapRequest, wrapRequest } from '../fixtures/vectors/shape.ts';

type Environment = Readonly<Record<string, string>>;
type Call = { readonly key: string; readonly words?: readonly string[]; readonly environment?: Environment };

let directory: string;
let authority: CertificateAuthority;
before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'clouds-'));
  authority = await createCertificateAuthority(directory);
});
after(() => rm(directory, { recursive: true, force: true }));

async function ask(input: Uint8Array | string, { key, words = [], environment = {} }: Call, name?: ExecutableName) {
  const door = name === 'kms_oci_crypt' ? [] : ['keyprovider'];
  const { status, stdout, stderr } = await runExecutable([...door, `--allow=${key}`, ...words], {
    input,
    environment: { SSL_CERT_FILE: authority.certificate, ...environment },
    ...(name === undefined ? {} : { name }),
  });
  assert.equal(status, 0, stderr);
  return stdout.toString();
}

/** Wraps, and unwraps from the packet alone, as containerd asks for it. @returns the packet */
async function roundTrip(call: Call, name?: ExecutableName) {
  const reply = await ask(wrapRequest([call.key]), call, name);
  const packet = Buffer.from(JSON.parse(reply).keywrapresults.annotation, 'base64');
  assert.equal(await ask(unwrapRequest(packet), call, name), REPLY);
  return JSON.parse(packet.toString());
}

describe('AWS KMS', () => {
  for (const [what, host, environment] of [
    ['in its region', 'kms.eu-west-1.amazonaws.com', {}],
    ['with FIPS', 'kms-fips.eu-west-1.amazonaws.com', { AWS_USE_FIPS_ENDPOINT: 'true' }],
    ['over IPv6 too', 'kms.eu-west-1.api.aws', { AWS_USE_DUALSTACK_ENDPOINT: 'true' }],
  ] as const) {
    test(`is found ${what}`, async (t) => {
      const kms = await startFakeAwsKms({ tls: await authority.issue(host, { names: [host] }) });
      t.after(() => kms.close());
      const HTTPS_PROXY = await startProxy(t, { [`${host}:443`]: Number(new URL(kms.endpoint).port) });
      const { id: AWS_ACCESS_KEY_ID, secret: AWS_SECRET_ACCESS_KEY } = kms.accessKey;
      const key = kms.createKey();
      await roundTrip({ key, environment: { ...environment, HTTPS_PROXY, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY } });
    });
  }
});

describe('Azure', () => {
  for (const [host, login, type, operations, algorithm] of [
    ['acme.vault.azure.net', 'login.microsoftonline.com', 'RSA', undefined, 'RSA-OAEP-256'],
    ['acme.vault.azure.cn', 'login.chinacloudapi.cn', 'RSA', undefined, 'RSA-OAEP-256'],
    ['acme.vault.usgovcloudapi.net', 'login.microsoftonline.us', 'RSA', undefined, 'RSA-OAEP-256'],
    ['acme.managedhsm.azure.net', 'login.microsoftonline.com', 'oct-HSM', undefined, 'A256GCM'],
    ['acme.managedhsm.usgovcloudapi.net', 'login.microsoftonline.us', 'oct-HSM', ['wrapKey', 'unwrapKey'], 'A256KW'],
  ] as const) {
    test(`keys of ${host} are used with tokens of ${login}: ${algorithm}`, async (t) => {
      const tls = await authority.issue(host, { names: [host, login] });
      const vault = await startFakeAzureVault({ tls, host });
      t.after(() => vault.close());
      vault.createKey('images', { type, ...(operations === undefined ? {} : { operations }) });
      const { port } = vault.server;
      const environment = {
        HTTPS_PROXY: await startProxy(t, { [`${host}:443`]: port, [`${login}:443`]: port }),
        AZURE_TENANT_ID: vault.tenant,
        AZURE_CLIENT_ID: vault.client.id,
        AZURE_CLIENT_SECRET: vault.client.secret,
      };
      const { recipients } = await roundTrip({ key: `azurekms://${host}/images`, environment });
      assert.equal(recipients[0].algorithm, algorithm);
    });
  }
});

test('an asymmetric Google key wraps here and unwraps there, through both names', async (t) => {
  const identities = new GoogleIdentities();
  const account = identities.createServiceAccount('builder', 'acme');
  const kms = await startFakeGoogleKms(identities, { tls: await authority.issue('google') });
  t.after(() => kms.close());
  const name = 'projects/acme/locations/global/keyRings/r/cryptoKeys/rsa';
  kms.createAsymmetricKey(name, 'RSA_DECRYPT_OAEP_3072_SHA256');
  const adc = join(directory, 'adc.json');
  await writeFile(adc, JSON.stringify(account), { mode: 0o600 });
  const words = [`--adc=${adc}`, `--gcp-endpoint=${kms.endpoint}`];
  for (const command of ['ocicrypt-kms', 'kms_oci_crypt'] as const) {
    const packet = await roundTrip({ key: `gcpkms://${name}`, words }, command);
    assert.equal(packet.recipients[0].algorithm, 'RSA_DECRYPT_OAEP_3072_SHA256');
  }
});

test('clients written in Rust get their bytes as numbers', async () => {
  const file = join(directory, 'local.key');
  await writeFile(file, KEYFILES.first, { mode: 0o600 });
  const call = { key: `keyfile://${file}`, words: ['--bytes=array'] };
  const { annotation } = JSON.parse(await ask(wrapRequest([call.key]), call)).keywrapresults;
  assert.ok(annotation.every((byte: unknown) => Number.isInteger(byte)));
  const reply = JSON.parse(await ask(unwrapRequest(Buffer.from(annotation)), call));
  const { optsdata } = JSON.parse(REPLY).keyunwrapresults;
  assert.deepEqual(Buffer.from(reply.keyunwrapresults.optsdata), Buffer.from(optsdata, 'base64'));
});
