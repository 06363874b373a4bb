// P14: a listening trap stands on every endpoint that a packet or caller names, and on the operator's own; nothing arrives.
import assert from 'node:assert/strict';
import { createServer, type Server } from 'node:net';
import { after, before, describe, test } from 'node:test';
import { runExecutable } from '../fixtures/executable.ts';
import { canonicalJson, GOOGLE, googleEntry, KEYFILES, keyfileEntry, sealMembers } from '../fixtures/packets.ts';
import { makeKeyDirectory } from '../fixtures/provider.ts';
import { base64, unwrapRequest, wrapRequest } from '../fixtures/vectors/shape.ts';

const keys = makeKeyDirectory();
let trap: Server;
let port = 0;
let connections = 0;
let bytes = 0;

before(async () => {
  trap = createServer((socket) => {
    connections++;
    socket.on('data', (chunk) => {
      bytes += chunk.length;
    });
    socket.on('error', () => {});
  });
  await new Promise<void>((resolve) => trap.listen(0, '127.0.0.1', resolve));
  const address = trap.address();
  assert.ok(typeof address === 'object' && address !== null);
  port = address.port;
});
after(() => {
  trap.close();
  keys.remove();
});

const GCP = `gcpkms://${GOOGLE.first.name}`;
const ARN = 'arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab';
const OTHER = 'gcpkms://projects/mine/locations/global/keyRings/r/cryptoKeys/k';

function v1(members: Readonly<Record<string, string>>): string {
  return unwrapRequest(JSON.stringify({ wrapped_key: 'AAAA', wrap_type: 'AES', ...members }));
}

function v2(key: string): string {
  const { version: _, ...entry } = googleEntry(GOOGLE.first);
  return unwrapRequest(canonicalJson(sealMembers({ recipients: [{ ...entry, key }] })));
}

/** Requests by what they try; `HOST` is where the trap listens. */
const HOSTILE: Readonly<Record<string, (host: string) => string>> = {
  'v1 with a Google key': () => v1({ key_url: GCP }),
  'v2 with a Google key': () => v2(GCP),
  'v1 with an endpoint of AWS': (host) => v1({ key_url: `awskms://${host}/${ARN}` }),
  'v1 with a key of AWS': () => v1({ key_url: `awskms:///${ARN}` }),
  'v2 with a key of AWS': () => v2(`awskms:///${ARN}`),
  'v1 with a vault on Azure': (host) => v1({ key_url: `https://${host}/keys/k` }),
  'v2 with a vault on Azure': () => v2('azurekms://localhost.localdomain/k'),
  'v1 with a Vault server': (host) => v1({ key_url: `https://${host}/v1/transit/keys/k` }),
  'v2 with a key of Vault': () => v2('hashivault://k'),
  'v1 with a plain address': (host) => v1({ key_url: `http://${host}/` }),
  'v1 with the address of metadata': () => v1({ key_url: 'http://169.254.169.254/latest' }),
  'the endpoints of Microsoft’s provider': (host) => v1({ key_url: GCP, kms_endpoint: host, attester_endpoint: host }),
  'a broker of Confidential Containers': (host) => v1({ key_url: `kbs://${host}/a/b/c` }),
  'settings of Confidential Containers': (host) =>
    unwrapRequest(
      JSON.stringify({
        kid: 'k',
        wrapped_data: 'AAAA',
        version: '0.1.0',
        provider: 'aws',
        provider_settings: { region: 'us-east-1', endpoint: host },
      }),
    ),
  'a denied key beside an allowed key file that fails': () =>
    unwrapRequest(
      canonicalJson(sealMembers({ recipients: [googleEntry(GOOGLE.first), keyfileEntry(KEYFILES.second)] })),
    ),
  'a caller that names an endpoint': (host) => wrapRequest([`awskms://${host}/${ARN}`]),
  'a caller that narrows to another key': () =>
    unwrapRequest(canonicalJson(sealMembers({ recipients: [googleEntry(GOOGLE.first)] })), [OTHER]),
  'another name that carries the key': (host) =>
    v1({ key_url: GCP }).replace(
      '"Parameters":null',
      `"Parameters":{"one":["${base64(GCP)}"],"two":["${base64(`awskms://${host}/alias/a`)}"]}`,
    ),
};

describe('P14 for every denied key', () => {
  for (const [name, request] of Object.entries(HOSTILE)) {
    test(`P14 0 bytes leave the host: ${name}`, async () => {
      const host = `127.0.0.1:${port}`;
      const environment = {
        HTTPS_PROXY: `http://${host}`,
        HTTP_PROXY: `http://${host}`,
        https_proxy: `http://${host}`,
        VAULT_ADDR: `https://${host}`,
        VAULT_TOKEN: 'token',
        AWS_ENDPOINT_URL: `https://${host}`,
        AWS_ACCESS_KEY_ID: 'id',
        AWS_SECRET_ACCESS_KEY: 'secret',
        AWS_REGION: 'us-east-1',
        GCE_METADATA_HOST: host,
      };
      const words = [
        'keyprovider',
        `--allow=${OTHER}`,
        `--key=${keys.file('first')}`,
        `--gcp-endpoint=https://${host}`,
      ];
      const { status, stdout, stderr } = await runExecutable(words, { input: request(host), environment });
      assert.ok(status === 77 || status === 65, stderr);
      assert.equal(stdout.length, 0);
      assert.deepEqual([connections, bytes], [0, 0]);
    });
  }

  test('P14 the trap catches what is allowed, so it would have caught the others', async () => {
    const host = `127.0.0.1:${port}`;
    const words = ['keyprovider', `--allow=${GCP}`, '--gcp-endpoint', `https://${host}`, '--timeout=3s'];
    const { status } = await runExecutable(words, { input: v2(GCP), environment: { GCE_METADATA_HOST: host } });
    assert.notEqual(status, 0);
    assert.ok(connections > 0 && bytes > 0);
  });
});
