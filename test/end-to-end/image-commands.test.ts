// The image commands as users meet them: a registry, other providers, new keys for old layers, verdicts, JSON.

import assert from 'node:assert/strict';
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { createCertificateAuthority } from '../fixtures/certificates.ts';
import { blobPath, readImages, writeImage, writeIndex } from '../fixtures/images.ts';
import { writeRsaKey } from '../fixtures/keys.ts';
import { runOnPseudoTerminal } from '../fixtures/pseudo-terminal.ts';
import { startRegistry } from '../real-clients/registry.ts';
import { copy } from '../real-clients/skopeo.ts';
import { realClients } from '../real-clients/tools.ts';
import { startRunning } from '../server/running.ts';
import { assertRefused, createImageWorkspace } from './image-workspace.ts';
import { digests, executable, keyprovider, packetsOf, readImage, succeed } from './workspace.ts';

test('an image goes encrypted to a registry with a password, changes its keys there, and comes back', async (t) => {
  if (!(await realClients(t, ['skopeo', 'docker-registry']))) return;
  const { path, oci, key, keygen, ours, refused, providers } = await createImageWorkspace(t);
  const credentials = { username: 'ci', password: 'correct horse' };
  const registry = await startRegistry({ credentials });
  t.after(registry.stop);
  const auth = Buffer.from(`${credentials.username}:${credentials.password}`).toString('base64');
  await writeFile(path('auth.json'), JSON.stringify({ auths: { [registry.host]: { auth } } }));
  const access = [`--ca=${registry.authority}`, `--authfile=${path('auth.json')}`];
  const remote = registry.reference('team/app:1');
  const second = await keygen('second.key');
  const source = await writeIndex(path('plain'), [
    { layers: [{ size: 3_000_000 }, {}] },
    { platform: { os: 'linux', architecture: 'arm64' }, layers: [{}] },
  ]);

  await refused('unauthenticated', 'encrypt', source.reference, remote, '--recipient', key.uri, access[0] ?? '');
  const digestfile = `--digestfile=${path('digest')}`;
  const encrypted = await ours('encrypt', source.reference, remote, '--recipient', key.uri, digestfile, ...access);
  assert.equal(await readFile(path('digest'), 'utf8'), encrypted.digest);
  assert.ok(encrypted.stderr.includes(`cosign sign --recursive ${registry.host}/team/app@${encrypted.digest}`));

  const rewrapped = await ours('rewrap', remote, '--recipient', second.uri, '--key', key.file, ...access);
  assert.notEqual(rewrapped.digest, encrypted.digest);
  await ours(
    'verify',
    remote,
    '--require',
    second.uri,
    '--only',
    second.uri,
    '--unwrap',
    '--key',
    second.file,
    ...access,
  );
  await refused('not-allowed', 'decrypt', remote, oci('never'), '--key', key.file, ...access);
  await ours('decrypt', remote, oci('opened'), '--key', second.file, '--check-diff-ids', ...access);
  assert.deepEqual(
    (await readImages(path('opened'))).map(({ layers }) => digests(layers)),
    source.images.map(({ layers }) => digests(layers)),
  );
  // Nobody is revoked: the old manifest is there by its digest.
  const old = `docker://${registry.host}/team/app@${encrypted.digest}`;
  await ours('decrypt', old, oci('old'), '--key', key.file, ...access);
  assert.equal((await readImages(path('old'))).length, 2);

  const env = await providers({ kmscrypt: keyprovider(`--key=${second.file}`) });
  await succeed(copy(remote, oci('theirs'), { env, registry, decryptionKeys: ['provider:kmscrypt'], all: true }));
  assert.deepEqual(
    (await readImages(path('theirs'))).map(({ layers }) => digests(layers)),
    source.images.map(({ layers }) => digests(layers)),
  );
});

