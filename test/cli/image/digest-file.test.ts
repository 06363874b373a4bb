// The file of --digestfile: a digest takes the place of a digest, and of nothing else.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import {
  chmodSync,
  chownSync,
  existsSync,
  linkSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { checkDigestFile, writeDigest } from '../../../src/cli/image/digest-file.ts';
import { runCommand } from '../../fixtures/terminal.ts';

const directory = mkdtempSync(join(tmpdir(), 'ocicrypt-digest-'));
after(() => rmSync(directory, { recursive: true, force: true }));
const at = (name: string) => join(directory, name);
const DIGEST = `sha256:${'a'.repeat(64)}`;

test('a new file, an empty one and one with another digest hold the digest afterwards', async () => {
  await writeDigest(at('new'), DIGEST);
  writeFileSync(at('empty'), '');
  writeFileSync(at('other'), `sha256:${'b'.repeat(64)}\n`);
  writeFileSync(at('named'), `registry.example:5000/team/app@sha256:${'b'.repeat(64)}\n`);
  for (const name of ['empty', 'other', 'named']) await writeDigest(at(name), DIGEST);
  for (const name of ['new', 'empty', 'other', 'named']) assert.equal(readFileSync(at(name), 'latin1'), DIGEST);
  await writeDigest('/dev/null', DIGEST);
});

test('a file with anything else is left as it is, under its own name and by a link', async () => {
  const contents = [
    randomBytes(32),
    Buffer.from('-----BEGIN PRIVATE KEY-----\n'),
    Buffer.from(`${DIGEST}\n${'#'.repeat(300)}`),
    Buffer.from('{}'),
    Buffer.from('admin:cafe'),
    Buffer.from(`token@${'a'.repeat(64)}`),
  ];
  for (const [index, content] of contents.entries()) {
    const file = at(`precious-${index}`);
    writeFileSync(file, content);
    symlinkSync(file, `${file}.symbolic`);
    linkSync(file, `${file}.hard`);
    for (const name of [file, `${file}.symbolic`, `${file}.hard`])
      for (const work of [checkDigestFile, (path: string) => writeDigest(path, DIGEST)])
        await assert.rejects(work(name), { code: 'not-written' });
    assert.deepEqual(readFileSync(file), content);
  }
});

test('a file that may be written and not read takes a digest, and the next one', async (t) => {
  const file = at('write-only');
  writeFileSync(file, '');
  chmodSync(file, 0o200);
  // The superuser reads everything.
  const isRoot = process.geteuid?.() === 0;
  if (isRoot) {
    chmodSync(directory, 0o711);
    chownSync(file, 65_534, 65_534);
    process.seteuid?.(65_534);
    t.after(() => process.seteuid?.(0));
  }
  for (const digest of [`sha512:${'b'.repeat(128)}`, DIGEST]) {
    await checkDigestFile(file);
    await writeDigest(file, digest);
  }
  chmodSync(file, 0o600);
  assert.equal(readFileSync(file, 'latin1'), DIGEST);
  writeFileSync(file, 'x'.repeat(32));
  chmodSync(file, 0o200);
  await assert.rejects(writeDigest(file, DIGEST), { code: 'not-written' });
});

test('a command looks at the file before it begins, and changes nothing', async () => {
  writeFileSync(at('config'), '{}');
  for (const words of [
    ['encrypt', 'oci:nowhere', 'oci:new', '--recipient=keyfile:///nowhere'],
    ['decrypt', 'oci:nowhere', 'oci:new', '--allow=keyfile:///nowhere'],
    ['rewrap', 'oci:nowhere', '--add=keyfile:///nowhere'],
  ]) {
    for (const name of ['config', 'missing/digest']) {
      const { status, stderr } = await runCommand([...words, `--digestfile=${at(name)}`]);
      assert.equal(status, 74, stderr);
      assert.ok(stderr.includes(at(name)), stderr);
    }
    const { stderr } = await runCommand([...words, `--digestfile=${at('later')}`]);
    assert.match(stderr, /nowhere/);
  }
  symlinkSync(at('target'), at('link'));
  await checkDigestFile(at('link'));
  assert.deepEqual([at('later'), at('target')].filter(existsSync), []);
});
