/** Which file of an archive a tar member is: one path has one member, and none lies outside. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type ArchiveMember, linkedPath, MemberNames, memberPath } from '../../../src/image/transports/member-names.ts';

describe('names of members', () => {
  it('are read as tools that unpack read them', () => {
    for (const name of [
      'index.json',
      './index.json',
      '/index.json',
      '//index.json',
      'x/../index.json',
      './/index.json/',
    ])
      assert.equal(memberPath(name), 'index.json', name);
    assert.equal(memberPath('/../index.json'), 'index.json', 'above the root is the root');
    for (const name of ['', '.', './', '/', 'x/..']) assert.equal(memberPath(name), '', name);
    for (const name of [
      '..',
      '../index.json',
      './../index.json',
      'x/../../index.json',
      'index.json\0x',
      'x/'.repeat(4096),
    ])
      assert.equal(memberPath(name), undefined, name.slice(0, 20));
    assert.equal(memberPath('..index.json'), '..index.json');
  });

  it('of links that leave the archive are none', () => {
    assert.equal(linkedPath('a/layer.tar', 'symbolic-link', '../b/layer.tar'), 'b/layer.tar');
    assert.equal(linkedPath('a/layer.tar', 'hard-link', 'b/layer.tar'), 'b/layer.tar');
    assert.equal(linkedPath('a/layer.tar', 'hard-link', '/b/layer.tar'), 'b/layer.tar');
    assert.equal(linkedPath('a/layer.tar', 'symbolic-link', '/b/layer.tar'), undefined, 'of the machine');
    assert.equal(linkedPath('a/layer.tar', 'symbolic-link', '../../layer.tar'), undefined);
    assert.equal(linkedPath('a/layer.tar', 'hard-link', '../layer.tar'), undefined);
    assert.equal(linkedPath('a/layer.tar', 'symbolic-link', './.././b'), 'b');
    for (const target of ['b/../layer.tar', '../b/../layer.tar', 'b/./..//layer.tar', 'b/..'])
      assert.equal(linkedPath('a/layer.tar', 'symbolic-link', target), undefined, `${target}: b may be a link`);
  });

  it('are bounded in all, and so are the directories that they lie in', () => {
    const add = (count: number, name: (index: number) => string, target?: string) => {
      const names = new MemberNames('a.tar');
      for (let index = 0; index < count; index++)
        names.add({ name: name(index), kind: target === undefined ? 'file' : 'hard-link', target });
    };
    const deep = (index: number) => `${index}/${'a/'.repeat(2000)}f`;
    assert.throws(() => add(10, deep), { code: 'bad-input', message: /more than 20000 directories/ });
    const long = (index: number) => String(index).padStart(4000, 'x');
    add(1048, long);
    for (const longest of [() => add(1049, long), () => add(1049, String, 'x'.repeat(4000))])
      assert.throws(longest, { code: 'bad-input', message: /more than 4194304 characters/ });
  });

  it('that mean one file are refused, however they are spelled', () => {
    const spellings = ['index.json', './index.json', '/index.json', '//index.json', 'x/../index.json', 'index.json/'];
    for (const first of spellings) {
      for (const second of spellings) {
        for (const kind of ['file', 'hard-link', 'symbolic-link', 'other', 'directory'] as const) {
          refuses([{ name: first, kind: 'file' }], { name: second, kind, target: 'x' });
          refuses([{ name: first, kind, target: 'x' }], { name: second, kind: 'file' });
        }
      }
    }
    const twice: ArchiveMember = { name: 'blobs/', kind: 'directory' };
    assert.equal(collect([twice]).add(twice), 'blobs', 'a directory may be named again');
  });

  it('that lie under anything but a directory are refused, in either order', () => {
    for (const kind of ['file', 'hard-link', 'symbolic-link', 'other'] as const) {
      const parent: ArchiveMember = { name: './blobs', kind, target: 'x' };
      const child: ArchiveMember = { name: 'blobs/sha256/x', kind: 'file' };
      refuses([parent], child);
      refuses([child], parent);
    }
    refuses([], { name: './', kind: 'file' });
    refuses([], { name: '../x', kind: 'file' });
    refuses([], { name: 'index.json', kind: 'symbolic-link', target: '/etc/passwd' });
  });

  it('of links lead to the file, and nowhere in a circle', () => {
    const names = collect([
      { name: './a/layer.tar', kind: 'symbolic-link', target: '../b/layer.tar' },
      { name: 'b/layer.tar', kind: 'hard-link', target: './c' },
      { name: 'c', kind: 'file' },
      { name: 'd', kind: 'symbolic-link', target: 'e' },
      { name: 'e', kind: 'symbolic-link', target: 'd' },
      { name: 'f', kind: 'symbolic-link', target: 'nothing' },
      { name: 'g', kind: 'directory' },
      // On a disk this is the symbolic link `c`, beside its own `c`.
      { name: 'k/c', kind: 'file' },
      { name: 'k/s', kind: 'symbolic-link', target: 'c' },
      { name: 'i', kind: 'hard-link', target: 'k/s' },
      { name: 'j', kind: 'hard-link', target: 'i' },
    ]);
    assert.equal(names.resolve('a/layer.tar'), 'c');
    assert.equal(names.resolve('k/s'), 'k/c');
    for (const path of ['d', 'f', 'g', 'h', 'i', 'j']) assert.equal(names.resolve(path), undefined, path);
  });
});

function collect(members: readonly ArchiveMember[]): MemberNames {
  const names = new MemberNames('x.tar');
  for (const member of members) names.add(member);
  return names;
}

function refuses(before: readonly ArchiveMember[], member: ArchiveMember): void {
  const names = collect(before);
  assert.throws(() => names.add(member), { code: 'bad-input' }, JSON.stringify([before, member]));
}
