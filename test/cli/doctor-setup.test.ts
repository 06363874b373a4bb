// The doctor's look at a set-up: every trap that files can show, and nothing said of a set-up that works.
import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { examineSetup } from '../../src/cli/doctor-setup.ts';
import { findSignatureTraps } from '../../src/cli/doctor-signatures.ts';

let directory: string;
before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'doctor-'));
});
after(() => rm(directory, { recursive: true, force: true }));

/** The levels and messages of what is found, without what is fine. */
async function examine(providers: unknown, containerd = ''): Promise<readonly string[]> {
  const file = join(directory, 'ocicrypt.json');
  const containerdConfig = join(directory, 'config.toml');
  await writeFile(file, typeof providers === 'string' ? providers : JSON.stringify(providers));
  await writeFile(containerdConfig, containerd);
  const environment = { OCICRYPT_KEYPROVIDER_CONFIG: file, PATH: '/usr/bin:/bin' };
  const findings = await examineSetup({ environment, containerdConfig });
  for (const { level, hint } of findings) assert.ok(level === 'ok' || hint !== undefined);
  return findings.filter(({ level }) => level !== 'ok').map(({ level, message }) => `${level} ${message}`);
}

const providers = (entry: unknown) => ({ 'key-providers': { kmscrypt: entry } });

describe('the configuration of key providers', () => {
  test('that works has nothing to say', async () => {
    assert.deepEqual(await examine(providers({ cmd: { path: '/bin/sh', args: ['keyprovider'] } })), []);
    assert.deepEqual(await examine(providers({ cmd: { path: '/bin/sh', args: null } })), []);
  });

  test('that is not named, or is not there, calls no provider', async () => {
    const containerdConfig = join(directory, 'none');
    const [unset] = await examineSetup({ environment: {}, containerdConfig });
    assert.deepEqual([unset?.level, unset?.subject], ['warn', 'OCICRYPT_KEYPROVIDER_CONFIG']);
    const environment = { OCICRYPT_KEYPROVIDER_CONFIG: join(directory, 'nowhere.json') };
    const [missing] = await examineSetup({ environment, containerdConfig });
    assert.equal(missing?.level, 'fail');
  });

  for (const [what, entry, level, pattern] of [
    ['no executable', { cmd: { path: '/etc/passwd' } }, 'fail', /not an executable/],
    ['a directory for a command', { cmd: { path: '/usr' } }, 'fail', /not an executable/],
    ['a command without a path', { cmd: {} }, 'fail', /no path/],
    ['words that are no list', { cmd: { path: '/bin/sh', args: 'keyprovider' } }, 'fail', /args/],
    ['a command found by PATH', { cmd: { path: 'sh' } }, 'warn', /found as/],
    ['the form of the documentation', { path: '/bin/sh', args: [] }, 'fail', /Unsupported keyprovider invocation/],
    ['nothing', {}, 'fail', /neither cmd nor grpc/],
    ['a bare path', { grpc: '/run/provider.sock' }, 'fail', /no target/],
    ['a URL', { grpc: 'http://127.0.0.1:50051' }, 'fail', /no target/],
    ['a socket that is missing', { grpc: 'unix:///nowhere/provider.sock' }, 'fail', /ENOENT/],
    ['a port where nobody listens', { grpc: '127.0.0.1:1' }, 'fail', /ECONNREFUSED/],
  ] as const) {
    test(`with ${what}: ${level}`, async () => {
      const [found, ...more] = await examine(providers(entry));
      assert.match(found ?? '', pattern);
      assert.ok(found?.startsWith(level));
      assert.deepEqual(more, []);
    });
  }

  test('with both kinds says which one counts', async () => {
    const found = await examine(providers({ cmd: { path: '/bin/sh' }, grpc: 'unix:///run/x.sock' }));
    assert.match(found.join(), /^warn has both/);
  });

  test('that is not JSON, or names nothing, is said', async () => {
    for (const text of ['{', '[]', '{}', '{"key-providers":{}}', '{"key-providers":[]}']) {
      assert.match((await examine(text)).join(), /^fail/);
    }
  });

  test('with a socket tells a live one from one that is left over', async () => {
    const path = join(directory, 'live.sock');
    const server = createServer(() => {});
    await new Promise<void>((resolve) => server.listen(path, resolve));
    assert.deepEqual(await examine(providers({ grpc: `unix://${path}` })), []);
    assert.deepEqual(await examine(providers({ grpc: `unix:${path}` })), []);
    await new Promise((resolve) => server.close(resolve));
    const stale = join(directory, 'stale.sock');
    await writeFile(stale, '');
    assert.match((await examine(providers({ grpc: `unix://${stale}` }))).join(), /^fail nobody listens/);
  });
});

