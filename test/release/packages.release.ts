// The packages of a release in a new Debian: installed, used, upgraded and removed by dpkg and rpm; that for Alpine is unpacked.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  copyFileSync,
  existsSync,
  globSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  realpathSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { gunzipSync } from 'node:zlib';
import { readBuild, readProduct } from '../../tools/release/contents.ts';
import { makePackage, NFPM, type PackageRequest } from '../../tools/release/packages.ts';
import { fetchDebianRoot, fetchGo, fetchGoSources } from '../peers/fetched.ts';
import { assertMainJob, CHOSEN, enterRoot, IS_WHOLE, muslRoot, released } from './roots.ts';

const PRODUCT = readProduct();

/** What a package manager is told, and what it says when it is done. */
type Manager = {
  readonly format: PackageRequest['format'];
  readonly file: string;
  readonly install: readonly [string, ...string[]];
  readonly upgrade: readonly [string, ...string[]];
  /** Finds files of the package that are changed or missing. */
  readonly verify: readonly [string, ...string[]];
  readonly remove: readonly [string, ...string[]];
  readonly purge?: readonly [string, ...string[]];
};

const MANAGERS: readonly Manager[] = [
  {
    format: 'deb',
    file: '*_amd64.deb',
    install: ['dpkg', '--install'],
    upgrade: ['dpkg', '--install'],
    verify: ['dpkg', '--verify', 'ocicrypt-kms'],
    remove: ['dpkg', '--remove', 'ocicrypt-kms'],
    purge: ['dpkg', '--purge', 'ocicrypt-kms'],
  },
  {
    format: 'rpm',
    file: '*.x86_64.rpm',
    // Debian's rpm knows of nothing that dpkg has installed.
    install: ['rpm', '--install', '--nodeps'],
    upgrade: ['rpm', '--upgrade', '--nodeps'],
    verify: ['rpm', '--verify', '--nodeps', 'ocicrypt-kms'],
    remove: ['rpm', '--erase', 'ocicrypt-kms'],
  },
];

for (const { format, file, install, upgrade, verify, remove, purge } of CHOSEN.includes('linux-x64') ? MANAGERS : []) {
  test(`${format}: a new Debian installs, uses, upgrades and removes it`, async (t) => {
    const root = await debianRoot(t);
    mkdirSync(join(root, 'packages'));
    const older = await olderPackage(root, format);
    const newer = released(file);
    copyFileSync(newer, join(root, 'packages', basename(newer)));
    const run = await enterRoot(root);
    const succeed = async (...words: readonly [string, ...string[]]) => {
      const { exitCode, stdout, stderr } = await run(...words);
      assert.equal(exitCode, 0, `${words.join(' ')}: ${stderr}${Buffer.from(stdout)}`);
      return Buffer.from(stdout).toString();
    };

    await succeed(...install, `/packages/${older}`);
    assert.equal(await succeed('/usr/bin/ocicrypt-kms'), 'the older one\n');
    await succeed(...upgrade, `/packages/${basename(newer)}`);
    assert.equal(await succeed('/usr/bin/ocicrypt-kms', '--version'), `ocicrypt-kms ${PRODUCT.version}\n`);
    assert.equal(await succeed(...verify), '');
    await assertMainJob(root, run);
    await assertServiceWorks(root, succeed);
    for (const path of ['copyright', 'THIRD-PARTY-LICENSES', 'README.md']) {
      assert.ok(existsSync(join(root, 'usr/share/doc/ocicrypt-kms', path)), path);
    }

    await assertShellFiles(root, format, succeed);

    await succeed(...remove);
    for (const path of [
      'usr/share/man/man1/ocicrypt-kms.1.gz',
      'usr/share/bash-completion/completions/ocicrypt-kms',
      'usr/bin/ocicrypt-kms',
      'usr/bin/kms_oci_crypt',
      'usr/lib/systemd/system/ocicrypt-kms.service',
    ]) {
      assert.ok(!existsSync(join(root, path)), path);
    }
    assert.ok(existsSync(join(root, 'etc/ocicrypt-kms/app.key')), 'keys stay');
    if (purge !== undefined) await succeed(...purge);
  });
}

