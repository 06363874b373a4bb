// Which runtime decrypts an image that is named in which way, signed or not: every combination is run, and docs/runtimes.md is its table.

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { nameByDigestTag } from '../../src/image/model/digest-tag.ts';
import { parseImageReference } from '../../src/image/model/reference.ts';
import { RUNTIMES, type Runtime, type RuntimeName, runtimeName } from '../../src/image/runtimes.ts';
import { createImageWorkspace, type ImageWorkspace } from '../end-to-end/image-workspace.ts';
import { executable, keyprovider, succeed } from '../end-to-end/workspace.ts';
import { writeImage, writeIndex } from '../fixtures/images.ts';
import { createRuntimes, type Pull, runtimeArgv, runtimeVersions } from '../peers/runtimes.ts';
import { type Environment, runClient } from '../real-clients/process.ts';
import { type Registry, startRegistry } from '../real-clients/registry.ts';

/** How the image stands to signatures, and the node; `reads` says whether it fetches them. */
const CASES = [
  { said: 'not signed', repository: 'unsigned', node: 'careless', reads: false },
  { said: 'signed by cosign', repository: 'signed', node: 'careless', reads: false },
  { said: 'signed by cosign, read as `registries.d` says', repository: 'signed', node: 'reading', reads: true },
  { said: 'signed by cosign, enforced by `policy.json`', repository: 'signed', node: 'enforcing', reads: true },
  { said: 'signed by GPG, enforced by `policy.json`', repository: 'gpg', node: 'lookaside', reads: true },
] as const;
const NODES = ['careless', 'reading', 'demanding', 'enforcing', 'lookaside'] as const;
type Node = (typeof NODES)[number];

/** What containers/image says of a refusal, and how the table says it. */
const REASONS = [
  [/should be decrypted.*Destination specifies a digest/, 'digest'],
  [/should be decrypted.*Would invalidate signatures/, 'signature'],
] as const;
/** Without a log of signatures, which would be a service elsewhere. */
const KEY_ALONE = ['--key=cosign.key', '--tlog-upload=false', '--yes'];
const DOCUMENT = new URL('../../docs/runtimes.md', import.meta.url);

const cleanups: (() => unknown)[] = [];
after(async () => {
  for (const cleanup of cleanups.reverse()) await cleanup();
});
const t = { after: (cleanup: () => unknown) => void cleanups.push(cleanup) };
let workspace: ImageWorkspace;
let registry: Registry;
let pulls: Readonly<Record<Runtime, Pull>>;
const environments = new Map<Node, Environment>();
const rows: string[] = [];

before(async () => {
  workspace = await createImageWorkspace(t);
  registry = await startRegistry();
  t.after(registry.stop);
  const { path, key, providers } = workspace;
  const provider = await providers({ kmscrypt: keyprovider(`--key=${key.file}`) });
  for (const node of NODES) {
    const home = path(node);
    await mkdir(join(home, '.config/containers/registries.d'), { recursive: true });
    environments.set(node, { ...provider, HOME: home, XDG_RUNTIME_DIR: home, SSL_CERT_FILE: registry.authority });
    await setUp(home, node);
  }
  const words = ['config', 'containerd', '--decoder=ctd-decoder', '--runtime-version=1.7'];
  const { stdout } = await succeed(runClient([executable(), ...words]));
  const containerdConfig = new TextDecoder().decode(stdout);
  pulls = await createRuntimes({ directory: workspace.directory, registry, containerdConfig });

  const source = await writeImage(path('plain'), { layers: [{}] });
  const index = await writeIndex(path('index'), [
    { layers: [{}] },
    { platform: { os: 'linux', architecture: 'arm64' }, layers: [{}] },
  ]);
  for (const repository of ['unsigned', 'signed', 'index', 'recursive']) {
    const image = registry.reference(`${repository}:1`);
    const trust = `--ca=${registry.authority}`;
    const { digest } = await workspace.ours(
      ...[
        'encrypt',
        (repository.endsWith('signed') ? source : index).reference,
        image,
        '--recipient',
        key.uri,
        '--digest-tag',
        trust,
      ],
    );
    const flags = repository === 'recursive' ? ['--recursive'] : [];
    if (repository !== 'unsigned') await sign(`${registry.host}/${repository}@${digest}`, flags);
  }
  await signByGpg();
});