test('a configured provider is asked over a unix socket, and over TLS as ocicrypt 1.3 has it', async (t) => {
  const { directory, path, oci, run } = await createImageWorkspace(t);
  const { issue, certificate: authority } = await createCertificateAuthority(path('authority'));
  const server = await issue('server', { usage: 'server' });
  const running = await startRunning(t, {
    listen: [`unix://${join(directory, 'provider.sock')}`, 'tls://127.0.0.1:0'],
    server: {
      listener: {
        access: { mode: 0o600, group: undefined },
        tls: { ...server, clientAuthority: undefined, minVersion: 'TLSv1.3' },
        insecurePlaintext: false,
      },
    },
  });
  const [, secure] = running.targets;
  assert.ok(secure?.kind === 'tls');
  const grpc = `127.0.0.1:${secure.port}`;
  const config = path('ocicrypt.json');
  await writeFile(
    config,
    JSON.stringify({
      'key-providers': {
        socket: { grpc: `unix://${join(directory, 'provider.sock')}` },
        secure: { grpc, 'grpc-tls': { 'root-ca-file': authority } },
        clear: { grpc: 'example.com:50051' },
        unverified: { grpc, 'grpc-tls': { 'insecure-skip-verify': true } },
        strange: { grpc, 'grpc-tls': { 'root-ca-file': server.certificate, 'server-name': 'example.com' } },
        nothing: { path: '/bin/true' },
        missing: { cmd: { path: '/nonexistent/provider' } },
        broken: { cmd: { path: '/bin/sh', args: ['-c', 'echo "no key for you" >&2; exit 3'] } },
        silent: { cmd: { path: '/bin/sh', args: ['-c', 'echo {}'] } },
      },
    }),
  );
  const env = { OCICRYPT_KEYPROVIDER_CONFIG: config };
  const source = await writeImage(path('plain'), { layers: [{}, {}] });
  const encrypt = (name: string) =>
    run(['encrypt', source.reference, oci(name), '--recipient', `provider:${name}:${running.key}`], env);
  for (const name of ['socket', 'secure']) {
    const encrypted = await encrypt(name);
    assert.equal(encrypted.exitCode, 0, encrypted.stderr);
    const opened = await run(['decrypt', oci(name), oci(`${name}-opened`)], env);
    assert.equal(opened.exitCode, 0, opened.stderr);
    assert.equal((await readImage(path(`${name}-opened`))).digest, source.digest);
  }
  for (const name of ['clear', 'unverified', 'nothing', 'missing', 'absent']) {
    assertRefused(await encrypt(name), 'configuration');
  }
  assertRefused(await encrypt('strange'), 'unavailable');
  assertRefused(await encrypt('broken'), 'unavailable');
  assertRefused(await encrypt('silent'), 'bad-input');
  assert.deepEqual(
    (await readdir(directory)).filter((name) => /^(clear|broken|silent)$/.test(name)),
    [],
  );
});

test('recipients are added, removed and replaced, and layers stay what they are', async (t) => {
  if (!(await realClients(t, ['skopeo']))) return;
  const { directory, path, oci, key, keygen, ours, refused, providers } = await createImageWorkspace(t);
  const colleague = await keygen('colleague.key');
  const rsa = await writeRsaKey(directory, 'rsa');
  const source = await writeIndex(path('plain'), [
    { layers: [{}, {}] },
    { platform: { os: 'linux', architecture: 'arm64' }, layers: [{}] },
  ]);
  const image = oci('image');
  const both = ['--recipient', key.uri, '--recipient', colleague.uri, '--context', 'env=prod'];
  await ours('encrypt', source.reference, image, ...both);
  const before = await readImages(path('image'), 'latest');
  const keysOf = async () =>
    (await readImages(path('image'), 'latest')).flatMap(({ layers }) => layers.map((layer) => packetsOf(layer)));

  const dry = await ours('rewrap', image, '--add', `jwe:${rsa.publicKey}`, '--key', key.file, '--dry-run');
  assert.ok(dry.stderr.includes('+ jwe'));
  assert.deepEqual(await readImages(path('image'), 'latest'), before);

  const packets = await keysOf();
  await ours('rewrap', image, '--add', `jwe:${rsa.publicKey}`, '--key', key.file);
  assert.deepEqual(await keysOf(), packets, 'the other entries stay byte for byte');
  await succeed(copy(image, oci('by-rsa'), { decryptionKeys: [rsa.privateKey], all: true }));

  // Who stays is wrapped anew, with the labels of before, and must be at hand where it is a key file.
  await refused(
    'not-allowed',
    'rewrap',
    image,
    '--remove',
    key.thumbprint,
    '--key',
    colleague.file,
    '--context',
    'env=dev',
  );
  await ours('rewrap', image, '--remove', key.thumbprint, '--key', colleague.file);
  const after = (await keysOf()).flat();
  assert.ok(after.every((packet) => packet.includes(colleague.thumbprint) && !packet.includes(key.thumbprint)));
  assert.ok(after.every((packet) => packet.includes('prod')));
  await refused('not-allowed', 'decrypt', image, oci('never'), '--key', key.file);
  await refused('not-found', 'rewrap', image, '--remove', key.thumbprint, '--key', colleague.file);
  await ours('rewrap', image, '--remove', 'jwe', '--key', colleague.file);
  await ours('verify', image, '--only', colleague.thumbprint);
  await refused('bad-input', 'rewrap', image, '--remove', colleague.thumbprint, '--key', colleague.file);

  const last = await ours('rewrap', image, '--recipient', key.uri, '--key', colleague.file);
  assert.ok(last.stderr.includes('no access was revoked'));
  const env = await providers({ kmscrypt: keyprovider(`--key=${key.file}`, '--context', 'env=prod') });
  await succeed(copy(image, oci('theirs'), { env, decryptionKeys: ['provider:kmscrypt'], all: true }));
  const rewrapped = await readImages(path('image'), 'latest');
  assert.deepEqual(
    rewrapped.map(({ layers }) => digests(layers)),
    before.map(({ layers }) => digests(layers)),
  );
});

