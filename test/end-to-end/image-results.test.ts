// The result of an image command reaches its user, whatever becomes of its output; signals end it, and nothing is lost.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { packTar } from 'modern-tar';
import { type Finished, runExecutable } from '../fixtures/executable.ts';
import { writeImage } from '../fixtures/images.ts';
import { startFakeRegistry } from '../image/transports/registry/fake-registry.ts';
import { createImageWorkspace } from './image-workspace.ts';

const DIGEST = /sha256:[0-9a-f]{64}/;

test('what was written is said with its digest although standard output takes nothing', async (t) => {
  const { directory, key, oci, path, ours } = await createImageWorkspace(t);
  const { reference } = await writeImage(path('plain'));
  for (const [number, output] of ['/dev/full', '&-'].entries()) {
    const shell = `exec "$@" >${output}`;
    const encrypt = ['encrypt', reference, oci(`enc${number}`), '--recipient', key.uri];
    const decrypt = ['decrypt', oci(`enc${number}`), oci(`dec${number}`), '--key', key.file];
    const rewrap = ['rewrap', oci(`enc${number}`), '--recipient', key.uri, '--key', key.file];
    for (const [index, words] of [encrypt, decrypt, rewrap].entries()) {
      const file = path(`digest-${number}-${index}`);
      const { status, stderr } = await runExecutable([...words, `--digestfile=${file}`], { shell, cwd: directory });
      assert.equal(status, 74, stderr);
      const digest = await readFile(file, 'utf8');
      assert.match(digest, DIGEST);
      assert.ok(stderr.includes(`the image was written: ${digest}`), stderr);
      const written = await ours('inspect', words[2]?.startsWith('oci:') ? words[2] : (words[1] ?? ''), '--json');
      assert.equal(JSON.parse(written.stdout).digest, digest);
    }
    for (const words of [['inspect', reference], ['--version'], ['config', 'ocicrypt']]) {
      assert.equal((await runExecutable(words, { shell, cwd: directory })).status, 74, words.join(' '));
    }
  }
  const words = ['encrypt', reference, oci('x'), '--recipient', key.uri, '--digestfile=/dev/full'];
  const { status, stdout, stderr } = await runExecutable(words, { cwd: directory });
  assert.equal(status, 74);
  assert.match(stdout.toString(), DIGEST);
  assert.ok(stderr.includes(stdout.toString().trim()) && stderr.includes('ENOSPC'), stderr);
});

test('a reader that has gone ends a command without a word, unless it has written an image or made a key', async (t) => {
  const { directory, key, oci, path } = await createImageWorkspace(t);
  const { reference } = await writeImage(path('plain'));
  // The command starts when nothing can be written any more.
  const shell = `{ trap '' PIPE; while echo 2>&-; do :; done; "$@"; echo "status $?" >&2; } | exec 0<&-`;
  const commands = [['--version'], ['licenses'], ['serve', '--help'], ['completion', 'bash'], ['config', 'ocicrypt']];
  for (const words of [...commands, ['inspect', reference], ['verify', reference, `--only=${key.uri}`]]) {
    const { stderr } = await runExecutable(words, { shell, cwd: directory });
    assert.equal(stderr, 'status 141\n', words.join(' '));
  }
  const encrypted = await runExecutable(['encrypt', reference, oci('enc'), `--recipient=${key.uri}`], { shell });
  assert.match(encrypted.stderr, /the image was written: sha256:.*\nstatus 74\n$/);
  const made = await runExecutable(['keygen', path('new.key')], { shell });
  assert.match(made.stderr, /was removed; run again\nstatus 74\n$/);
  mkdirSync(path('root/usr/bin'), { recursive: true });
  writeFileSync(path('root/usr/bin/containerd'), '', { mode: 0o755 });
  const words = ['node', 'install', `--root=${path('root')}`, '--runtime-version=2.1.7', '--allow=awskms:///alias/a'];
  const installed = await runExecutable(words, { shell });
  assert.match(installed.stderr, /run ocicrypt-kms node check on the node\nstatus 141\n$/);
});

test('keygen leaves no key that its user was not told of', async (t) => {
  const { directory, path } = await createImageWorkspace(t);
  const before = readdirSync(directory).sort();
  for (const shell of ['exec "$@" >/dev/full', 'exec "$@" >&-', 'ulimit -f 0; exec "$@"']) {
    const { status, stderr } = await runExecutable(['keygen', path('new.key')], { shell, cwd: directory });
    assert.equal(status, 74, stderr);
    assert.deepEqual(readdirSync(directory).sort(), before);
  }
  const { stderr } = await runExecutable(['keygen', '/proc/new.key'], { cwd: directory });
  assert.match(stderr, /\(E[A-Z]+\)/);
});

