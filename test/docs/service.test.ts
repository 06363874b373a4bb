// What docs/server.md and docs/decoder.md tell an operator to write on a node works together, as it stands there: the
// policy, the units, the file of key providers and the decoder, with skopeo as the client.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { createReadStream, globSync } from 'node:fs';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { createWorkspace, DIST, executable, readImage } from '../end-to-end/workspace.ts';
import { blobPath, writeImage } from '../fixtures/images.ts';
import { ACTIVATE, hasSystemd } from '../fixtures/systemd.ts';
import { runClient } from '../real-clients/process.ts';
import { copy } from '../real-clients/skopeo.ts';
import { blocksOf, PROJECT, readDocument } from './transcript.ts';

/** Where the documents put files, each of which is below the test's directory here. */
const PLACES = ['/etc/ocicrypt-kms', '/etc/systemd/system', '/run/ocicrypt-kms', '/var/log/ocicrypt-kms'];

async function blockOf(document: string, language: string, part: string): Promise<string> {
  const found = blocksOf(await readDocument(document)).find(
    (one) => one.language === language && one.text.includes(part),
  );
  return found?.text ?? assert.fail(`${document} has no ${language} with ${part}`);
}

test('snippets of the documents, copied literally, encrypt and decrypt an image together', async (t) => {
  if (!hasSystemd(t, ACTIVATE)) return;
  const workspace = await createWorkspace(t);
  const { path, directory } = workspace;
  const here = (text: string) =>
    PLACES.reduce((changed, place) => changed.replaceAll(place, join(directory, place)), text).replaceAll(
      '/usr/local/bin/ocicrypt-kms',
      executable(),
    );
  for (const place of PLACES) await mkdir(path(place), { recursive: true, mode: 0o700 });
  const env = { PATH: `${DIST}:${process.env.PATH}` };

  const script = here(await blockOf('docs/server.md', 'sh', 'config systemd-socket')).replace(/^systemctl .*$/m, '');
  const written = await runClient(['sh', '-euc', script], { env });
  assert.equal(written.exitCode, 0, written.stderr);
  const unit = (name: string) => readFile(path(join('/etc/systemd/system', name)), 'utf8').then(here);
  const [, start = ''] = /^ExecStart=(.*)$/m.exec(await unit('ocicrypt-kms.service')) ?? [];
  const [, check = ''] = /^ExecReload=(.* --check)$/m.exec(await unit('ocicrypt-kms.service')) ?? [];
  const [, socket = ''] = /^ListenStream=(.*)$/m.exec(await unit('ocicrypt-kms.socket')) ?? [];
  const checked = await runClient(['sh', '-c', `exec ${check}`]);
  assert.equal(checked.exitCode, 0, checked.stderr);
  const server = spawn(ACTIVATE, ['--listen', socket, 'sh', '-c', `exec ${start}`], {
    stdio: ['ignore', 'ignore', 'pipe'],
    env: { PATH: process.env.PATH, HOME: directory },
  });
  t.after(() => server.kill('SIGKILL'));
  await new Promise<void>((resolve) => server.stderr.once('data', () => resolve()));

  const providers = path('ocicrypt.json');
  await mkdir(dirname(providers), { recursive: true });
  await writeFile(providers, here(await blockOf('docs/server.md', 'json', 'key-providers')));
  const [name = ''] = Object.keys(JSON.parse(await readFile(providers, 'utf8'))['key-providers']);
  const { reference, images } = await writeImage(path('plain'));
  const client = { env: { OCICRYPT_KEYPROVIDER_CONFIG: providers } };
  const encrypted = await copy(reference, workspace.oci('encrypted'), {
    ...client,
    encryptionKeys: [`provider:${name}`],
  });
  assert.equal(encrypted.exitCode, 0, encrypted.stderr);
  const decrypted = await copy(workspace.oci('encrypted'), workspace.oci('decrypted'), {
    ...client,
    decryptionKeys: [`provider:${name}`],
  });
  assert.equal(decrypted.exitCode, 0, decrypted.stderr);

  const health = await runClient([executable(), 'health', `--remote=unix://${socket}`]);
  assert.equal(health.exitCode, 0, health.stderr);
  const [, words = ''] =
    /^ {4}args = (\[.*\])$/m.exec(await blockOf('docs/decoder.md', 'toml', 'stream_processors')) ?? [];
  const [layer] = (await readImage(path('encrypted'))).layers;
  assert.ok(layer);
  const decoded = await runClient([executable(), ...JSON.parse(here(words)), `--content-store=${path('encrypted')}`], {
    stdin: createReadStream(blobPath(path('encrypted'), layer.digest)),
  });
  assert.equal(decoded.exitCode, 0, decoded.stderr);
  assert.equal(`sha256:${createHash('sha256').update(decoded.stdout).digest('hex')}`, images[0].diffIds[0]);
  const audit = await readFile(path('/var/log/ocicrypt-kms/audit.log'), 'utf8');
  assert.match(audit, /"operation":"wrap".*"outcome":"ok"/);
});

test('every file of key providers in the documents calls this provider by one name', async () => {
  const names = new Map<string, string>();
  for (const file of globSync(['README.md', 'docs/*.md', 'examples/*.*'], { cwd: PROJECT }).sort()) {
    for (const [, name = ''] of (await readDocument(file)).matchAll(/"key-providers":\s*\{\s*"([^"]+)"/g)) {
      if (name !== 'kmscrypt') names.set(file, name);
    }
  }
  assert.deepEqual([...names], []);
});
