// Files that operators name: whose may be read, and what is no file.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { chmodSync, chownSync, mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { asOcicryptError } from '../../src/base/errors.ts';
import {
  type FileSecrecy,
  readGuardedFile,
  readProtectedFile,
  readPublicFile,
  readSecretFile,
  readSecretLine,
} from '../../src/base/secret-file.ts';

const directory = mkdtempSync(join(tmpdir(), 'secret-file-'));
after(() => rmSync(directory, { recursive: true, force: true }));

const us = process.geteuid?.() ?? -1;
const OTHER = 12_345;
const OF_AGENT: FileSecrecy = { ofAgent: true };

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
  const bits = [0o001, 0o002, 0o004, 0o010, 0o020, 0o040];
  for (const [mode, own, ofAgent] of [
    [0o600, true, true],
    [0o400, true, true],
    ...bits.map((bit) => [0o600 | bit, false, bit === 0o040] as const),
    [0o660, false, false],
    [0o644, false, false],
  ] as const) {
    test(`of mode ${mode.toString(8)} is ${own ? 'taken' : 'refused'}, of an agent ${ofAgent ? 'taken' : 'refused'}`, () => {
      const file = make(`own-${mode}`, mode);
      for (const [secrecy, good] of [
        [{}, own],
        [OF_AGENT, ofAgent],
      ] as const) {
        if (good) assert.ok(taken(file, secrecy));
        else {
          const { code, hint = '' } = refusal(() => taken(file, secrecy));
          assert.equal(code, 'configuration');
          assert.ok(hint.startsWith(`chmod ${secrecy === OF_AGENT ? 640 : 600} `), hint);
        }
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
    assert.ok(taken(make('sink', 0o640, OTHER), OF_AGENT));
    assert.equal(refusal(() => taken(make('open-sink', 0o644, OTHER), OF_AGENT)).code, 'configuration');
  });
  test('is for another user only from root or an agent, whose group may read; that user is not told to take it', () => {
    const [US, belongs, open, own] = [12_346, 'belongs to another user', 'open to other users', 'taken'];
    const [secret, agents, found, written] = ['secret', 'agents', 'found', 'may be written by other users'];
    const cases = [
      [OTHER, 0o644, secret, belongs],
      [OTHER, 0o640, secret, belongs],
      [OTHER, 0o640, agents, own],
      [OTHER, 0o660, agents, open],
      [OTHER, 0o644, agents, open],
      [0, 0o640, secret, own],
      [0, 0o660, secret, open],
      [0, 0o641, secret, open],
      [US, 0o600, secret, own],
      [US, 0o640, secret, open],
      [US, 0o644, found, own],
      [US, 0o664, found, written],
      [US, 0o646, found, written],
      [0, 0o644, found, own],
      [0, 0o664, found, written],
      [OTHER, 0o644, found, belongs],
      [OTHER, 0o664, found, belongs],
    ] as const;
    const asked = cases.map(([owner, mode, kind], index) => {
      const file = make(`foreign-${index}`, mode);
      chownSync(file, owner, US);
      return [file, kind];
    });
    chmodSync(directory, 0o755);
    const script = `
      const { readProtectedFile, readSecretFile } = await import(${JSON.stringify(new URL('../../src/base/secret-file.ts', import.meta.url).href)});
      process.setgid(${US}); process.setuid(${US});
      const said = ${JSON.stringify(asked)}.map(([file, kind]) => {
        try {
          if (kind === 'found') readProtectedFile(file, 'the token file', 100);
          else readSecretFile(file, 'the token file', 100, { ofAgent: kind === 'agents' });
          return 'taken';
        }
        catch (error) { return error.message + '; ' + error.hint; }
      });
      process.stdout.write(JSON.stringify(said));`;
    const { stdout } = spawnSync(process.execPath, ['--input-type=module', '--eval', script], { encoding: 'utf8' });
    if ('bun' in process.versions) return;
    const said: unknown = JSON.parse(stdout);
    assert.ok(Array.isArray(said) && said.length === cases.length);
    for (const [index, [, , , expected]] of cases.entries()) assert.ok(said[index].includes(expected), said[index]);
    assert.doesNotMatch(stdout, /chown/);
  });
});

test('P21 a file that was found is read if no other user may write it, whoever may read it', () => {
  for (const [mode, good] of [
    [0o600, true],
    [0o644, true],
    [0o664, false],
    [0o646, false],
    [0o620, false],
    [0o602, false],
  ] as const) {
    const file = make(`found-${mode}`, mode);
    const read = () => Buffer.from(readProtectedFile(file, 'the file', 100)).toString();
    if (good) assert.equal(read(), 'secret');
    else assert.equal(refusal(read).code, 'configuration', mode.toString(8));
  }
});

