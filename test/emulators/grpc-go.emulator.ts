// The gRPC of Go, which ocicrypt's clients are linked with, as a client of the executable: a unix socket and mutual TLS.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { createCertificateAuthority } from '../fixtures/certificates.ts';
import { OPTSDATA } from '../fixtures/packets.ts';
import { makeKeyDirectory } from '../fixtures/provider.ts';
import { serve } from '../fixtures/serve.ts';
import { base64, REPLY, unwrapRequest, wrapRequest } from '../fixtures/vectors/shape.ts';
import { buildGrpcGo } from '../peers/grpc-go.ts';
import { runClient } from '../real-clients/process.ts';

const directory = mkdtempSync(join(tmpdir(), 'grpc-go-'));
const keys = makeKeyDirectory();
const KEY = `--key=${keys.file('first')}`;
let program = '';
before(async () => {
  program = await buildGrpcGo();
});
after(() => {
  keys.remove();
  rmSync(directory, { recursive: true, force: true });
});

async function call(target: string, method: string, request: string, tls: readonly string[] = []) {
  const stdin = new TextEncoder().encode(request);
  const { exitCode, stdout, stderr } = await runClient([program, 'call', target, method, ...tls], { stdin });
  return { exitCode, reply: new TextDecoder().decode(stdout).trim(), stderr };
}

/** A layer key goes in and comes out again. */
async function roundTrip(target: string, tls: readonly string[] = []): Promise<void> {
  const wrapped = await call(target, 'WrapKey', wrapRequest(['Enabled']), tls);
  assert.equal(wrapped.exitCode, 0, wrapped.reply + wrapped.stderr);
  const annotation = Buffer.from(JSON.parse(wrapped.reply).keywrapresults.annotation, 'base64');
  const unwrapped = await call(target, 'UnWrapKey', unwrapRequest(annotation), tls);
  assert.deepEqual([unwrapped.exitCode, unwrapped.reply], [0, REPLY], unwrapped.stderr);
  assert.equal(JSON.parse(unwrapped.reply).keyunwrapresults.optsdata, base64(OPTSDATA));
}

describe('a client of grpc-go', () => {
  test('over a unix socket: wraps, unwraps, and gets statuses', async (t) => {
    const { addresses } = await serve(t, [`--listen=unix://${directory}/s`, KEY, '--provider=kmscrypt']);
    const [address = ''] = addresses;
    await roundTrip(address);
    assert.deepEqual(await call(address, 'UnWrapKey', '{}'), { exitCode: 1, reply: '3', stderr: '' });
    assert.equal((await call(address, 'Other', '{}')).reply, '12');
    const foreign = wrapRequest(['gcpkms://projects/p/locations/l/keyRings/r/cryptoKeys/k']);
    assert.equal((await call(address, 'WrapKey', foreign)).reply, '7');
  });

  test('over TLS with its certificate, and not with another', async (t) => {
    const authority = await createCertificateAuthority(directory);
    const server = await authority.issue('server');
    const client = await authority.issue('client', { names: ['builder.example'] });
    const stranger = await authority.issue('stranger', { names: ['stranger.example'] });
    const { addresses } = await serve(t, [
      ...['--listen=tls://127.0.0.1:0', KEY, '--provider=kmscrypt', '--allow-client=builder.example'],
      ...[`--tls-cert=${server.certificate}`, `--tls-key=${server.privateKey}`],
      `--tls-client-ca=${authority.certificate}`,
    ]);
    const target = (addresses[0] ?? '').replace('tls://', '');
    const as = ({ certificate, privateKey }: typeof client) => [authority.certificate, certificate, privateKey];
    await roundTrip(target, as(client));
    const refused = await call(target, 'UnWrapKey', '{}', as(stranger));
    assert.deepEqual([refused.exitCode, refused.reply], [1, '7']);
  });
});
