// `--remote`: the server gets our own provider's parameters and nothing else.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { withDeadline } from '../../src/base/deadline.ts';
import { asOcicryptError } from '../../src/base/errors.ts';
import { forwardRequest, parseRemote, type RemoteOptions } from '../../src/client/remote.ts';
import { decodeRequest, encodeRequest } from '../../src/provider/protocol.ts';
import { startRunning, temporaryDirectory } from '../server/running.ts';

const CANARY = '-----BEGIN PRIVATE KEY-----canary-4f1c9e0a';
const OPTSDATA = JSON.stringify({
  symkey: 'BnVzTgWrcR9bHku9tvpk6fUEV5jb+XiEAAQVpCXLvAo=',
  digest: `sha256:${'ac'.repeat(32)}`,
  cipheroptions: { nonce: 'IXIaaf2jpVLOTlXNX8aRWw==' },
});

/** What ocicrypt really sends: every provider's and scheme's parameters, and the same twice for decryption. */
function request(own: Readonly<Record<string, readonly string[]>>): Uint8Array {
  const parameters = {
    privkeys: [btoa(CANARY)],
    'privkeys-passwords': [btoa(CANARY)],
    'gpg-privatekeys': [btoa(CANARY)],
    other: [btoa(CANARY)],
    ...own,
  };
  return new TextEncoder().encode(
    JSON.stringify({
      op: 'keywrap',
      keywrapparams: {
        ec: { Parameters: parameters, DecryptConfig: { Parameters: { privkeys: [btoa(CANARY)] } } },
        optsdata: btoa(OPTSDATA),
      },
      keyunwrapparams: { dc: { Parameters: { privkeys: [btoa(CANARY)] } }, annotation: null },
      [CANARY]: CANARY,
    }),
  );
}

const signal = () => AbortSignal.timeout(10_000);
const options = (path: string): RemoteOptions => ({
  target: { kind: 'unix', path },
  tls: undefined,
  names: { configured: undefined, fallback: 'kmscrypt' },
  timeout: 5000,
});

describe('what goes over the wire', () => {
  test("holds no other scheme's private key, in any spelling", async (t) => {
    const { directory } = await startRunning(t);
    const { path, seen } = await startWiretap(join(directory, 's'), join(await temporaryDirectory(t), 'tap'), t);
    const reply = await forwardRequest(request({ kmscrypt: [btoa('Enabled')] }), options(path), signal());
    assert.match(new TextDecoder().decode(reply), /^\{"keywrapresults":\{"annotation":"/);
    const wire = Buffer.concat(seen).toString('latin1');
    assert.ok(wire.includes('keywrap') && wire.includes(btoa('Enabled')));
    for (const spelling of [
      CANARY,
      btoa(CANARY),
      btoa(CANARY).slice(4, 24),
      Buffer.from(CANARY).toString('hex'),
      'privkeys',
    ]) {
      assert.ok(!wire.includes(spelling), spelling);
    }
  });

  test("nothing goes where the request is wrong, or another's value stands under our name", async (t) => {
    const path = join(await temporaryDirectory(t), 'nobody');
    for (const wrong of [new TextEncoder().encode('{}'), request({ kmscrypt: [btoa(CANARY)] })]) {
      await assert.rejects(
        forwardRequest(wrong, options(path), signal()),
        (error) => asOcicryptError(error).code === 'bad-input' && !asOcicryptError(error).message.includes('canary'),
      );
    }
  });
});

test('errors of the server come back with their codes', async (t) => {
  const { directory } = await startRunning(t);
  const path = join(directory, 's');
  const denied = request({ kmscrypt: [btoa('gcpkms://projects/p/locations/l/keyRings/r/cryptoKeys/k')] });
  const codes = await Promise.all(
    [forwardRequest(denied, options(path), signal()), forwardRequest(denied, options(`${path}x`), signal())].map(
      (one) => one.catch((error) => asOcicryptError(error).code),
    ),
  );
  assert.deepEqual(codes, ['not-allowed', 'unavailable']);
});

test('a server that does not answer is given up, and named', async (t) => {
  const path = join(await temporaryDirectory(t), 's');
  const silent = createServer((socket) => socket.on('error', () => {}));
  await new Promise<void>((resolve) => silent.listen(path, resolve));
  t.after(() => silent.close());
  const sockets: Socket[] = [];
  silent.on('connection', (socket) => sockets.push(socket));
  t.after(() => {
    for (const socket of sockets) socket.destroy();
  });
  const ended = withDeadline(200, undefined, 'opening the layer key', (signal) =>
    forwardRequest(request({ kmscrypt: [btoa('Enabled')] }), options(path), signal),
  );
  await assert.rejects(ended, (error) => {
    const { code, message, hint } = asOcicryptError(error);
    assert.equal(code, 'deadline-exceeded');
    assert.ok(message.includes(path) && hint?.startsWith('it is slow or does not answer'), `${message}; ${hint}`);
    return true;
  });
});

test('requests that real clients send are read and written without a change', () => {
  const { requests } = JSON.parse(readFileSync(new URL('../vectors/requests.json', import.meta.url), 'utf8'));
  for (const { name, request: text } of requests) {
    const written = encodeRequest(decodeRequest(new TextEncoder().encode(text)));
    assert.deepEqual(encodeRequest(decodeRequest(written)), written, name);
  }
});

test('addresses that are none are refused', () => {
  for (const text of ['tcp://127.0.0.1:1', 'unix://a', 'tls://a', 'tls://a:0', 'https://a:1', '']) {
    assert.throws(
      () => parseRemote(text),
      (error) => asOcicryptError(error).code === 'configuration',
      text,
    );
  }
  assert.deepEqual(parseRemote('tls://[::1]:5'), { kind: 'tls', host: '::1', port: 5 });
});

/** Passes everything on to `to`, and keeps what clients send. */
async function startWiretap(to: string, path: string, t: { after(run: () => void): void }) {
  const seen: Buffer[] = [];
  const tap = createServer((socket) => {
    const onward = connect(to);
    socket.on('error', () => {});
    onward.on('error', () => {});
    socket.on('data', (chunk) => seen.push(chunk));
    socket.pipe(onward).pipe(socket);
  });
  await new Promise<void>((resolve) => tap.listen(path, resolve));
  t.after(() => tap.close());
  return { path, seen };
}
