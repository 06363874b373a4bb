// P7 P20: the HTTP/2 clients and the TLS scanner of others, against the executable.
import assert from 'node:assert/strict';
import { existsSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import { decodeBytesField, encodeBytesField, encodeFrame, FRAME_HEADER } from '../../../src/base/grpc.ts';
import { createCertificateAuthority } from '../../fixtures/certificates.ts';
import { proving, wide } from '../../fixtures/seed.ts';
import { EXECUTABLE } from '../../fixtures/serve.ts';
import { runClient } from '../../real-clients/process.ts';
import { realClients, toolArgv } from '../../real-clients/tools.ts';
import { callKeyProvider, temporaryDirectory, unwrapRequest, wrapRequest } from '../../server/running.ts';
import { startSubject } from './served.ts';

const METHOD = 'keyprovider.KeyProviderService/UnWrapKey';
const HEADERS = ['-H', 'content-type: application/grpc', '-H', 'te: trailers'];

/** A file that holds what a call sends. */
function writeCall(directory: string, request: Uint8Array): string {
  const file = join(directory, 'call');
  writeFileSync(file, encodeFrame(encodeBytesField(request)));
  return file;
}

/** A server with TLS, and the port of it. */
async function startTls(t: TestContext, words: readonly string[] = []) {
  const authority = await createCertificateAuthority(await temporaryDirectory(t));
  const { certificate, privateKey } = await authority.issue('server');
  const tls = await startSubject(t, EXECUTABLE, {
    words: ['--listen=tls://127.0.0.1:0', `--tls-cert=${certificate}`, `--tls-key=${privateKey}`, ...words],
  });
  const port =
    tls.addresses
      .find((address) => address.startsWith('tls:'))
      ?.split(':')
      .at(-1) ?? '';
  return { ...tls, port };
}

describe('P7 h2load', () => {
  for (const [name, clients, streams] of [
    ['8 connections with 32 calls each', 8, 32],
    ['200 connections with a call each', 200, 1],
  ] as const) {
    test(name, async (t) => {
      if (!(await realClients(t, ['h2load']))) return;
      const { path, target, directory, sample } = await startSubject(t, EXECUTABLE);
      const call = writeCall(directory, unwrapRequest(await callKeyProvider(target, wrapRequest())));
      const { stdout, stderr } = await runClient([
        ...(await toolArgv('h2load')),
        ...['-n', '2000', '-c', String(clients), '-m', String(streams), `--base-uri=unix:${path}`, '-d', call],
        ...[...HEADERS, `http://localhost/${METHOD}`],
      ]);
      assert.match(new TextDecoder().decode(stdout), / 2000 succeeded, 0 failed, 0 errored, 0 timeout/, stderr);
      assert.equal(await sample('ocicrypt_kms_calls_total', /status="OK"/), 2001);
    });
  }
});

test('P20 nghttp gets a layer key over TLS with its certificate, and nothing without', async (t) => {
  if (!(await realClients(t, ['nghttp']))) return;
  const directory = await temporaryDirectory(t);
  const clients = await createCertificateAuthority(directory, 'clients');
  const server = await startTls(t, [`--tls-client-ca=${clients.certificate}`]);
  const call = writeCall(directory, unwrapRequest(await callKeyProvider(server.target, wrapRequest())));
  const { certificate, privateKey } = await clients.issue('client', { names: ['a.example'] });
  const nghttp = async (words: readonly string[]) => {
    const url = `https://127.0.0.1:${server.port}/${METHOD}`;
    return runClient([...(await toolArgv('nghttp')), ...words, '-d', call, ...HEADERS, url]);
  };
  const { stdout } = await nghttp(['--cert', certificate, '--key', privateKey]);
  const reply = JSON.parse(new TextDecoder().decode(decodeBytesField(stdout.subarray(FRAME_HEADER))));
  assert.ok(reply.keyunwrapresults.optsdata.length > 0);
  assert.equal((await nghttp([])).stdout.length, 0);
});

describe('P20 testssl.sh has nothing to say', () => {
  // Every check takes half a minute; the protocols alone ten seconds, for which npm test has no time.
  const checks = proving ? ['-p', '-s', '-f', '-P', '-S', '-U'] : ['-p'];
  for (const minimum of proving ? ['1.3', '1.2'] : wide ? ['1.2'] : []) {
    test(`where TLS ${minimum} is the oldest`, async (t) => {
      if (!(await realClients(t, ['testssl', 'busybox']))) return;
      const { directory, port } = await startTls(t, ['--insecure-any-client', `--tls-min=${minimum}`]);
      // It wants to be able to look up names, which it does not have to.
      const [busybox] = await toolArgv('busybox');
      symlinkSync(busybox, join(directory, 'nslookup'));
      const env = { PATH: `${directory}:${process.env.PATH}` };
      const options = ['-n', 'none', '--quiet', '--warnings', 'off', '--color', '0'];
      const findings: Finding[] = [];
      for (const check of checks) {
        const report = join(directory, `report${check}.json`);
        const words = [...options, '--jsonfile', report, check, `127.0.0.1:${port}`];
        const { stdout } = await runClient([...(await toolArgv('testssl')), ...words], { env, cwd: directory });
        assert.ok(existsSync(report), new TextDecoder().decode(stdout));
        findings.push(...JSON.parse(readFileSync(report, 'utf8')));
      }
      assert.equal(findings.find(({ id }) => id === 'TLS1_3')?.severity, 'OK');
      assert.equal(findings.find(({ id }) => id === 'TLS1_2')?.finding, minimum === '1.2' ? 'offered' : 'not offered');
      // What is wrong with the certificate is that it is a test's.
      const found = findings.filter(({ id, severity }) => SEVERITIES.includes(severity) && !id.startsWith('cert_'));
      assert.deepEqual(found, []);
      t.diagnostic(`figures: from TLS ${minimum} on: ${findings.length} checks, 0 findings of LOW or above`);
    });
  }
});

type Finding = { readonly id: string; readonly severity: string; readonly finding: string };
const SEVERITIES: readonly string[] = ['LOW', 'MEDIUM', 'HIGH', 'CRITICAL', 'FATAL'];