const ALPINE = [
  ['linux-x64-musl', 'x86_64', 'amd64'],
  ['linux-arm64-musl', 'aarch64', 'arm64'],
] as const;
for (const [target, machine, arch] of ALPINE.filter(([name]) => CHOSEN.includes(name))) {
  test(`apk: the package for ${machine} holds what runs with musl, and says what it needs`, async (t) => {
    const root = await muslRoot(join(directoryOf(t), 'root'), arch);
    execFileSync('tar', [
      'xzf',
      released(`*_${machine}.apk`),
      '--ignore-zeros',
      '--warning=no-unknown-keyword',
      '-C',
      root,
    ]);
    const about = readFileSync(join(root, '.PKGINFO'), 'utf8');
    for (const line of [
      'pkgname = ocicrypt-kms',
      `arch = ${machine}`,
      'depend = musl>=1.2.4',
      'depend = libstdc++',
      'depend = libgcc',
    ]) {
      assert.match(about, new RegExp(`^${line.replaceAll('+', '\\+')}$`, 'm'));
    }
    for (const script of ['.post-install', '.post-upgrade', '.pre-deinstall']) {
      assert.match(readFileSync(join(root, script), 'utf8'), /^#!\/bin\/sh\n/);
    }
    const run = await enterRoot(root, arch);
    const { exitCode, stdout } = await run('/usr/bin/ocicrypt-kms', 'version', '--json');
    assert.equal(exitCode, 0);
    assert.equal(JSON.parse(Buffer.from(stdout).toString()).target, target);
  });
}

if (IS_WHOLE)
  test("apk: Alpine's own apk refuses it beside an old musl, installs, upgrades and removes it beside a newer one", async (t) => {
    const root = await alpineRoot(join(directoryOf(t), 'root'));
    const packages = join(root, 'packages');
    mkdirSync(packages);
    const older = await olderPackage(root, 'apk');
    const newer = basename(released('*_x86_64.apk'));
    copyFileSync(released(newer), join(packages, newer));
    const run = await enterRoot(root);
    const apk = (...words: readonly string[]) => run('/sbin/apk', '--no-network', '--allow-untrusted', ...words);
    const succeed = async (...words: readonly string[]) => {
      const { exitCode, stdout, stderr } = await apk(...words);
      assert.equal(exitCode, 0, `${words.join(' ')}: ${stderr}${Buffer.from(stdout)}`);
    };
    const said = async (...words: readonly string[]) =>
      Buffer.from((await run('/usr/bin/ocicrypt-kms', ...words)).stdout).toString();

    const refused = await apk('add', `/packages/${newer}`);
    assert.notEqual(refused.exitCode, 0);
    assert.match(`${Buffer.from(refused.stdout)}${refused.stderr}`, /musl/);

    const libraries = await makeLibraries(packages, await muslRoot(join(directoryOf(t), 'musl'), 'amd64'));
    await succeed('add', ...libraries.map((name) => `/packages/${name}`));
    await succeed('add', `/packages/${older}`);
    assert.equal(await said(), 'the older one\n');
    await succeed('add', `/packages/${newer}`);
    assert.equal(await said('--version'), `ocicrypt-kms ${PRODUCT.version}\n`);
    await assertMainJob(root, run);
    const [, group] = /^ocicrypt-kms:x:\d+:(\d+):/m.exec(readFileSync(join(root, 'etc/passwd'), 'utf8')) ?? [];
    assert.equal(String(lstatSync(join(root, 'etc/ocicrypt-kms')).gid), group, 'its directory is for its user');
    copyFileSync(join(root, 'work/app.key'), join(root, 'etc/ocicrypt-kms/app.key'));
    await succeed('del', 'ocicrypt-kms');
    assert.ok(!existsSync(join(root, 'usr/bin/ocicrypt-kms')));
    assert.ok(existsSync(join(root, 'etc/ocicrypt-kms/app.key')), 'keys stay');
  });

/** Alpine 3.11, with its apk and a musl that is too old: trivy's sources hold its image, as data of their tests. */
async function alpineRoot(root: string): Promise<string> {
  const sources = await fetchGoSources('github.com/aquasecurity/trivy@v0.74.0');
  mkdirSync(root, { recursive: true });
  const archive = join(root, '../alpine');
  mkdirSync(archive);
  execFileSync('tar', ['xzf', join(sources, 'pkg/fanal/test/testdata/alpine-311.tar.gz'), '-C', archive]);
  for (const layer of globSync('*/layer.tar', { cwd: archive }))
    execFileSync('tar', ['xf', join(archive, layer), '-C', root]);
  return root;
}

/** Packages of the libraries that ours needs, as a newer Alpine has them: of those in a root. */
async function makeLibraries(packages: string, libraries: string): Promise<readonly string[]> {
  const nfpm = await fetchGo(NFPM);
  const shared = { arch: 'amd64', platform: 'linux', maintainer: 'nobody <nobody@example.com>', release: '0' };
  const musl = ['ld-musl-x86_64.so.1', 'libc.musl-x86_64.so.1'].map((name) => `/lib/${name}`);
  const wheel = globSync('usr/lib/*', { cwd: libraries }).map((path) => `/${path}`);
  const contents = (paths: readonly string[]) =>
    paths.map((dst) => ({ src: realpathSync(join(libraries, dst)), dst, file_info: { mode: 0o755 } }));
  for (const one of [
    { name: 'musl', version: '1.2.5', provides: ['so:libc.musl-x86_64.so.1=1'], contents: contents(musl) },
    { name: 'libstdc++', version: '14.2.0', contents: contents(wheel) },
    { name: 'libgcc', version: '14.2.0', contents: [] },
  ]) {
    const config = join(packages, `${one.name}.json`);
    writeFileSync(config, JSON.stringify({ ...shared, ...one }));
    execFileSync(nfpm, ['package', `--config=${config}`, '--packager=apk', `--target=${packages}`]);
  }
  return globSync('{musl,libstdc++,libgcc}*.apk', { cwd: packages });
}

/** An overlay, so that the fetched root stays as it is. */
async function debianRoot(t: TestContext): Promise<string> {
  const directory = directoryOf(t, () => execFileSync('umount', ['--lazy', root]));
  const lower = await fetchDebianRoot(['rpm']);
  const [upper, work, root] = [join(directory, 'upper'), join(directory, 'work'), join(directory, 'root')] as const;
  for (const path of [upper, work, root]) mkdirSync(path);
  execFileSync('mount', [
    '-t',
    'overlay',
    'overlay',
    '-o',
    `lowerdir=${lower},upperdir=${upper},workdir=${work}`,
    root,
  ]);
  return root;
}

/** A package of an earlier version, whose executable is a script. @returns the name of its file in `packages` */
async function olderPackage(root: string, format: PackageRequest['format']): Promise<string> {
  const directory = join(root, 'packages');
  const workspace = mkdtempSync(join(tmpdir(), 'older-'));
  try {
    const executable = join(workspace, 'program');
    writeFileSync(executable, '#!/bin/sh\necho the older one\n');
    const request = { arch: 'amd64', format, executable, licenses: executable } as const;
    const product = { ...PRODUCT, version: '0.0.1' };
    makePackage(await fetchGo(NFPM), request, product, readBuild(), directory, workspace);
  } finally {
    rmSync(workspace, { recursive: true });
  }
  const [name = ''] = globSync('*0.0.1*', { cwd: directory });
  return name;
}

/** As systemd starts it: the package's user, with a key of root's that its group may read. */
async function assertServiceWorks(
  root: string,
  succeed: (...words: readonly [string, ...string[]]) => Promise<string>,
): Promise<void> {
  const unit = readFileSync(join(root, 'usr/lib/systemd/system/ocicrypt-kms.service'), 'utf8');
  const [, started = ''] =
    /^ExecStart=(\/usr\/bin\/ocicrypt-kms serve --config=\/etc\/ocicrypt-kms\/config\.yaml\b.*)$/m.exec(unit) ?? [];
  assert.notEqual(started, '', unit);
  assert.match(unit, /^User=ocicrypt-kms$/m);
  assert.equal(await succeed('stat', '--format=%A %U %G', '/etc/ocicrypt-kms'), 'drwxr-x--- root ocicrypt-kms\n');
  copyFileSync(join(root, 'work/app.key'), join(root, 'etc/ocicrypt-kms/app.key'));
  chmodSync(join(root, 'etc/ocicrypt-kms/app.key'), 0o640);
  await succeed('chgrp', 'ocicrypt-kms', '/etc/ocicrypt-kms/app.key');
  const doctor = '/usr/bin/ocicrypt-kms doctor keyfile:///etc/ocicrypt-kms/app.key';
  assert.match(await succeed('su', '--shell=/bin/sh', 'ocicrypt-kms', `--command=${doctor}`), /ok/);
  // Beside the socket and the directory for logs, which systemd makes.
  writeFileSync(join(root, 'etc/ocicrypt-kms/config.yaml'), 'key: [/etc/ocicrypt-kms/app.key]\n');
  await succeed('install', '--directory', '--owner=ocicrypt-kms', '/var/log/ocicrypt-kms');
  const check = `${started} --listen=unix:///var/log/ocicrypt-kms/socket --check`;
  await succeed('su', '--shell=/bin/sh', 'ocicrypt-kms', `--command=${check}`);
}

/** Completions are those that the executable prints, and every command has a page. */
async function assertShellFiles(
  root: string,
  format: PackageRequest['format'],
  succeed: (...words: readonly [string, ...string[]]) => Promise<string>,
): Promise<void> {
  const zsh = format === 'deb' ? 'vendor-completions' : 'site-functions';
  for (const [shell, path] of [
    ['bash', 'bash-completion/completions/ocicrypt-kms'],
    ['zsh', `zsh/${zsh}/_ocicrypt-kms`],
    ['fish', 'fish/vendor_completions.d/ocicrypt-kms.fish'],
  ] as const) {
    const packed = readFileSync(join(root, 'usr/share', path), 'utf8');
    assert.equal(packed, await succeed('/usr/bin/ocicrypt-kms', 'completion', shell), shell);
  }
  const listed = await succeed('/usr/bin/ocicrypt-kms', 'help');
  const commands = [...listed.matchAll(/^ {2}([a-z]+) /gm)].map(([, name = '']) => `ocicrypt-kms-${name}`);
  assert.ok(commands.length > 10, listed);
  for (const name of ['ocicrypt-kms', 'kms_oci_crypt', ...commands]) {
    const page = gunzipSync(readFileSync(join(root, `usr/share/man/man1/${name}.1.gz`))).toString();
    assert.match(page, /^\.(?:TH|so) /m, name);
  }
}

function directoryOf(t: TestContext, before: () => void = () => {}): string {
  const directory = mkdtempSync(join(tmpdir(), 'release-'));
  t.after(() => {
    before();
    rmSync(directory, { recursive: true, force: true });
  });
  return directory;
}
