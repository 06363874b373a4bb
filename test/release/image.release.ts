// The image of a release, run by podman: as a server on a socket, and as a step of a pipeline that encrypts and verifies.
import assert from 'node:assert/strict';
import { chmodSync, chownSync, globSync, lstatSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { readProduct } from '../../tools/release/contents.ts';
import { unwrapRequest, wrapRequest } from '../../tools/sample.ts';
import { runExecutable } from '../fixtures/executable.ts';
import { writeImage } from '../fixtures/images.ts';
import { createPodman, type Podman } from '../real-clients/podman.ts';
import { realClients } from '../real-clients/tools.ts';
import { CHOSEN, released, unpackImage } from './roots.ts';

const RUN = ['run', '--rm', '--network=none', '--cgroups=disabled', '--read-only', '--cap-drop=all'] as const;
const USER = 65532;

/** Runs the image with words for podman before, and words for the command after it. */
type Contained = (options: readonly string[], words: readonly string[]) => ReturnType<Podman>;

async function loaded(t: TestContext): Promise<{ readonly directory: string; readonly contained: Contained }> {
  const directory = mkdtempSync(join(tmpdir(), 'image-'));
  const podman = await createPodman(join(directory, 'podman'));
  // A container that still runs is ended while podman knows of it.
  t.after(async () => {
    await podman(['rm', '--all', '--force', '--time=2']);
    rmSync(directory, { recursive: true, force: true });
  });
  const reference = `oci-archive:${released('*-image.tar')}:${readProduct().version}`;
  const work = join(directory, 'work');
  mkdirSync(work);
  chownSync(work, USER, USER);
  chmodSync(directory, 0o755);
  return { directory, contained: (options, words) => podman([...RUN, ...options, reference, ...words]) };
}

test('podman runs the image as a step that encrypts, verifies and decrypts, without root', async (t) => {
  if (!CHOSEN.includes('linux-x64') || !(await realClients(t, ['podman']))) return;
  const { directory, contained } = await loaded(t);
  const work = join(directory, 'work');
  await writeImage(join(work, 'plain'), { layers: [{}, { size: 5_000_000 }] });
  const ours = async (...words: readonly string[]) => {
    const { exitCode, stdout, stderr } = await contained([`--volume=${work}:/work`], words);
    assert.equal(exitCode, 0, `${words.join(' ')}: ${stderr}`);
    return Buffer.from(stdout).toString();
  };
  assert.match(await ours(), /usage: ocicrypt-kms COMMAND/);
  const key = (await ours('keygen', '/work/app.key')).trim();
  await ours('encrypt', 'oci:/work/plain', 'oci:/work/encrypted', `--recipient=${key}`);
  await ours('verify', 'oci:/work/encrypted', `--only=${key}`, '--content', '--key=/work/app.key');
  await ours('decrypt', 'oci:/work/encrypted', 'oci:/work/opened', '--key=/work/app.key');
  const refused = await contained([`--volume=${work}:/work`], ['verify', 'oci:/work/plain', `--only=${key}`]);
  assert.notEqual(refused.exitCode, 0);
});

test('podman runs the image as a server on a socket that the host asks', async (t) => {
  if (!CHOSEN.includes('linux-x64') || !(await realClients(t, ['podman']))) return;
  const { contained } = await loaded(t);
  // Below /tmp, where every user may write, no socket is trusted.
  const run = mkdtempSync('/var/lib/served-');
  t.after(() => rmSync(run, { recursive: true }));
  chownSync(run, USER, USER);
  chmodSync(run, 0o755);
  const key = join(run, 'app.key');
  assert.equal((await runExecutable(['keygen', key])).status, 0);
  chownSync(key, USER, USER);
  const options = ['--name=served', `--volume=${run}:/run/ocicrypt-kms`];
  let ended: string | undefined;
  const server = contained(options, ['serve', '--key=/run/ocicrypt-kms/app.key']).then(({ stderr }) => {
    ended = stderr;
  });
  t.after(() => server);
  const remote = `--remote=unix://${run}/ocicrypt-kms.sock`;
  const ask = async (request: Uint8Array) => {
    for (let tries = 0; ; tries += 1) {
      const { status, stdout, stderr } = await runExecutable(['keyprovider', remote], { input: request });
      if (status === 0) return stdout;
      if (tries === 20 || ended !== undefined) assert.fail(`${stderr}${ended ?? ''}`);
      await sleep(100);
    }
  };
  const uri = 'keyfile:///run/ocicrypt-kms/app.key';
  const reply = await ask(wrapRequest(uri));
  const { keyunwrapresults } = JSON.parse((await ask(unwrapRequest(uri, reply))).toString());
  const { symkey } = JSON.parse(Buffer.from(keyunwrapresults.optsdata, 'base64').toString());
  assert.deepEqual(Buffer.from(symkey, 'base64'), Buffer.alloc(32, 1));
});

for (const [target, arch] of [
  ['linux-x64', 'amd64'],
  ['linux-arm64', 'arm64'],
] as const) {
  if (CHOSEN.includes(target))
    test(`the image for ${arch} holds no shell, no package manager and no file that everybody may write`, async (t) => {
      const directory = mkdtempSync(join(tmpdir(), 'image-'));
      t.after(() => rmSync(directory, { recursive: true, force: true }));
      const root = await unpackImage(directory, arch);
      const files = globSync('**', { cwd: root }).map((name) => [name, lstatSync(join(root, name))] as const);
      const programs = files.filter(([name]) => name.startsWith('usr/bin/')).map(([name]) => name);
      assert.deepEqual(programs.sort(), ['usr/bin/kms_oci_crypt', 'usr/bin/ocicrypt-kms']);
      const open = files.filter(([, stat]) => !stat.isSymbolicLink() && (stat.mode & 0o002) !== 0);
      assert.deepEqual(
        open.map(([name]) => name),
        ['tmp'],
      );
      assert.ok(files.every(([, { mode }]) => (mode & 0o6000) === 0));
      const authorities = readFileSync(join(root, 'etc/ssl/certs/ca-certificates.crt'), 'utf8');
      assert.ok(authorities.split('BEGIN CERTIFICATE').length > 100);
    });
}
