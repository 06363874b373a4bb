// ttrpc as containerd's library for Go speaks it, and that of Rust, with which agents of Confidential Containers call.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { OPTSDATA } from '../fixtures/packets.ts';
import { makeKeyDirectory } from '../fixtures/provider.ts';
import { serve } from '../fixtures/serve.ts';
import { unwrapRequest, wrapRequest } from '../fixtures/vectors/shape.ts';
import { buildTtrpcGo, buildTtrpcRust } from '../peers/ttrpc.ts';
import { runClient } from '../real-clients/process.ts';

const directory = mkdtempSync(join(tmpdir(), 'ttrpc-'));
const keys = makeKeyDirectory();
after(() => {
  keys.remove();
  rmSync(directory, { recursive: true, force: true });
});

for (const [name, build] of [
  ['Go', buildTtrpcGo],
  ['Rust', buildTtrpcRust],
] as const) {
  test(`a client in ${name} wraps, unwraps, and gets statuses`, async (t) => {
    const program = await build();
    const socket = join(directory, name);
    await serve(t, [`--listen=ttrpc://${socket}`, `--key=${keys.file('first')}`, '--provider=kmscrypt']);
    const call = async (method: string, request: string) => {
      const stdin = new TextEncoder().encode(request);
      const { exitCode, stdout, stderr } = await runClient([program, socket, method], { stdin });
      return { exitCode, reply: new TextDecoder().decode(stdout).trim(), stderr };
    };
    const wrapped = await call('WrapKey', wrapRequest(['Enabled']));
    assert.equal(wrapped.exitCode, 0, wrapped.reply + wrapped.stderr);
    const { annotation } = JSON.parse(wrapped.reply).keywrapresults;
    const unwrapped = await call('UnWrapKey', unwrapRequest(Buffer.from(annotation)));
    assert.equal(unwrapped.exitCode, 0, unwrapped.reply + unwrapped.stderr);
    assert.deepEqual(JSON.parse(unwrapped.reply).keyunwrapresults.optsdata, [...Buffer.from(OPTSDATA)]);
    const foreign = wrapRequest(['gcpkms://projects/p/locations/l/keyRings/r/cryptoKeys/k']);
    for (const [method, request, status] of [
      ['UnWrapKey', '{}', '3'],
      ['Other', '{}', '12'],
      ['WrapKey', foreign, '7'],
    ] as const)
      assert.deepEqual(await call(method, request), { exitCode: 1, reply: status, stderr: '' });
  });
}
