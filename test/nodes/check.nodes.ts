// `ocicrypt-kms node check` and `doctor` on every containerd: each mistake is found with its fix, and none on a node that is right.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { executable, keyprovider } from '../end-to-end/workspace.ts';
import { streamProcessors } from './configuration.ts';
import { given } from './expected.ts';
import { createLab, type Lab } from './lab.ts';
import type { Node } from './node.ts';
import { CHOSEN, type Containerd, isFirst } from './software.ts';

const CONFIG = '/etc/containerd/config.toml';
const DROP_IN = '/etc/containerd/conf.d/ocicrypt.toml';
const PROVIDERS = '/etc/ocicrypt-kms/ocicrypt.json';
const POLICY = '/etc/ocicrypt-kms/config.yaml';
const OPEN_KEY = '/etc/ocicrypt-kms/open.key';

type Files = Readonly<Record<string, string>>;

/** A mistake: what is written over a node that is right, and what is said of it. */
type Mistake = { readonly said: string; readonly found: RegExp; readonly files: Files };

let lab: Lab;
const cleanups: (() => unknown)[] = [];
before(async () => {
  lab = await createLab({ after: (cleanup) => void cleanups.push(cleanup) }, []);
});
after(async () => {
  for (const cleanup of cleanups.reverse()) await cleanup();
});

const ours = (...args: readonly string[]) => streamProcessors({ path: executable(), args });
const OURS = () => ours('decoder', `--config=${POLICY}`);
const THEIRS = () =>
  streamProcessors({ path: 'ctd-decoder', env: [`OCICRYPT_KEYPROVIDER_CONFIG=${PROVIDERS}`], uncompresses: false });

function rightFiles(): Files {
  return {
    [DROP_IN]: OURS(),
    [POLICY]: `key:\n  - ${lab.key.file}\n`,
    [PROVIDERS]: JSON.stringify({ 'key-providers': { kmscrypt: keyprovider(`--config=${POLICY}`) } }),
  };
}

