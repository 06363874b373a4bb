// Files that operators name: whose may be read, and what is no file.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { chmodSync, chownSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { asOcicryptError } from '../../src/base/errors.ts';
import { type FileSecrecy, readPublicFile, readSecretFile } from '../../src/base/secret-file.ts';

const directory = mkdtempSync(join(tmpdir(), 'secret-file-'));
after(() => rmSync(directory, { recursive: true, force: true }));

const us = process.geteuid?.() ?? -1;
const OTHER = 12_345;

function make(name: string, mode: number, owner = us): string {
  const file = join(directory, name);
  writeFileSync(file, 'secret');
  chmodSync(file, mode);
  if (owner !== us) chownSync(file, owner, owner);
  return file;
}

const taken = (file: string, secrecy: FileSecrecy = {}) =>
  Buffer.from(readSecretFile(file, 'the token file', 100, secrecy)).toString() === 'secret';
const refusal = (read: () => unknown) => {
  try {
    read();
  } catch (error) {
    return asOcicryptError(error);
  }
  return assert.fail('it was read');
};

test('P21 a file that is not there ends with what to do', () => {
  for (const [file, hint] of [
    [join(directory, 'absent'), /check its name/],
    ['~/absent', /only a shell knows what ~ means/],
  ] as const) {
    const { code, hint: said = '' } = refusal(() => readPublicFile(file, 'the token file', 100));
    assert.equal(code, 'not-found');
    assert.match(said, hint);
  }
});

describe('P21 a secret of ours', () => {
  for (const [mode, own, ofAgent] of [
    [0o600, true, true],
    [0o400, true, true],
    [0o640, false, true],
    [0o660, false, false],
    [0o604, false, false],
    [0o644, false, false],
    [0o620, false, false],
  ] as const) {
    test(`of mode ${mode.toString(8)} is ${own ? 'taken' : 'refused'}, of an agent ${ofAgent ? 'taken' : 'refused'}`, () => {
      const file = make(`own-${mode}`, mode);
      for (const [secrecy, good] of [
        [{}, own],
        [{ ofAgent: true }, ofAgent],
      ] as const) {
        if (good) assert.ok(taken(file, secrecy));
        else assert.equal(refusal(() => taken(file, secrecy)).code, 'configuration');
      }
    });
  }
});

describe('P21 a secret of another user', { skip: us === 0 ? false : 'only root can make one' }, () => {
  test('is root’s to read, where its owner keeps it from others', () => {
    assert.ok(taken(make('other', 0o600, OTHER)));
    const { code, hint = '' } = refusal(() => taken(make('other-open', 0o640, OTHER)));
    assert.equal(code, 'configuration');
    assert.match(hint, /^chmod 600 /);
  });
  test('is taken from an agent, whose sink is its group’s to read', () => {
    assert.ok(taken(make('sink', 0o640, OTHER), { ofAgent: true }));
    assert.equal(refusal(() => taken(make('open-sink', 0o644, OTHER), { ofAgent: true })).code, 'configuration');
  });
  test('is refused to everybody else, and nobody is told to take it from its owner', () => {
    const file = make('foreign', 0o644, OTHER);
    chmodSync(directory, 0o755);
    const script = `
      const { readSecretFile } = await import(${JSON.stringify(new URL('../../src/base/secret-file.ts', import.meta.url).href)});
      process.setgid(12346); process.setuid(12346);
      try { readSecretFile(${JSON.stringify(file)}, 'the token file', 100); } catch (error) { process.stdout.write(error.message + '; ' + error.hint); }`;
    const { stdout } = spawnSync(process.execPath, ['--input-type=module', '--eval', script], { encoding: 'utf8' });
    if ('bun' in process.versions) return;
    assert.match(stdout, /belongs to another user/);
    assert.doesNotMatch(stdout, /chown/);
  });
});

describe('P21 what is no regular file is refused at once', () => {
  const places: Record<string, string> = { device: '/dev/zero', terminal: '/dev/tty', directory };
  const server = createServer();
  before(async () => {
    places.fifo = join(directory, 'fifo');
    places.socket = join(directory, 'socket');
    assert.equal(spawnSync('mkfifo', [places.fifo]).status, 0);
    await new Promise<void>((resolve) => server.listen(places.socket, resolve));
  });
  after(() => server.close());
  for (const name of ['device', 'terminal', 'directory', 'fifo', 'socket']) {
    test(`a ${name}`, () => {
      const started = performance.now();
      for (const read of [readSecretFile, readPublicFile]) {
        const { code, message } = refusal(() => read(places[name] ?? '', 'the file', 100));
        assert.equal(code, 'configuration');
        assert.match(message, /not a regular file|cannot read/);
      }
      assert.ok(performance.now() - started < 1000);
    });
  }
});