test('P21 a file that says who may do what is refused if every user can write it or put it there', () => {
  const read = (file: string) => Buffer.from(readGuardedFile(file, 'the file', 100)).toString();
  for (const [mode, good] of [
    [0o600, true],
    [0o644, true],
    // Of arbitrary user ids in a container the group is root's.
    [0o664, true],
    [0o646, false],
    [0o602, false],
  ] as const) {
    const file = make(`policy-${mode}`, mode);
    if (good) assert.equal(read(file), 'secret');
    else assert.equal(refusal(() => read(file)).code, 'configuration', mode.toString(8));
  }
  // A ConfigMap: our file (or root's) by links, in a directory that everybody may write.
  const map = join(directory, 'map');
  mkdirSync(join(map, '..data'), { recursive: true });
  writeFileSync(join(map, '..data/policy'), 'secret', { mode: 0o644 });
  symlinkSync('..data/policy', join(map, 'policy'));
  for (const [mode, foreign] of [
    [0o777, 'configuration'],
    [0o1777, 'configuration'],
    [0o775, 'secret'],
  ] as const) {
    chmodSync(map, mode);
    assert.equal(read(join(map, 'policy')), 'secret');
    if (process.geteuid?.() !== 0) continue;
    const theirs = join(map, `theirs-${mode}`);
    writeFileSync(theirs, 'secret', { mode: 0o644 });
    chownSync(theirs, 12_345, 12_345);
    if (foreign === 'secret') assert.equal(read(theirs), 'secret');
    else assert.equal(refusal(() => read(theirs)).code, foreign, mode.toString(8));
  }
});

test('P21 a link that leads nowhere else is neither absent nor a file', () => {
  const link = join(directory, 'circle');
  symlinkSync(link, link);
  const { code, message } = refusal(() => readPublicFile(link, 'the file', 100));
  assert.equal(code, 'configuration');
  assert.match(message, /^cannot read the file .*ELOOP/);
});

test('P21 no copy and no descriptor is left of what was read', () => {
  const file = make('read', 0o600);
  const seen: Uint8Array[] = [];
  const isSecret = (content: Uint8Array) => seen.push(content) > 0;
  const descriptors = () => readdirSync('/proc/self/fd').length;
  const before = descriptors();
  assert.ok(taken(file, { isSecret }));
  chmodSync(file, 0o644);
  assert.equal(refusal(() => taken(file, { isSecret })).code, 'configuration');
  assert.deepEqual(
    seen.map((content) => content.toString()),
    ['0,0,0,0,0,0', '0,0,0,0,0,0'],
  );
  assert.equal(descriptors(), before);
});

test('P21 the file is read whole, or to one byte more than it may have', () => {
  const file = make('long', 0o600);
  for (const [maximum, length] of [
    [3, 4],
    [5, 6],
    [6, 6],
    [7, 6],
  ] as const)
    assert.equal(readSecretFile(file, 'the key file', maximum).length, length);
  // What the kernel makes while it is read has no size.
  assert.match(
    Buffer.from(readPublicFile('/proc/self/status', 'the file', 100_000)).toString(),
    /^Name:\t.*\n[\s\S]*\nSeccomp/,
  );
});

test('P21 a secret line has no line end, and keeps everything else', () => {
  for (const [text, line] of [
    ['1234', '1234'],
    ['1234\n', '1234'],
    ['1234\r\n', '1234'],
    ['1234\r', '1234'],
    ['1234\n\r\n\n', '1234'],
    [' 12\n34 \t\n', ' 12\n34 \t'],
    ['1234\x0b', '1234\x0b'],
    ['1234\x0e', '1234\x0e'],
    ['\n', ''],
    ['', ''],
  ] as const) {
    const file = make('line', 0o600);
    writeFileSync(file, text);
    assert.equal(Buffer.from(readSecretLine(file, 'the PIN file', 100)).toString(), line, JSON.stringify(text));
    chmodSync(file, 0o640);
    assert.equal(refusal(() => readSecretLine(file, 'the PIN file', 100)).code, 'configuration');
  }
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
      for (const read of [readSecretFile, readPublicFile]) {
        const { code, message } = refusal(() => read(places[name] ?? '', 'the file', 100));
        assert.equal(code, 'configuration');
        assert.match(message, /not a regular file/);
      }
    });
  }
});
