// Mistakes in the configuration of a node, each made on purpose: what containerd says then is what docs/nodes.md explains.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { keyprovider } from '../end-to-end/workspace.ts';
import { pull } from './clients.ts';
import { streamProcessors } from './configuration.ts';
import { given } from './expected.ts';
import { imageName } from './images.ts';
import { createLab, type Lab } from './lab.ts';
import { SIGNATURES } from './signatures.ts';
import { CHOSEN, type Containerd, isFirst } from './software.ts';

const DROP_IN = '/etc/containerd/conf.d/ocicrypt.toml';
const PROVIDERS = '/etc/containerd/ocicrypt.json';
const ENV = [`OCICRYPT_KEYPROVIDER_CONFIG=${PROVIDERS}`];
/** Some reasons are lost now and then: they are waited for. */
const PULLS = 30;

/** Fails as a decoder does whose reason is lost: its output ends before it. */
const HASTY = '#!/bin/sh\nexec >&-\nsleep 0.3\nexit 1\n';
const CTD_DECODER = { path: 'ctd-decoder', env: ENV, uncompresses: false };

type Mistake = {
  readonly said: string;
  readonly signature: (containerd: Containerd) => { readonly text: string };
  /** What is written over a node that is right. */
  readonly files: Readonly<Record<string, string>>;
  readonly kind?: 'gzip' | 'zstd';
  /** ctd-decoder reads its payload first. */
  readonly needsPayload?: true;
};

const MISTAKES: readonly Mistake[] = [
  {
    said: 'nothing is configured',
    needsPayload: true,
    signature: () => SIGNATURES.noKeyDirectory,
    files: { [DROP_IN]: '' },
  },
  {
    said: 'the decoder is not in PATH',
    signature: (containerd) => (containerd === 'bookworm' ? SIGNATURES.notInPath : SIGNATURES.notInPath2),
    files: { [DROP_IN]: streamProcessors({ path: 'no-such-decoder' }) },
  },
  {
    said: 'the decoder is not where its path says',
    signature: () => SIGNATURES.noProgram,
    files: { [DROP_IN]: streamProcessors({ path: '/opt/no-such-decoder' }) },
  },
  {
    said: 'zstd is not accepted',
    kind: 'zstd',
    signature: () => SIGNATURES.stillEncrypted,
    files: { [DROP_IN]: streamProcessors(CTD_DECODER).replace(/,"[^"]*zstd[^"]*"/, '') },
  },
  {
    said: 'the directory of keys is missing',
    needsPayload: true,
    signature: () => SIGNATURES.noKeyDirectory,
    files: { [DROP_IN]: streamProcessors({ ...CTD_DECODER, args: ['--decryption-keys-path', '/etc/none'] }) },
  },
  {
    said: 'the file of providers is no JSON',
    needsPayload: true,
    signature: () => SIGNATURES.noProvider,
    files: { [PROVIDERS]: '{' },
  },
  {
    said: 'the file of providers has another name',
    needsPayload: true,
    signature: () => SIGNATURES.noProvider,
    files: { [PROVIDERS]: '{"key-providers":{"other":{"cmd":{"path":"/bin/false"}}}}' },
  },
  {
    said: 'the decoder ends its output before itself',
    signature: () => SIGNATURES.reasonLost,
    files: { [DROP_IN]: streamProcessors({ path: '/opt/hasty' }), '/opt/hasty': HASTY },
  },
  {
    said: 'a table stands there twice',
    signature: (containerd) => (isFirst(containerd) ? SIGNATURES.twice : SIGNATURES.twice2),
    files: {
      [DROP_IN]: `${streamProcessors(CTD_DECODER)}${streamProcessors(CTD_DECODER).replace('version = 2\n', '')}`,
    },
  },
];

let lab: Lab;
const cleanups: (() => unknown)[] = [];
before(async () => {
  lab = await createLab({ after: (cleanup) => void cleanups.push(cleanup) }, ['gzip', 'zstd']);
});
after(async () => {
  for (const cleanup of cleanups.reverse()) await cleanup();
});

for (const containerd of CHOSEN) {
  test(`containerd ${containerd}`, async (t) => {
    const right = {
      [DROP_IN]: streamProcessors(CTD_DECODER),
      [PROVIDERS]: JSON.stringify({ 'key-providers': { kmscrypt: keyprovider(`--key=${lab.key.file}`) } }),
    };
    const localPull = given(containerd, { client: 'CRI', localPull: true }) !== undefined;
    const hasPayload = given(containerd, { client: 'CRI', localPull }) === 'payload';
    const node = await lab.start(t, { containerd, localPull, files: right });
    for (const { said, signature, files, kind = 'gzip', needsPayload = false } of MISTAKES) {
      const { text } = signature(containerd);
      if (needsPayload && !hasPayload) continue;
      await t.test(`${said}: ${text}`, async () => {
        await node.kill('containerd');
        for (const [path, content] of Object.entries({ ...right, ...files })) {
          await node.write(path, content, path.startsWith('/opt/') ? 0o755 : 0o644);
        }
        const seen: string[] = [];
        const isSeen = (words: string) => seen.push(words) > 0 && words.includes(text);
        const isStarted = await node.startService().then(
          () => true,
          (error: unknown) => {
            assert.ok(isSeen(String(error)), String(error));
            return false;
          },
        );
        for (let turn = 0; isStarted && turn < PULLS; turn++) {
          const outcome = await pull(node, 'CRI', imageName(lab.registry, kind));
          assert.notEqual(outcome.exitCode, 0);
          if (isSeen(outcome.text)) break;
        }
        assert.ok(seen.at(-1)?.includes(text), seen.join('\n'));
      });
    }
    if (!isFirst(containerd)) return;
    await t.test('a file of version 2 that one of version 1 imports', async () => {
      const other = '/etc/containerd/first.toml';
      await node.write(other, `imports = [${JSON.stringify(DROP_IN)}]\ndisabled_plugins = ["cri"]\n`);
      const dump = () => node.run(['containerd', '-c', other, 'config', 'dump']);
      await node.write(DROP_IN, streamProcessors(CTD_DECODER));
      const { exitCode, stderr } = await dump();
      assert.ok(exitCode !== 0 && stderr.includes(SIGNATURES.firstVersion.text), stderr);
      await node.write(DROP_IN, streamProcessors(CTD_DECODER).replace('version = 2\n', ''));
      assert.equal((await dump()).exitCode, 0);
    });
    await t.test('a table of CRI in an imported file replaces what config.toml says of it', async () => {
      const pause = `sandbox_image = "${imageName(lab.registry, 'pause')}"`;
      const dump = async () => new TextDecoder().decode((await node.run(['containerd', 'config', 'dump'])).stdout);
      await node.write(DROP_IN, 'version = 2\n');
      assert.ok((await dump()).includes(pause));
      const table = '[plugins."io.containerd.grpc.v1.cri".image_decryption]\nkey_model = "node"\n';
      await node.write(DROP_IN, `version = 2\n${table}`);
      assert.ok(!(await dump()).includes(pause));
    });
  });
}
