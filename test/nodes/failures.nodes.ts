// What an operator reads if a pull fails: the decoder's line with its code and the key, by every way to pull; and what no failure leaves behind.

import assert from 'node:assert/strict';
import { statSync } from 'node:fs';
import { after, before, test } from 'node:test';
import type { ErrorCode } from '../../src/base/errors.ts';
import { type Google, startGoogle } from '../end-to-end/google.ts';
import { executable, type LocalKey, succeed } from '../end-to-end/workspace.ts';
import { runClient } from '../real-clients/process.ts';
import { type Outcome, pull, runImage } from './clients.ts';
import { streamProcessors } from './configuration.ts';
import { waysOf } from './expected.ts';
import { imageName } from './images.ts';
import { clearNode, createLab, type Lab } from './lab.ts';
import type { Node } from './node.ts';
import { appears, assertPulled, assertRefused, until } from './outcomes.ts';
import { CHOSEN, IS_COMPILED } from './software.ts';

/** containerd may miss the reason if it looks too early, so that once is not enough. */
const REPEATS = IS_COMPILED ? 10 : 3;

let lab: Lab;
let shown = 0;
let google: Google;
let other: LocalKey;
const cleanups: (() => unknown)[] = [];
before(async () => {
  const t = { after: (cleanup: () => unknown) => void cleanups.push(cleanup) };
  lab = await createLab(t, ['gzip', 'uncompressed', '30 layers']);
  google = await startGoogle(t, lab);
  other = await lab.keygen('other.key');
  await lab.push('kms', google.key, google.options);
});
after(async () => {
  for (const cleanup of cleanups.reverse()) await cleanup();
});

for (const containerd of CHOSEN) {
  for (const localPull of [false, true]) {
    const ways = waysOf(containerd, localPull);
    if (ways.length === 0) continue;
    test(`P34 containerd ${containerd}${localPull ? ', CRI pulls by itself' : ''}`, async (t) => {
      const files = { '/etc/containerd/conf.d/ocicrypt.toml': streamProcessors({ path: '/opt/decoder' }) };
      const node = await lab.start(t, { containerd, localPull, files });
      const images = { local: imageName(lab.registry, 'gzip'), kms: `${lab.registry.host}/kms:1` };
      const kms = [...google.options, `--allow=${google.key}`, '--timeout=4s'];
      for (const { client, said } of ways) {
        await t.test(`${said}: no key is allowed, and another one`, async () => {
          for (const words of [[], [`--key=${other.file}`]]) {
            await decodeWith(node, ...words);
            for (let turn = 0; turn < REPEATS; turn++) {
              assertShown(await pull(node, client, images.local), 'not-allowed', lab.key.thumbprint);
            }
          }
        });
        // Where there is little time, by one of them.
        if (client !== 'CRI' && !IS_COMPILED) continue;
        await t.test(`${said}: the key service refuses, is silent, is slow`, async (t) => {
          await decodeWith(node, ...kms);
          google.kms.deny(google.email, 'decrypt');
          t.after(() => google.kms.permit(google.email));
          assertShown(await pull(node, client, images.kms), 'refused', google.key);
          google.kms.permit(google.email);
          google.kms.server.setFault(() => ({ kind: 'silent' }));
          t.after(() => google.kms.server.setFault(undefined));
          assertShown(await pull(node, client, images.kms), 'deadline-exceeded', google.key);
          google.kms.server.setFault(() => ({ kind: 'latency', milliseconds: 500 }));
          assertPulled(await pull(node, client, images.kms));
          google.kms.server.setFault(undefined);
          await clearNode(node);
        });
      }

      await t.test('a decoder that is killed fails its pull, and the next one succeeds', async () => {
        await decodeWith(node, ...kms);
        let held = () => {};
        google.kms.server.faults.push({ kind: 'held', until: new Promise((resolve) => (held = resolve)) });
        const pulling = pull(node, 'CRI', images.kms);
        await until(() => google.kms.server.faults.length === 0);
        await node.run(['sh', '-c', 'kill -9 $(pidof ocicrypt-kms)']);
        held();
        const { exitCode, text } = await pulling;
        assert.notEqual(exitCode, 0, text);
        assertPulled(await pull(node, 'CRI', images.kms));
        await clearNode(node);
      });

      await t.test('two images pulled and run at once', async () => {
        await decodeWith(node, `--key=${lab.key.file}`);
        const names = (['gzip', 'uncompressed'] as const).map((kind) => imageName(lab.registry, kind));
        for (const outcome of await Promise.all(names.map((name) => pull(node, 'CRI', name)))) assertPulled(outcome);
        const said = await Promise.all(names.map((name, index) => runImage(node, name, `pod-${index}`)));
        for (const { text } of said) assert.match(text, /^hello$/m);
        await clearNode(node);
      });

      await t.test(
        'an image with new keys is pulled with those, although the node has the old manifest, too',
        async () => {
          await lab.push('rewrapped', lab.key.uri, []);
          const image = `${lab.registry.host}/rewrapped:1`;
          await decodeWith(node, `--key=${other.file}`);
          assertShown(await pull(node, 'CRI', image), 'not-allowed', lab.key.thumbprint);
          const words = [`--key=${lab.key.file}`, '--recipient', other.uri, `--ca=${lab.registry.authority}`];
          await succeed(runClient([executable(), 'rewrap', `docker://${image}`, ...words]));
          assertPulled(await pull(node, 'CRI', image));
          await clearNode(node);
        },
      );

      await t.test('a server that is killed in the middle of a pull, and started again', async () => {
        const socket = '/run/ocicrypt-kms/socket';
        const audit = '/run/ocicrypt-kms/audit.log';
        const serve = async () => {
          const words = [`--listen=unix://${socket}`, `--key=${lab.key.file}`, `--audit-log=${audit}`];
          await node.start('serve', [executable(), 'serve', ...words]);
          await appears(node, socket);
        };
        const many = imageName(lab.registry, '30 layers');
        await decodeWith(node, `--remote=unix://${socket}`, '--timeout=2s');
        await node.run(['mkdir', '-m', '700', '-p', '/run/ocicrypt-kms']);
        await serve();
        const pulling = pull(node, 'CRI', many);
        await until(() => statSync(node.path(audit)).size > 0);
        await node.kill('serve', 'KILL');
        assertShown(await pulling, 'unavailable', socket);
        await serve();
        assertPulled(await pull(node, 'CRI', many));
        assertPulled(await pull(node, 'CRI', images.local));
      });
    });
  }
}

test('P34 every refusal was counted', (t) => {
  assert.ok(shown > 0);
  t.diagnostic(`figures: ${shown} pulls that failed, and the reason with its code and key read in ${shown}`);
});

/** containerd starts a script: what it runs changes without containerd. */
async function decodeWith(node: Node, ...words: readonly string[]): Promise<void> {
  const quoted = [executable(), 'decoder', ...words].map((word) => `'${word}'`).join(' ');
  await node.write('/opt/decoder', `#!/bin/sh\nexec ${quoted}\n`, 0o755);
}

function assertShown(outcome: Outcome, code: ErrorCode, key: string): void {
  assertRefused(outcome, code, key);
  shown++;
}
