// The doctor's look at a set-up: every trap that files can show, and nothing said of a set-up that works.
import assert from 'node:assert/strict';
import { chmod, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { examineClients } from '../../../src/cli/doctor/clients.ts';
import { findSignatureTraps } from '../../../src/cli/doctor/signatures.ts';

let directory: string;
/** A command that answers an empty request as ours does. */
let ours: string;
before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'doctor-'));
  ours = await script('ocicrypt-kms', 'echo "ocicrypt-kms: bad-input: the request is empty" >&2; exit 65');
});
after(() => rm(directory, { recursive: true, force: true }));

async function script(name: string, text: string): Promise<string> {
  const path = join(directory, name);
  await writeFile(path, `#!/bin/sh\n${text}\n`);
  await chmod(path, 0o755);
  return path;
}

/** The levels and messages of what is found, without what is fine. */
async function examine(providers: unknown): Promise<readonly string[]> {
  const file = join(directory, 'ocicrypt.json');
  await writeFile(file, typeof providers === 'string' ? providers : JSON.stringify(providers));
  const findings = await examineClients({
    OCICRYPT_KEYPROVIDER_CONFIG: file,
    PATH: `${directory}:/usr/bin:/bin`,
  });
  for (const { level, hint } of findings) assert.ok(level === 'ok' || hint !== undefined);
  return findings.filter(({ level }) => level !== 'ok').map(({ level, message }) => `${level} ${message}`);
}

const providers = (entry: unknown) => ({ 'key-providers': { kmscrypt: entry } });

describe('the configuration of key providers', () => {
  test('that works has nothing to say', async () => {
    assert.deepEqual(await examine(providers({ cmd: { path: ours, args: ['keyprovider'] } })), []);
    assert.deepEqual(await examine(providers({ cmd: { path: ours, args: null } })), []);
  });

  test('is read as clients read it: members in any case, what is unknown left alone', async () => {
    const entry = { CMD: { Path: ours, ARGS: [] }, note: 1 };
    assert.deepEqual(await examine({ 'Key-Providers': { kmscrypt: entry }, version: 2 }), []);
  });

  test('that is not named, or is not there, calls no provider', async () => {
    const [unset] = await examineClients({});
    assert.deepEqual([unset?.level, unset?.subject], ['warn', 'OCICRYPT_KEYPROVIDER_CONFIG']);
    const [missing] = await examineClients({ OCICRYPT_KEYPROVIDER_CONFIG: join(directory, 'nowhere.json') });
    assert.equal(missing?.level, 'fail');
  });

  for (const [what, entry, level, pattern] of [
    ['no executable', { cmd: { path: '/etc/passwd' } }, 'fail', /not an executable/],
    ['a directory for a command', { cmd: { path: '/usr' } }, 'fail', /not an executable/],
    ['a command without a path', { cmd: {} }, 'fail', /without a path/],
    ['words that are no texts', { cmd: { path: '/bin/sh', args: [1] } }, 'fail', /args/],
    ['a command found by PATH', { cmd: { path: 'ocicrypt-kms' } }, 'warn', /found as/],
    ['a command that does nothing', { cmd: { path: '/bin/true' } }, 'fail', /no key provider/],
    ['a command that repeats what it is given', { cmd: { path: '/bin/cat' } }, 'fail', /no key provider/],
    ['a command of others', { cmd: { path: '/bin/false' } }, 'warn', /does not answer as/],
    ['the form of the documentation', { path: '/bin/sh', args: [] }, 'fail', /Unsupported keyprovider invocation/],
    ['nothing', {}, 'fail', /neither cmd nor grpc/],
    ['a bare path', { grpc: '/run/provider.sock' }, 'fail', /has the target/],
    ['a URL', { grpc: 'http://127.0.0.1:50051' }, 'fail', /has the target/],
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

  test('with a command that cannot do its work has the reason and the hint of that command', async () => {
    const refusing = await script('refusing', 'echo "ocicrypt-kms: usage: unknown option --alow" >&2; exit 64');
    assert.match(
      (await examine(providers({ cmd: { path: refusing } }))).join(),
      /^fail cannot answer: usage: .*--alow/,
    );
  });

  test('with both kinds says which one counts', async () => {
    const found = await examine(providers({ cmd: { path: ours }, grpc: 'unix:///run/x.sock' }));
    assert.match(found.join(), /^warn has both/);
  });

  test('that is not JSON, or names nothing, is said', async () => {
    for (const text of ['{', '[]', '{}', '{"key-providers":{}}', '{"key-providers":[]}']) {
      assert.match((await examine(text)).join(), /^fail/);
    }
  });

  test('with a socket tells a live one from one that is left over', async () => {
    const path = join(directory, 'live.sock');
    const server = createServer((socket) => void socket.destroy());
    await new Promise<void>((resolve) => server.listen(path, resolve));
    assert.deepEqual(await examine(providers({ grpc: `unix://${path}` })), []);
    assert.deepEqual(await examine(providers({ grpc: `unix:${path}` })), []);
    assert.deepEqual(await examine(providers({ grpc: `unix:${relative('.', path)}` })), []);
    assert.deepEqual(await examine(providers({ grpc: `passthrough:///unix://${path}` })), []);
    await new Promise((resolve) => server.close(resolve));
    const stale = join(directory, 'stale.sock');
    await writeFile(stale, '');
    assert.match((await examine(providers({ grpc: `unix://${stale}` }))).join(), /^fail no server listens/);
  });

  test('with an address takes every spelling that clients take', async (t) => {
    const server = createServer((socket) => void socket.destroy());
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    t.after(() => server.close());
    const address = server.address();
    const port = typeof address === 'object' ? address?.port : 0;
    for (const start of ['', 'dns:', 'dns:///', 'DNS:///', 'passthrough:', 'passthrough:///']) {
      assert.deepEqual(await examine(providers({ grpc: `${start}127.0.0.1:${port}` })), [], start);
    }
    assert.deepEqual(await examine(providers({ grpc: `:${port}` })), []);
    for (const target of ['dns://8.8.8.8/127.0.0.1:1', '127.0.0.1:65536', 'unix://run/x.sock', 'unix:/a%20b']) {
      assert.match((await examine(providers({ grpc: target }))).join(), /^fail .*has the target/, target);
    }
  });
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
