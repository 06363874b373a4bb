// What is read of a tar's headers: as Go reads them where readers agree, refused where they do not.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { packTar } from 'modern-tar';
import { OcicryptError } from '../../../src/base/errors.ts';
import { type TarMember, TarReader } from '../../../src/image/transports/tar.ts';
import { startTarMember } from '../../../src/image/transports/tar-write.ts';
import { sample, seeded } from '../../fixtures/seed.ts';

const BLOCK = 512;

test('sizes of any size are written and read back', async () => {
  for (const size of [0, 1, 8 ** 11 - 1, 8 ** 11, 2 ** 50]) {
    const chunks: Uint8Array[] = [];
    await startTarMember({ write: async (bytes) => void chunks.push(bytes) }, 'blobs/sha256/x', size);
    const [member] = await members(Buffer.concat(chunks), 1);
    assert.deepEqual([member?.name, member?.size, member?.kind], ['blobs/sha256/x', size, 'file']);
  }
});

test('long names of PAX and GNU count, the last of a kind, and GNU before PAX', async () => {
  const long = 'd/'.repeat(120);
  const cases: readonly (readonly [string, Buffer])[] = [
    [`${long}a`, Buffer.concat([record('x', pax({ path: `${long}a` })), file('short')])],
    ['b', Buffer.concat([record('x', pax({ path: 'a' })), record('x', pax({ path: 'b' })), file('short')])],
    ['short', Buffer.concat([record('x', pax({ path: '' })), file('short')])],
    [`${long}b`, Buffer.concat([record('L', Buffer.from(`${long}b\0`)), file('short')])],
    ['gnu', Buffer.concat([record('x', pax({ path: 'pax' })), record('L', Buffer.from('gnu\0')), file('short')])],
    ['short', Buffer.concat([record('g', pax({ comment: 'x' })), file('short')])],
  ];
  for (const [name, bytes] of cases) assert.equal((await members(bytes))[0]?.name, name);
  const [sized] = await members(
    Buffer.concat([record('x', pax({ size: '512' })), header('a', 0), Buffer.alloc(BLOCK)]),
  );
  assert.equal(sized?.size, 512);
});

test('what readers take for different things is refused', async () => {
  const cases: Readonly<Record<string, Buffer>> = {
    'a sparse file of GNU': header('a', 0, 'S'),
    'a sparse file of PAX': Buffer.concat([record('x', pax({ 'GNU.sparse.major': '1' })), file('a')]),
    'a name for all members': Buffer.concat([record('g', pax({ path: 'x' })), file('a')]),
    'a size for all members': Buffer.concat([record('g', pax({ size: '1' })), file('a')]),
    'a name of PAX before a header for all members': Buffer.concat([
      record('x', pax({ path: 'x' })),
      record('g', pax({ comment: 'x' })),
      file('a'),
    ]),
    'a name of GNU before a header for all members': Buffer.concat([
      record('L', Buffer.from('x\0')),
      record('g', pax({ comment: 'x' })),
      file('a'),
    ]),
    'a target of GNU before a header for all members': Buffer.concat([
      record('K', Buffer.from('x\0')),
      record('g', pax({ comment: 'x' })),
      header('a', 0, '2'),
    ]),
    'a start of the name where GNU has a time': gnuPrefixed('a', ' /../b'),
    'a start of the name after a digit': gnuPrefixed('a', '0 /../b'),
    'a wrong checksum': Buffer.concat([file('a').fill(1, 0, 1)]),
    'something after one block of zeros': Buffer.concat([Buffer.alloc(BLOCK), file('a')]),
    'a record without its end': Buffer.concat([record('x', Buffer.from('99 path=a\n')), file('a')]),
    'a length of a million digits': Buffer.concat([
      record('x', Buffer.from(`${'1'.repeat(1_000_000)} a=b\n`)),
      file('a'),
    ]),
    'a name with a zero': Buffer.concat([record('x', pax({ path: 'a\0b' })), file('a')]),
    'a size that is none': Buffer.concat([record('x', pax({ size: '-1' })), file('a')]),
    'a file without its end': header('a', 1000),
    'a header without its end': file('a').subarray(0, 100),
  };
  for (const [name, bytes] of Object.entries(cases)) {
    await assert.rejects(members(bytes), { code: 'bad-input' }, name);
  }
});