/** What a node reads of signatures, as containers-policy.json(5) and containers-registries.d(5) have it. */
async function setUp(home: string, node: Node): Promise<void> {
  const fallback = [{ type: 'insecureAcceptAnything' }];
  const signedIdentity = { type: 'matchRepository' };
  const cosign = { type: 'sigstoreSigned', keyPath: workspace.path('cosign.pub'), signedIdentity };
  const gpg = { type: 'signedBy', keyType: 'GPGKeys', keyPath: workspace.path('gpg.pub'), signedIdentity };
  const demanded = {
    careless: fallback,
    reading: fallback,
    demanding: [cosign],
    enforcing: [cosign],
    lookaside: [gpg],
  };
  const policy = { default: fallback, transports: { docker: { [registry.host]: demanded[node] } } };
  await writeFile(join(home, '.config/containers/policy.json'), JSON.stringify(policy));
  const attachments = { 'use-sigstore-attachments': true };
  const place = `file://${workspace.path('signatures')}`;
  const lookaside = { lookaside: place, 'lookaside-staging': place };
  const found = { careless: {}, reading: attachments, demanding: {}, enforcing: attachments, lookaside };
  // JSON is YAML.
  const registries = { docker: { [registry.host]: found[node] } };
  await writeFile(join(home, '.config/containers/registries.d/registry.yaml'), JSON.stringify(registries));
}

/** The image without a signature, copied under another name with one of GnuPG beside it. */
async function signByGpg(): Promise<void> {
  const GNUPGHOME = workspace.path('gnupg');
  await mkdir(GNUPGHOME, { mode: 0o700 });
  const env = { ...environments.get('lookaside'), GNUPGHOME };
  const gpg = (...words: readonly string[]) => succeed(runClient(['gpg', '--batch', ...words], { env }));
  await gpg('--passphrase', '', '--quick-gen-key', 'builder@example', 'rsa3072', 'sign', 'never');
  t.after(() => runClient(['gpgconf', '--kill', 'all'], { env }));
  await gpg('--armor', '--output', workspace.path('gpg.pub'), '--export', 'builder@example');
  const trust = [`--src-cert-dir=${registry.certificateDirectory}`, `--dest-cert-dir=${registry.certificateDirectory}`];
  const skopeo = [
    ...(await runtimeArgv('skopeo')),
    '--insecure-policy',
    'copy',
    ...trust,
    '--preserve-digests',
  ] as const;
  for (const { name } of await namesOf('unsigned')) {
    const copy = name.replace('/unsigned', '/gpg');
    if (name.includes('@')) continue;
    await succeed(runClient([...skopeo, '--sign-by=builder@example', `docker://${name}`, `docker://${copy}`], { env }));
  }
}

async function sign(image: string, flags: readonly string[]): Promise<void> {
  const cosign = await runtimeArgv('cosign');
  const env = { COSIGN_PASSWORD: '', SSL_CERT_FILE: registry.authority };
  const cwd = workspace.directory;
  if (!existsSync(workspace.path('cosign.key')))
    await succeed(runClient([...cosign, 'generate-key-pair'], { env, cwd }));
  await succeed(runClient([...cosign, 'sign', ...KEY_ALONE, ...flags, image], { env, cwd }));
}

/** The three names of an image. */
async function namesOf(repository: string): Promise<readonly RuntimeName[]> {
  const image = parseImageReference(registry.reference(`${repository}:1`));
  assert.ok(image.transport === 'docker');
  const { stdout } = await workspace.ours(
    'inspect',
    registry.reference(`${repository}:1`),
    '--json',
    `--ca=${registry.authority}`,
  );
  const { digest }: { readonly digest: string } = JSON.parse(stdout);
  return [image, { ...image, tag: undefined, digest }, nameByDigestTag(image, digest)].map(runtimeName);
}

/** `decrypts`, or why not. */
async function pull(runtime: Runtime, name: string, node: Node): Promise<string> {
  const { exitCode, stderr } = await pulls[runtime](name, environments.get(node) ?? {});
  if (exitCode === 0) return 'decrypts';
  const reason = REASONS.find(([pattern]) => pattern.test(stderr))?.[1];
  assert.ok(reason !== undefined, `${runtime} ${name}: ${stderr}`);
  return `refuses: ${reason}`;
}

describe('an encrypted image is decrypted or refused by its name and its signatures', () => {
  for (const { said, repository, node, reads } of CASES) {
    test(said, async () => {
      for (const { name, kind, runtimes } of await namesOf(repository)) {
        const cells: string[] = [];
        for (const runtime of RUNTIMES) {
          const expected = !runtimes.includes(runtime) ? 'digest' : reads && runtime !== 'containerd' && 'signature';
          cells.push(await pull(runtime, name, node));
          assert.equal(cells.at(-1), expected === false ? 'decrypts' : `refuses: ${expected}`, `${runtime} by ${kind}`);
        }
        rows.push(`| ${[said, kind, ...cells].join(' | ')} |`);
      }
    });
  }
});

