// What a release says of itself is true: hashes, what is in it by another reader's schema, and bytes that do not depend on the builder.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { cpSync, globSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { PROJECT } from '../../tools/process.ts';
import { fetchPython } from '../peers/fetched.ts';
import { CHOSEN, RELEASE, released } from './roots.ts';

test('sha256sum finds every file as SHA256SUMS says, and no other file is there', () => {
  const said = execFileSync('sha256sum', ['--check', '--strict', 'SHA256SUMS'], { cwd: RELEASE }).toString();
  const checked = said.trimEnd().split('\n');
  assert.ok(checked.every((line) => line.endsWith(': OK')));
  assert.equal(checked.length, globSync('*', { cwd: RELEASE }).length - 1);
});

test('the lists of contents are CycloneDX by its own library, and hold what the lockfile pins', async () => {
  const path = await fetchPython('cyclonedx-python-lib[json-validation]==11.12.0');
  const program = `import sys
from cyclonedx.validation.json import JsonStrictValidator
from cyclonedx.schema import SchemaVersion
for name in sys.argv[1:]:
    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(open(name).read())
    if error: sys.exit(name + ': ' + repr(error))`;
  const files = globSync('*.cdx.json', { cwd: RELEASE }).map((name) => join(RELEASE, name));
  // The image holds executables for glibc alone.
  const hasImage = CHOSEN.some((name) => /^linux-(?:x64|arm64)$/.test(name));
  assert.equal(files.length, hasImage ? 3 : 2);
  files.push(join(PROJECT, 'docs/security/cbom.cdx.json'));
  execFileSync('python3', ['-c', program, ...files], { env: { ...process.env, PYTHONPATH: path } });

  const { packages } = JSON.parse(readFileSync(join(PROJECT, 'package-lock.json'), 'utf8'));
  const { components } = JSON.parse(readFileSync(released('ocicrypt-kms-[0-9.]*[0-9].cdx.json'), 'utf8'));
  const jose = components.find(({ name }: { name: string }) => name === 'jose');
  const { version, integrity } = packages['node_modules/jose'];
  assert.equal(jose.version, version);
  assert.equal(Buffer.from(jose.hashes[0].content, 'hex').toString('base64'), integrity.replace('sha512-', ''));
  const bun = components.find(({ name }: { name: string }) => name === 'bun');
  assert.ok(bun.components.some(({ name }: { name: string }) => name === 'BoringSSL'));
});

test('the archive for shells holds a script for each and the pages, in a folder each', () => {
  const names = execFileSync('tar', ['tzf', released('*-shell.tar.gz')])
    .toString()
    .trimEnd()
    .split('\n');
  for (const name of [
    'completions/bash/ocicrypt-kms',
    'completions/fish/ocicrypt-kms.fish',
    'completions/zsh/_ocicrypt-kms',
  ])
    assert.ok(names.includes(name), name);
  assert.ok(names.includes('man/ocicrypt-kms-encrypt.1'), names.join());
});

if (CHOSEN.includes('linux-x64'))
  test('the same source in another folder, for another user at another time, gives the same executable', () => {
    const executable = 'dist/ocicrypt-kms';
    const place = join(mkdtempSync(join(tmpdir(), 'elsewhere-')), 'a/longer/path');
    try {
      const tracked = execFileSync('git', ['ls-files', '-z'], { cwd: PROJECT }).toString().split('\0').filter(Boolean);
      for (const file of tracked) {
        mkdirSync(dirname(join(place, file)), { recursive: true });
        cpSync(join(PROJECT, file), join(place, file));
      }
      for (const name of ['node_modules', '.git']) cpSync(join(PROJECT, name), join(place, name), { recursive: true });
      const environment = { TZ: 'Asia/Tokyo', LANG: 'C', HOME: '/nonexistent', USER: 'somebody' };
      const program = `umask 077; exec "$@"`;
      execFileSync('sh', ['-c', program, 'sh', process.execPath, 'scripts/build.ts'], {
        cwd: place,
        env: { PATH: process.env.PATH, ...environment },
        stdio: ['ignore', 'ignore', 'inherit'],
      });
      const digest = (file: string) => createHash('sha256').update(readFileSync(file)).digest('hex');
      assert.equal(digest(join(place, executable)), digest(join(PROJECT, executable)));
      assert.equal(digest(released('ocicrypt-kms-linux-x64')), digest(join(PROJECT, executable)));
    } finally {
      rmSync(dirname(dirname(dirname(place))), { recursive: true });
    }
  });