test('links, directories and devices have no content, whatever they say', async () => {
  for (const [name, flag] of [...[...'123456'].map((letter) => ['a', letter] as const), ['a/', '\0'] as const]) {
    const found = await members(Buffer.concat([header(name, 5000, flag), file('b')]));
    assert.deepEqual(
      found.map(({ name, size }) => [name, size]),
      [
        [name, 0],
        ['b', 3],
      ],
    );
  }
});

test(seeded('no bytes make the reader of tars do anything but read or refuse'), async () => {
  const whole = Buffer.from(
    await packTar([
      { header: { name: 'n'.repeat(150), size: 3 }, body: 'abc' },
      { header: { name: 'b', size: 700 }, body: new Uint8Array(700) },
      { header: { name: 'c', size: 0, type: 'symlink', linkname: 'b' } },
    ]),
  );
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.tuple(fc.nat(whole.length - 1), fc.nat(255)), { maxLength: 4 }),
      fc.nat(whole.length),
      fc.boolean(),
      async (changes, cut, fix) => {
        const bytes = Buffer.from(whole.subarray(0, cut));
        for (const [at, value] of changes) if (at < bytes.length) bytes[at] = value;
        if (fix) for (let at = 0; at + BLOCK <= bytes.length; at += BLOCK) sum(bytes.subarray(at, at + BLOCK));
        try {
          for (const { offset, size } of await members(bytes)) assert.ok(offset + size <= bytes.length);
        } catch (error) {
          assert.ok(error instanceof OcicryptError && error.code === 'bad-input', String(error));
        }
      },
    ),
    sample(500),
  );
});

async function members(bytes: Uint8Array, maximum = Number.POSITIVE_INFINITY): Promise<readonly TarMember[]> {
  let position = 0;
  const take = (count: number) => {
    const part = bytes.subarray(position, position + count);
    position += part.length;
    return part;
  };
  const reader = new TarReader({
    read: async (into) => {
      const part = take(into.length);
      into.set(part);
      return part.length;
    },
    skip: async (count) => take(count).length,
  });
  const found: TarMember[] = [];
  while (found.length < maximum) {
    const member = await reader.next();
    if (member === undefined) return found;
    found.push(member);
  }
  return found;
}

function header(name: string, size: number, flag = '0'): Buffer {
  const block = Buffer.alloc(BLOCK);
  block.write(name, 0);
  block.write('0000644', 100);
  block.write(size.toString(8).padStart(11, '0'), 124);
  block.write(flag, 156);
  block.write('ustar\0', 257);
  block.write('00', 263);
  return sum(block);
}

/** A header of GNU tar with a text in place of its times. */
function gnuPrefixed(name: string, prefix: string): Buffer {
  const block = header(name, 0);
  block.write('ustar  \0', 257);
  block.write(prefix, 345);
  return sum(block);
}

function sum(block: Buffer): Buffer {
  block.fill(' ', 148, 156);
  const total = block.reduce((before, byte) => before + byte, 0);
  block.write(`${total.toString(8).padStart(6, '0')}\0 `, 148);
  return block;
}

function padded(bytes: Uint8Array): Buffer {
  return Buffer.concat([bytes, Buffer.alloc((BLOCK - (bytes.length % BLOCK)) % BLOCK)]);
}

function file(name: string): Buffer {
  return Buffer.concat([header(name, 3), padded(Buffer.from('abc'))]);
}

function record(flag: string, content: Buffer): Buffer {
  return Buffer.concat([header('record', content.length, flag), padded(content)]);
}

function pax(records: Readonly<Record<string, string>>): Buffer {
  const lines = Object.entries(records).map(([name, value]) => {
    const rest = ` ${name}=${value}\n`;
    let length = rest.length + 1;
    while (`${length}${rest}`.length !== length) length = `${length}${rest}`.length;
    return `${length}${rest}`;
  });
  return Buffer.from(lines.join(''));
}