describe("containerd's configuration", () => {
  const good = providers({ cmd: { path: '/bin/sh' } });
  const processor = (id: string, lines: readonly string[]) =>
    [`[stream_processors]`, `  [stream_processors."${id}"]`, ...lines.map((line) => `    ${line}`), ''].join('\n');
  const accepts = 'accepts = ["application/vnd.oci.image.layer.v1.tar+gzip+encrypted"]';
  const LOCAL = '[plugins."io.containerd.cri.v1.images"]\n  use_local_image_pull = true\n';

  test('that works has nothing to say, nor one without encrypted layers', async () => {
    const keys = join(directory, 'keys');
    await mkdir(keys, { recursive: true });
    const file = join(directory, 'ocicrypt.json');
    const complete = processor('io.containerd.ocicrypt.decoder.v1.tar.gzip', [
      'accepts = [',
      '  "application/vnd.oci.image.layer.v1.tar+gzip+encrypted",',
      ']',
      'path = "ctd-decoder"',
      `args = ["--decryption-keys-path", "${keys}"]`,
      `env = ["OCICRYPT_KEYPROVIDER_CONFIG=${file}"]`,
    ]);
    assert.deepEqual(await examine(good, LOCAL + complete), []);
    assert.deepEqual(await examine(good, 'version = 3\n'), []);
  });

  test('without local pulls would call no provider from 2.1 on', async () => {
    const found = await examine(
      good,
      processor('a.tar.gzip', [accepts, 'env = ["OCICRYPT_KEYPROVIDER_CONFIG=/bin/sh"]']),
    );
    assert.match(found.join(), /^warn .*use_local_image_pull/);
  });

  for (const [what, id, lines, pattern] of [
    [
      'a directory of keys that is missing',
      'a.tar.gzip',
      [accepts, "args = ['--decryption-keys-path', '/nowhere']"],
      /fail --decryption-keys-path/,
    ],
    ['zstd layers in a processor of another name', 'a.tar.zstd', ['accepts = ["x.tar+zstd+encrypted"]'], /fail its id/],
    [
      'a variable that names no file',
      'a.tar',
      [accepts, 'env = ["OCICRYPT_KEYPROVIDER_CONFIG=/nowhere"]'],
      /fail OCICRYPT/,
    ],
    ['no variable', 'a.tar', [accepts], /warn has no OCICRYPT/],
  ] as const) {
    test(`with ${what} is said`, async () => {
      assert.match((await examine(good, LOCAL + processor(id, lines))).join('\n'), pattern);
    });
  }
});

describe('signatures that podman, buildah and CRI-O read', () => {
  const accepting = [{ type: 'insecureAcceptAnything' }];
  const signed = [{ type: 'sigstoreSigned', keyPath: '/key' }];
  /** The levels and messages of what is found in the first of two directories that has something. */
  async function look(policy: unknown, registries: Readonly<Record<string, string>> = {}): Promise<readonly string[]> {
    const [own, machine] = [join(directory, 'own'), join(directory, 'machine')];
    await rm(own, { recursive: true, force: true });
    await mkdir(join(own, 'registries.d'), { recursive: true });
    await mkdir(machine, { recursive: true });
    if (policy !== undefined) {
      await writeFile(join(own, 'policy.json'), typeof policy === 'string' ? policy : JSON.stringify(policy));
    }
    await writeFile(join(machine, 'policy.json'), JSON.stringify({ default: signed }));
    for (const [name, text] of Object.entries(registries)) await writeFile(join(own, 'registries.d', name), text);
    const findings = findSignatureTraps([own, machine]);
    assert.ok(findings.every(({ level, hint }) => level === 'warn' && hint !== undefined));
    return findings.map(({ message }) => message);
  }

  test('a policy that accepts everything, and files that make no sense, have nothing to say', async () => {
    for (const policy of [{ default: accepting }, { default: accepting, transports: null }, '{', '[]', { default: 1 }])
      assert.deepEqual(await look(policy), []);
    const ordinary = 'default-docker:\n  # use-sigstore-attachments: true\n  lookaside-staging: file:///signatures\n';
    assert.deepEqual(await look({ default: accepting }, { 'default.yaml': ordinary, 'notes.txt': 'x' }), []);
    assert.deepEqual(findSignatureTraps([join(directory, 'nowhere')]), []);
  });

  test('whose images a policy wants signed is said', async () => {
    const policy = {
      default: signed,
      transports: { docker: { 'registry.example': [{ type: 'signedBy' }], 'open.example': accepting } },
    };
    const [message, ...none] = await look(policy);
    assert.deepEqual(none, []);
    assert.match(
      message ?? '',
      /from registries without a rule of their own, registry\.example: podman, buildah and CRI-O/,
    );
    assert.equal((await look(undefined)).length, 1, "the machine's holds where the user has none");
  });

  test('a file that has signatures of cosign read is named', async () => {
    const reading = 'docker:\n  registry.example:\n    use-sigstore-attachments: true\n';
    assert.match((await look({ default: accepting }, { 'a.yaml': reading })).join(), /signatures of cosign/);
  });
});