test('the clients of an image open it after rewrap: its keys stay under the name that they know', async (t) => {
  if (!(await realClients(t, ['skopeo']))) return;
  const { path, oci, key, keygen, ours, refused, providers } = await createImageWorkspace(t);
  const next = await keygen('next.key');
  const source = await writeImage(path('plain'), { layers: [{}, {}] });
  const image = oci('image');
  const namesIn = async () => {
    const [{ layers } = assert.fail()] = await readImages(path('image'), 'latest');
    return layers.map(({ annotations = {} }) =>
      Object.keys(annotations).filter((name) => name.startsWith('org.opencontainers.image.enc.keys.')),
    );
  };
  const only = (name: string) => [0, 1].map(() => [`org.opencontainers.image.enc.keys.provider.${name}`]);
  await ours('encrypt', source.reference, image, '--recipient', key.uri, '--provider', 'grpc-keyprovider');
  for (const [change, old] of [
    [['--recipient', next.uri], key],
    [['--add', key.uri], next],
    [['--remove', next.thumbprint], key],
  ] as const) {
    await ours('rewrap', image, ...change, '--key', old.file);
    assert.deepEqual(await namesIn(), only('grpc-keyprovider'), change.join(' '));
    const env = await providers({ 'grpc-keyprovider': keyprovider(`--key=${key.file}`, `--key=${next.file}`) });
    await succeed(copy(image, oci('opened'), { env, decryptionKeys: ['provider:grpc-keyprovider'] }));
  }
  // Another name is the operator's to say; of several none is guessed.
  await ours('rewrap', image, '--add', next.uri, '--provider', 'kmscrypt', '--key', key.file);
  await refused('usage', 'rewrap', image, '--recipient', key.uri, '--key', key.file);
  await ours('rewrap', image, '--recipient', key.uri, '--provider', 'kmscrypt', '--key', key.file);
  assert.deepEqual(await namesIn(), only('kmscrypt'));
});

test('verify says yes and no, and what it rests on', async (t) => {
  const { directory, path, oci, key, keygen, ours, refused, run } = await createImageWorkspace(t);
  const other = await keygen('other.key');
  const rsa = await writeRsaKey(directory, 'rsa');
  const source = await writeImage(path('plain'), { layers: [{}, {}] });
  const [full, part, mixed] = [oci('full'), oci('part'), oci('mixed')];
  await ours('encrypt', source.reference, full, '--recipient', key.uri);
  await ours('encrypt', source.reference, part, '--recipient', key.uri, '--layer', '0');
  await ours('encrypt', source.reference, mixed, '--recipient', key.uri, '--recipient', `jwe:${rsa.publicKey}`);

  await ours('verify', full);
  await ours('verify', full, '--require', key.uri);
  await ours('verify', full, '--require', key.thumbprint, '--unwrap', '--key', key.file);
  await ours('verify', mixed, '--require', key.uri, '--unwrap');
  for (const words of [
    [source.reference],
    [part],
    [full, '--require', other.uri],
    [full, '--only', other.uri],
    [mixed, '--only', key.uri],
    [full, '--unwrap', '--key', other.file],
  ]) {
    const result = await refused('integrity', 'verify', ...words);
    assert.ok(result.stdout.startsWith('FAIL'), result.stdout);
  }
  // A key that only its service could tell from others proves nothing.
  await refused('usage', 'verify', full, '--require', 'awskms:///alias/app');
  await refused('deadline-exceeded', 'verify', full, '--content', '--key', key.file, '--timeout=1ms');
  // Nor does one that is named by thumbprint, with no file that holds it: it is not asked.
  const unasked = await refused('configuration', 'verify', full, '--require', key.thumbprint, '--unwrap');
  assert.equal(unasked.stdout, '');

  const json = await run(['verify', part, '--json']);
  assert.equal(json.exitCode, 76);
  const verdict = JSON.parse(json.stdout);
  assert.deepEqual([verdict.ok, verdict.proven, verdict.reasons.length], [false, false, 1]);
  const proven = JSON.parse((await ours('verify', full, '--unwrap', '--key', key.file, '--json')).stdout);
  assert.deepEqual([proven.ok, proven.proven, proven.reasons], [true, true, []]);
});

