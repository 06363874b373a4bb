// What each containerd gives a decoder, by each way to pull, and what an operator then reads of ctd-decoder.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { keyprovider } from '../end-to-end/workspace.ts';
import { pull, runImage } from './clients.ts';
import { streamProcessors } from './configuration.ts';
import { containerdName, type Given, given, waysOf } from './expected.ts';
import { imageName } from './images.ts';
import { clearNode, createLab, type Lab } from './lab.ts';
import type { Node } from './node.ts';
import { CHOSEN } from './software.ts';

/** Keeps what stands on descriptor 3, and goes on as ctd-decoder. */
const RECORDER = `#!/bin/sh
mkdir -p /run/decoder
call=$(mktemp /run/decoder/XXXXXX)
[ -e /proc/self/fd/3 ] || exec ctd-decoder "$@"
cat <&3 >"$call"
exec ctd-decoder "$@" 3<"$call"
`;

/** Of ctd-decoder without a payload, or of containerd that has missed even that. */
const REASONS = /read configFd: bad file descriptor|wrong diff id/;

let lab: Lab;
const cleanups: (() => unknown)[] = [];
before(async () => {
  lab = await createLab({ after: (cleanup) => void cleanups.push(cleanup) }, ['gzip', 'zstd']);
});
after(async () => {
  for (const cleanup of cleanups.reverse()) await cleanup();
});

for (const containerd of CHOSEN) {
  for (const localPull of [false, true]) {
    const ways = waysOf(containerd, localPull);
    if (ways.length === 0) continue;
    test(`containerd ${containerd}${localPull ? ', CRI pulls by itself' : ''}`, async (t) => {
      const node = await lab.start(t, { containerd, localPull, files: files() });
      assert.ok(node.version.startsWith(containerdName(containerd).replace(/ .*/, '')), node.version);
      await node.write('/opt/recorder', RECORDER, 0o755);
      for (const way of ways) {
        const expected = given(containerd, way);
        await t.test(`${way.said}: the decoder is given ${expected === 'payload' ? 'a' : 'no'} payload`, async () => {
          for (const kind of ['gzip', 'zstd'] as const) {
            const { exitCode, text } = await pull(node, way.client, imageName(lab.registry, kind));
            assert.equal(await recorded(node), expected, text);
            if (expected === 'payload') assert.equal(exitCode, 0, text);
            else assert.match(text, REASONS);
            if (expected === 'payload' && way.client === 'CRI') {
              assert.match((await runImage(node, imageName(lab.registry, kind))).text, /^hello$/m);
            }
            await clearNode(node);
          }
        });
      }
    });
  }
}

function files() {
  const variable = 'OCICRYPT_KEYPROVIDER_CONFIG=/etc/containerd/ocicrypt.json';
  const providers = { kmscrypt: keyprovider(`--key=${lab.key.file}`) };
  return {
    '/etc/containerd/conf.d/ocicrypt.toml': streamProcessors({
      path: '/opt/recorder',
      env: [variable],
      uncompresses: false,
    }),
    '/etc/containerd/ocicrypt.json': JSON.stringify({ 'key-providers': providers }),
  };
}

/** What every call of the decoder was given since the last question. */
async function recorded(node: Node): Promise<Given> {
  const script = 'cd /run/decoder && for call in *; do base64 -w 0 "$call"; echo; rm "$call"; done';
  const { stdout, stderr } = await node.run(['sh', '-c', script]);
  const calls = new TextDecoder().decode(stdout).split('\n').slice(0, -1);
  assert.ok(calls.length > 0, `no decoder was called: ${stderr}`);
  const payloads = calls.map((call) => Buffer.from(call, 'base64').includes('io.containerd.ocicrypt.v1.Payload'));
  assert.ok(payloads.every((one) => one === payloads[0]));
  return payloads[0] ? 'payload' : 'nothing';
}