test('a signal after the switch ends the command and still says which image was written', async (t) => {
  const { directory, key, oci, path, ours } = await createImageWorkspace(t);
  const { reference } = await writeImage(path('plain'));
  // Nobody reads from it: to open it takes for ever.
  const pipe = path('pipe');
  execFileSync('mkfifo', [pipe]);
  const words = ['encrypt', reference, oci('enc'), '--recipient', key.uri, `--digestfile=${pipe}`];
  const { signal, stderr, milliseconds } = await terminated(words, directory, () => existsSync(path('enc/index.json')));
  assert.equal(signal, 'SIGTERM', stderr);
  assert.ok(milliseconds < 15_000);
  const { digest } = JSON.parse((await ours('inspect', oci('enc'), '--json')).stdout);
  assert.ok(stderr.includes(digest) && !stderr.includes('nothing was changed'), stderr);
});

test('the first signal ends the reading of an archive that goes on and on', async (t) => {
  const { directory, path } = await createImageWorkspace(t);
  const zeros = gzipSync(new Uint8Array(64 * 1024 * 1024));
  const header = (await packTar([{ header: { name: 'junk', size: 1 }, body: 'x' }])).subarray(0, 512);
  // 64 GiB, which nobody waits for.
  const field = Buffer.from(header);
  Buffer.from('800000000000001000000000', 'hex').copy(field, 124);
  field.fill(' ', 148, 156);
  const sum = field.reduce((total, byte) => total + byte, 0);
  field.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148);
  writeFileSync(path('a.tgz'), Buffer.concat([gzipSync(field), ...Array<Buffer>(1024).fill(zeros)]));
  let started = 0;
  const words = ['inspect', `oci-archive:${path('a.tgz')}`];
  const { signal, stderr, milliseconds } = await terminated(words, directory, () => {
    started ||= Date.now();
    return Date.now() - started > 500;
  });
  assert.equal(signal, 'SIGTERM', stderr);
  assert.match(stderr, /interrupted, nothing was changed/);
  assert.ok(milliseconds < 8000, `${milliseconds}`);
});

test('a write that is cut short never replaces an archive, plain or compressed', async (t) => {
  const { directory, key, path, ours } = await createImageWorkspace(t);
  await writeImage(path('plain'), { layers: [{ size: 200_000 }, { size: 90_000 }] });
  execFileSync('tar', ['-C', path('plain'), '-cf', path('a.tar'), '.']);
  execFileSync('tar', ['-C', path('plain'), '-czf', path('a.tgz'), '.']);
  for (const name of ['a.tar', 'a.tgz']) {
    const archive = `oci-archive:${path(name)}`;
    const before = { bytes: await readFile(path(name)), names: readdirSync(directory).sort() };
    // In blocks of 512 bytes: in the first layer, in the second one, in the new archive.
    for (const blocks of [20, 210, 450]) {
      const { status, stderr } = await runExecutable(['encrypt', archive, archive, '--recipient', key.uri], {
        shell: `ulimit -f ${blocks}; exec "$@"`,
        cwd: directory,
        environment: { TMPDIR: directory },
      });
      assert.equal(status, 74, `${name} ${blocks}: ${stderr}`);
      assert.match(stderr, /nothing was changed/);
      assert.ok((await readFile(path(name))).equals(before.bytes));
      assert.deepEqual(readdirSync(directory).sort(), before.names);
    }
    await ours('encrypt', archive, archive, '--recipient', key.uri);
    await ours('verify', archive);
    await ours('decrypt', archive, archive, '--key', key.file);
  }
});

test('what stays plain is said: the old digest in a registry', async (t) => {
  const { directory, key, path, run } = await createImageWorkspace(t);
  const { reference } = await writeImage(path('plain'));
  const registry = await startFakeRegistry(t, directory);
  const remote = `docker://${registry.host}/a:1`;
  const words = (from: string) => ['encrypt', from, remote, '--recipient', key.uri, `--ca=${registry.authority}`];
  const sent = await run(words(reference));
  assert.equal(sent.exitCode, 0, sent.stderr);
  assert.ok(!sent.stderr.includes('plain image'), sent.stderr);
  const opened = await run(['decrypt', remote, remote, '--key', key.file, `--ca=${registry.authority}`]);
  const again = await run(words(remote));
  assert.ok(again.stderr.includes(`plain image by its digest: delete ${opened.digest}`), again.stderr);
});

/** Runs the command and sends SIGTERM as soon as `due`. */
function terminated(words: readonly string[], cwd: string, due: () => boolean): Promise<Finished> {
  return runExecutable(words, {
    cwd,
    started: (child) => {
      const timer = setInterval(() => {
        if (!due()) return;
        clearInterval(timer);
        child.kill('SIGTERM');
      }, 10);
      child.once('exit', () => clearInterval(timer));
    },
  });
}