test('inspect names who can open what, without a key, as a table and as JSON', async (t) => {
  const { path, oci, key, ours } = await createImageWorkspace(t);
  const source = await writeImage(path('plain'), { layers: [{}, {}] });
  const words = ['--recipient', key.uri, '--layer', '1', '--context', 'env=prod'];
  const { digest } = await ours('encrypt', source.reference, oci('encrypted'), ...words);
  const table = await ours('inspect', oci('encrypted'));
  for (const text of [digest, 'linux/amd64', 'PLAIN', 'AES_256_CTR_HMAC_SHA256', key.thumbprint, 'env=prod']) {
    assert.ok(table.stdout.includes(text), text);
  }
  const report = JSON.parse((await ours('inspect', oci('encrypted'), '--json')).stdout);
  assert.equal(report.digest, digest);
  assert.deepEqual(
    report.platforms[0].layers.map((layer: { readonly encrypted: boolean }) => layer.encrypted),
    [false, true],
  );
  assert.equal(report.platforms[0].layers[1].keys[0].recipients[0].key, key.thumbprint);
});

test('recipients come from a file, for the repository', async (t) => {
  const { path, oci, key, keygen, ours, refused } = await createImageWorkspace(t);
  const other = await keygen('other.key');
  const source = await writeImage(path('plain'), { layers: [{}] });
  await writeFile(path('recipients'), `# production\n${key.uri}\n\n  ${other.uri}\r\n`);
  await ours('encrypt', source.reference, oci('encrypted'), `--recipients-file=${path('recipients')}`, '--json');
  await ours('verify', oci('encrypted'), '--require', key.uri, '--require', other.uri);
  await writeFile(path('recipients'), '# nobody\n');
  await refused('bad-input', 'encrypt', source.reference, oci('x'), `--recipients-file=${path('recipients')}`);
  await refused('not-found', 'encrypt', source.reference, oci('x'), '--recipients-file=/nonexistent');
});

test('a name without a tag stands for the only image, before and after a change in place', async (t) => {
  const { path, key, keygen, ours, refused } = await createImageWorkspace(t);
  const other = await keygen('other.key');
  const source = await writeImage(path('plain'), { layers: [{}, {}] });
  for (const [kind, name] of [
    ['oci', 'image'],
    ['oci-archive', 'image.tar'],
  ]) {
    const image = `${kind}:${path(name ?? '')}`;
    await ours('encrypt', source.reference, `${image}:v1`, '--recipient', key.uri);
    const rewrapped = await ours('rewrap', image, '--recipient', other.uri, '--key', key.file);
    assert.equal(JSON.parse((await ours('inspect', image, '--json')).stdout).digest, rewrapped.digest);
    const decrypted = await ours('decrypt', image, image, '--key', other.file);
    assert.equal(decrypted.digest, source.digest);
    const encrypted = await ours('encrypt', image, image, '--recipient', key.uri);
    // Its tag is the one that it had.
    assert.equal(JSON.parse((await ours('inspect', `${image}:v1`, '--json')).stdout).digest, encrypted.digest);
    await refused('bad-input', 'encrypt', source.reference, image, '--recipient', key.uri);
    await ours('encrypt', source.reference, `${image}:v2`, '--recipient', key.uri);
    await refused('bad-input', 'inspect', image);
  }
});

test('on a terminal the progress is shown, and standard output stays data', async (t) => {
  const { path, oci, key } = await createImageWorkspace(t);
  const source = await writeImage(path('plain'), { layers: [{ size: 3_000_000 }, {}] });
  const words = [
    'encrypt',
    source.reference,
    oci('encrypted'),
    `--recipient=${key.uri}`,
    `--digestfile=${path('digest')}`,
  ];
  // A pseudo-terminal for standard error alone.
  const line = [executable(), ...words, '>', path('stdout')].join(' ');
  const { status, written: shown } = await runOnPseudoTerminal(line, { rows: 24, columns: 120 });
  assert.equal(status, 0);
  for (const { digest } of source.images[0].layers) assert.ok(shown.includes(`encrypt  ${digest.slice(0, 19)}`), shown);
  assert.match(shown, /total +2\.9 MiB of 2\.9 MiB/);
  assert.equal((await readFile(path('stdout'), 'utf8')).trim(), await readFile(path('digest'), 'utf8'));
});

test('a decryption that fails leaves nothing in the clear behind', async (t) => {
  const { directory, path, oci, key, ours, refused } = await createImageWorkspace(t);
  const source = await writeImage(path('plain'), { layers: [{}, { size: 3_000_000 }] });
  await ours('encrypt', source.reference, oci('encrypted'), '--recipient', key.uri);
  const [, large] = (await readImage(path('encrypted'))).layers;
  const file = blobPath(path('encrypted'), large?.digest ?? '');
  const bytes = await readFile(file);
  bytes[1000] = (bytes[1000] ?? 0) ^ 1;
  await writeFile(file, bytes);
  await refused('integrity', 'decrypt', oci('encrypted'), oci('opened'), '--key', key.file);
  assert.ok(!(await readdir(directory)).includes('opened'));
});
