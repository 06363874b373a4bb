// What is shipped is whole: the README's links lead somewhere on npm, licences and commit are in the executable, and nothing tells
// where it was built.
import assert from 'node:assert/strict';
import { existsSync, globSync, readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { bundledPackages, installedPackages } from '../../tools/release/contents.ts';
import { executablePath, runExecutable } from '../fixtures/executable.ts';

const PROJECT = fileURLToPath(new URL('../..', import.meta.url));
const MANIFEST = JSON.parse(readFileSync(join(PROJECT, 'package.json'), 'utf8'));

test('the archive for npm holds every file that its documents name', () => {
  const shipped: readonly string[] = MANIFEST.files;
  for (const path of shipped) assert.ok(existsSync(join(PROJECT, path)), path);
  const documents = globSync(
    shipped.map((path) => (path.endsWith('.md') ? path : `${path}/**/*.md`)),
    { cwd: PROJECT },
  );
  assert.ok(documents.includes('README.md') && documents.includes('docs/keys.md'));
  // Those of docs/security are about the repository, and link to what is in it alone.
  for (const document of documents.filter((path) => !path.startsWith('docs/security/'))) {
    const text = readFileSync(join(PROJECT, document), 'utf8');
    for (const [, link = ''] of text.matchAll(/\]\((?!https?:|#)([^)#\s]+)/g)) {
      const path = normalize(join(dirname(document), link));
      assert.ok(
        shipped.some((entry) => path === entry || path.startsWith(`${entry}/`)),
        `${document}: ${link}`,
      );
    }
  }
  assert.ok(shipped.includes('examples'), 'the README makes an image with it');
});

test('npm finds the repository, by which it completes the links of the README', () => {
  const { repository, homepage, bugs, keywords } = MANIFEST;
  const page = repository.url.replace(/^git\+/, '').replace(/\.git$/, '');
  assert.match(page, /^https:\/\/github\.com\/[\w-]+\/[\w-]+$/);
  assert.deepEqual([homepage, bugs], [`${page}#readme`, `${page}/issues`]);
  assert.ok(keywords.includes('ocicrypt'));
});

test('the executable does not tell where it was built', () => {
  const executable = readFileSync(executablePath());
  assert.ok(executable.includes('/$bunfs/root/'), 'paths are found at all');
  for (const path of [PROJECT, join(PROJECT, 'node_modules').slice(1)]) assert.ok(!executable.includes(path), path);
});

test('version --json names the commit and the platform, and licenses every package that is bundled', async () => {
  const version = JSON.parse((await runExecutable(['version', '--json'])).stdout.toString());
  assert.equal(version.version, MANIFEST.version);
  assert.equal(version.runtime, `bun ${MANIFEST.devDependencies.bun}`);
  assert.equal(version.target, `${process.platform}-${process.arch}`);
  assert.match(version.date, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/);
  assert.match(version.commit, /^(?:[0-9a-f]{40}(?:-changed)?|unknown)$/);

  const licenses = (await runExecutable(['licenses'])).stdout.toString();
  for (const name of ['jose', 'google-auth-library', '@smithy/core', 'BoringSSL', 'JavaScriptCore']) {
    assert.match(licenses, new RegExp(`^${name}`, 'm'));
  }
  assert.match(licenses, /GNU LESSER GENERAL PUBLIC LICENSE/i);
});

test('a package counts as bundled if a byte of it is in the output, in the version of its place', () => {
  const inputs = {
    'src/main.ts': { bytesInOutput: 10 },
    'node_modules/jose/dist/webapi/index.js': { bytesInOutput: 1 },
    'node_modules/@noble/hashes/sha2.js': { bytesInOutput: 0 },
    'node_modules/@noble/post-quantum/node_modules/@noble/hashes/sha3.js': { bytesInOutput: 5 },
  };
  const found = bundledPackages({ outputs: { 'main.js': { inputs } } });
  assert.deepEqual(
    found.map(({ path }) => path),
    ['node_modules/@noble/post-quantum/node_modules/@noble/hashes', 'node_modules/jose'],
  );
  assert.ok(found.every(({ integrity }) => integrity.startsWith('sha512-')));
});

test('what npm installs with the package is the dependencies and theirs, and no tool', () => {
  const names = installedPackages().map(({ name }) => name);
  for (const name of Object.keys(MANIFEST.dependencies)) assert.ok(names.includes(name), name);
  for (const name of Object.keys(MANIFEST.peerDependencies)) {
    assert.equal(MANIFEST.peerDependenciesMeta[name].optional, true, name);
    assert.ok(!names.includes(name), `${name} is for those who need it`);
  }
  assert.ok(!names.includes('typescript') && !names.includes('@biomejs/biome'));
});

test('every package of a cloud is asked for by name, and what is bundled is what was tested', () => {
  const source = globSync('src/**/*.ts', { cwd: PROJECT }).map((file) => readFileSync(join(PROJECT, file), 'utf8'));
  const document = readFileSync(join(PROJECT, 'docs/library.md'), 'utf8');
  for (const name of Object.keys(MANIFEST.peerDependencies)) {
    assert.ok(document.includes(`| \`${name}\` |`), `${name} is in the table of docs/library.md`);
    if (name === 'pkcs11js') continue;
    const uses = source.flatMap((text) => [
      ...text.matchAll(/(import\('([^']+)'\))(?:\.catch\(\s*missingPeer\('([^']+)')?/g),
    ]);
    const ours = uses.filter(([, , imported]) => imported === name);
    assert.ok(ours.length > 0 && ours.every(([, , , asked]) => asked === name), name);
    // Exactly, for the executable.
    assert.match(MANIFEST.devDependencies[name], /^\d+\.\d+\.\d+$/, name);
    const [major] = MANIFEST.devDependencies[name].split('.');
    assert.ok(MANIFEST.peerDependencies[name].startsWith(`^${major}.`), name);
  }
});

test('P29 a Google key needs at most 40 packages, and none that is installed runs a script or lacks its integrity', (t) => {
  const { packages } = JSON.parse(readFileSync(join(PROJECT, 'package-lock.json'), 'utf8'));
  type Locked = { integrity?: string; hasInstallScript?: boolean; dependencies?: Record<string, string> };
  const google = new Map<string, Locked>();
  const visit = (name: string, above: string): void => {
    const nested = `${above}/node_modules/${name}`;
    const path = nested in packages ? nested : `node_modules/${name}`;
    if (google.has(path)) return;
    google.set(path, packages[path]);
    for (const one of Object.keys(packages[path].dependencies ?? {})) visit(one, path);
  };
  visit('google-auth-library', '');
  assert.ok(google.size > 5 && google.size <= 40, [...google.keys()].join());
  const installed = installedPackages();
  for (const { path, integrity } of installed) {
    assert.match(integrity, /^sha512-/, path);
    assert.ok(!packages[path].hasInstallScript, path);
  }
  t.diagnostic(
    `figures: ${google.size} packages for a Google key; ${installed.length} with the package, 0 install scripts`,
  );
});