test('the table in docs/runtimes.md is of this run', async () => {
  assert.equal(rows.length, 15);
  const versions = await runtimeVersions();
  const head = ['image', 'named by', ...RUNTIMES.map((runtime) => `${runtime} ${versions[runtime]}`)];
  const table = [`| ${head.join(' | ')} |`, `|${head.map(() => '---|').join('')}`, ...rows].join('\n');
  const document = await readFile(DOCUMENT, 'utf8');
  const current = document.replace(/^\| image \|[\s\S]*?\n(?=\n)/m, `${table}\n`);
  assert.ok(current.includes(table));
  await writeFile(DOCUMENT, current);
});

test('a policy refuses an image without a signature that is read, and no runtime decrypts without a key', async () => {
  const [byTag] = await namesOf('unsigned');
  const [signed] = await namesOf('signed');
  assert.ok(byTag && signed);
  for (const runtime of ['podman', 'buildah', 'CRI-O'] as const) {
    for (const [name, node] of [
      [byTag.name, 'enforcing'],
      [signed.name, 'demanding'],
    ] as const) {
      const { exitCode, stderr } = await pulls[runtime](name, environments.get(node) ?? {});
      assert.notEqual(exitCode, 0);
      assert.match(stderr, /no signature exists/i);
    }
  }
  const { OCICRYPT_KEYPROVIDER_CONFIG, ...withoutKeys } = environments.get('careless') ?? {};
  for (const runtime of RUNTIMES) assert.notEqual((await pulls[runtime](byTag.name, withoutKeys)).exitCode, 0, runtime);
});

test('skopeo copies what a digest names to the storage of podman and buildah, after it has checked the signature', async () => {
  const storage = `vfs@${workspace.path('copied/storage')}+${workspace.path('copied/run')}`;
  const skopeo = await runtimeArgv('skopeo');
  const copy = async (repository: string) => {
    const [, byDigest] = await namesOf(repository);
    const to = `containers-storage:[${storage}]${registry.host}/${repository}:1`;
    const flags = ['--remove-signatures', '--decryption-key=provider:kmscrypt'];
    const trust = `--src-cert-dir=${registry.certificateDirectory}`;
    return runClient([...skopeo, 'copy', ...flags, trust, `docker://${byDigest?.name}`, to], {
      env: environments.get('enforcing') ?? {},
    });
  };
  await succeed(copy('signed'));
  await succeed(copy('recursive'));
  const places = [`--root=${workspace.path('copied/storage')}`, `--runroot=${workspace.path('copied/run')}`];
  for (const [program, ...words] of [
    ['podman', 'image', 'exists'],
    ['buildah', 'inspect', '--type=image'],
  ] as const) {
    const argv = [...(await runtimeArgv(program)), ...places, '--storage-driver=vfs', ...words] as const;
    await succeed(runClient([...argv, `${registry.host}/signed:1`], { env: environments.get('careless') ?? {} }));
  }
  for (const repository of ['unsigned', 'index']) {
    const refused = await copy(repository);
    assert.notEqual(refused.exitCode, 0);
    assert.match(refused.stderr, /no signature exists/i);
  }
});

test('of an index podman, buildah and CRI-O look for the signature of the platform', async () => {
  const [byTag] = await namesOf('index');
  assert.ok(byTag);
  for (const runtime of ['podman', 'buildah', 'CRI-O'] as const) {
    assert.equal(await pull(runtime, byTag.name, 'reading'), 'decrypts');
    assert.match(
      (await pulls[runtime](byTag.name, environments.get('enforcing') ?? {})).stderr,
      /no signature exists/i,
    );
  }
  const [recursive] = await namesOf('recursive');
  assert.ok(recursive);
  assert.equal(await pull('podman', recursive.name, 'enforcing'), 'refuses: signature');
});

test('a name with both a tag and a digest is one with a digest', async () => {
  const [, byDigest] = await namesOf('unsigned');
  const both = byDigest?.name.replace('@', ':1@') ?? '';
  for (const runtime of ['podman', 'buildah'] as const) {
    assert.equal(await pull(runtime, both, 'careless'), 'refuses: digest');
  }
  assert.equal(await pull('containerd', both, 'careless'), 'decrypts');
});