function mistakes(containerd: Containerd, config: string): readonly Mistake[] {
  const images = isFirst(containerd) ? 'io.containerd.grpc.v1.cri' : 'io.containerd.cri.v1.runtime';
  return [
    {
      said: 'no decoder is configured',
      found: /has no decoder for encrypted layers|ctd-decoder|decryption-keys-path/,
      files: { [DROP_IN]: '' },
    },
    {
      said: 'the decoder is not there',
      found: /\/opt\/none is not there for containerd/,
      files: { [DROP_IN]: OURS().replaceAll(executable(), '/opt/none') },
    },
    {
      said: 'the decoder is not in PATH',
      found: /no-such-decoder is not there for containerd/,
      files: { [DROP_IN]: OURS().replaceAll(executable(), 'no-such-decoder') },
    },
    {
      said: 'an option stands before the command',
      found: /an option before the command decoder/,
      files: { [DROP_IN]: ours(`--config=${POLICY}`, 'decoder') },
    },
    {
      said: 'an option is unknown',
      found: /unknown option "--confg".*\n.*did you mean --config/,
      files: { [DROP_IN]: ours('decoder', `--confg=${POLICY}`) },
    },
    {
      said: 'the policy is missing',
      found: /\/etc\/nowhere\.yaml does not exist/,
      files: { [DROP_IN]: ours('decoder', '--config=/etc/nowhere.yaml') },
    },
    { said: 'the policy names no key', found: /no key is allowed in .*config\.yaml/, files: { [POLICY]: 'key: []\n' } },
    {
      said: 'the content store is nowhere',
      found: /\/nowhere holds no content store of containerd/,
      files: { [POLICY]: `key:\n  - ${lab.key.file}\ncontent-store: /nowhere\n` },
    },
    { said: 'the key is missing', found: /not-found: .*nowhere\.key/, files: { [POLICY]: 'key:\n  - /nowhere.key\n' } },
    {
      said: 'others can read the key',
      found: /configuration: .*open\.key/,
      files: { [POLICY]: `key:\n  - ${OPEN_KEY}\n`, [OPEN_KEY]: 'k'.repeat(32) },
    },
    {
      said: 'zstd has no decoder',
      found: /has no decoder for .*tar\+zstd\+encrypted: .*invalid tar header/,
      files: { [DROP_IN]: OURS().replace(/,\s*"[^"]*zstd[^"]*"/, '') },
    },
    {
      said: 'a table stands there twice',
      found: /cannot read .*\n.*file of their own/,
      files: { [DROP_IN]: `${OURS()}${OURS().replace('version = 2\n', '')}` },
    },
    {
      said: 'use_local_image_pull stands in a wrong table',
      found: /sets use_local_image_pull in \[plugins\..*no effect/,
      files: {
        [CONFIG]: config.replace(`[plugins."${images}"]`, `[plugins."${images}"]\nuse_local_image_pull = true`),
      },
    },
    {
      said: 'a processor is nothing that decrypts',
      found: /does not decrypt|gives back|takes a|is no decoder/,
      files: { [DROP_IN]: streamProcessors({ path: '/bin/cat' }) },
    },
  ];
}

/** Those of ctd-decoder alone, where it is given a payload. */
function theirMistakes(config: string): readonly Mistake[] {
  const model = '[plugins."io.containerd.grpc.v1.cri".image_decryption]\nkey_model = ""\n';
  return [
    {
      said: 'the file of providers is no JSON',
      found: /FAIL.*(?:not JSON|JSON)/i,
      files: { [DROP_IN]: THEIRS(), [PROVIDERS]: '{' },
    },
    {
      said: 'the provider is called with its option first',
      found: /FAIL/,
      files: {
        [DROP_IN]: THEIRS(),
        [PROVIDERS]: JSON.stringify({
          'key-providers': { kmscrypt: { cmd: { path: executable(), args: [`--config=${POLICY}`, 'keyprovider'] } } },
        }),
      },
    },
    {
      said: 'key_model is empty',
      found: /key_model = "": CRI gives ctd-decoder no payload/,
      files: { [DROP_IN]: THEIRS(), [CONFIG]: `${config}${model}` },
    },
  ];
}

for (const containerd of CHOSEN) {
  test(`containerd ${containerd}`, async (t) => {
    const node = await lab.start(t, { containerd, files: rightFiles() });
    const config = new TextDecoder().decode((await node.run(['cat', CONFIG])).stdout);
    const right = { ...rightFiles(), [CONFIG]: config };
    const check = async (files: Files, ...words: readonly string[]) => {
      await write(node, { ...right, ...files });
      const { exitCode, stdout, stderr } = await node.run([
        executable(),
        ...(words.length > 0 ? words : ['node', 'check']),
      ]);
      return { exitCode, text: `${new TextDecoder().decode(stdout)}${stderr}` };
    };
    await t.test('nothing is found on a node that is right, by the doctor neither', async () => {
      const { exitCode, text } = await check({});
      assert.equal(exitCode, 0, text);
      assert.doesNotMatch(text, /FAIL|warn/);
      assert.equal(text.match(/decrypts tar/g)?.length, 3);
      const doctor = await check({}, 'doctor', `--config=${POLICY}`);
      assert.equal(doctor.exitCode, 0, doctor.text);
      // What it says of clients on this shell is no matter here.
      assert.doesNotMatch(doctor.text, /^(?:warn|FAIL) +containerd/m);
      assert.match(doctor.text, /^ok +containerd.*decrypts tar\+zstd/m);
      assert.doesNotMatch(doctor.text, /of (?:k3s|rke2)/);
    });
    for (const { said, found, files } of mistakes(containerd, config)) {
      await t.test(said, async () => {
        const { text } = await check(files);
        assert.match(text, found);
        assert.match(text, /^ {6}to do/m);
      });
    }
    await t.test('a containerd that was not restarted', async () => {
      await write(node, right);
      await node.run(['touch', '-d', '+1 hour', DROP_IN]);
      const { stdout } = await node.run([executable(), 'node', 'check']);
      assert.match(new TextDecoder().decode(stdout), /was started before .*ocicrypt\.toml was changed/);
    });
    await t.test('ctd-decoder, which needs a payload', async () => {
      const { exitCode, text } = await check({ [DROP_IN]: THEIRS() });
      if (given(containerd, { client: 'CRI', localPull: false }) === 'payload') {
        assert.equal(exitCode, 0, text);
        assert.doesNotMatch(text, /FAIL|warn/);
        for (const { said, found, files } of theirMistakes(config))
          assert.match((await check(files)).text, found, said);
      } else {
        assert.match(text, /gives ctd-decoder no payload/);
      }
    });
  });
}

async function write(node: Node, files: Files): Promise<void> {
  for (const [path, text] of Object.entries(files)) await node.write(path, text);
  // As if it had been there when containerd was started.
  await node.run(['touch', '-d', '-1 hour', CONFIG, DROP_IN]);
}
