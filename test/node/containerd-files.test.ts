// A containerd that cannot be asked: its files are put together as it would, and judged like a dump.

import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { readConfigFiles } from '../../src/node/containerd-files.ts';
import { examineContainerd } from '../../src/node/containerd-findings.ts';
import { containerdDropIn } from '../../src/node/drop-in.ts';
import type { Containerd } from '../../src/node/runtimes.ts';

const directory = mkdtempSync(join(tmpdir(), 'containerd-files-'));
after(() => rmSync(directory, { recursive: true, force: true }));
const conf = join(directory, 'conf.d');
mkdirSync(conf);

const OURS = containerdDropIn({ kind: 'ocicrypt-kms', words: ['/bin/sh', 'decoder'] });
const THEIRS = containerdDropIn({ kind: 'ctd-decoder', path: '/bin/sh', payload: 'always' });
const LOCAL = '[plugins."io.containerd.cri.v1.images"]\n  use_local_image_pull = true\n';

/** What is found with this configuration, and with these files beside it. @param PATH where containerd looks for programs */
function examine(text: string, files: Readonly<Record<string, string>> = {}, PATH = '/nowhere'): string {
  const config = join(directory, 'config.toml');
  writeFileSync(config, text);
  for (const [name, content] of Object.entries(files)) writeFileSync(join(conf, name), content);
  const containerd: Containerd = {
    kind: 'containerd',
    program: undefined,
    config,
    version: undefined,
    running: { pid: 1, program: '', words: [], environment: { PATH }, started: Date.now(), service: undefined },
    unit: undefined,
  };
  try {
    const read = readConfigFiles(config, 'containerd');
    assert.ok(read !== undefined);
    if ('problem' in read) return `problem ${read.problem}`;
    const { findings } = examineContainerd(containerd, read.config, 'warn');
    const all = [...read.findings, ...findings];
    for (const { hint } of all) assert.ok(hint !== undefined);
    return all.map(({ level, message }) => `${level} ${message}`).join('\n');
  } finally {
    for (const name of Object.keys(files)) rmSync(join(conf, name));
  }
}

test('files that work have nothing to say, and a missing file is none', () => {
  assert.equal(examine(OURS), '');
  assert.equal(examine(LOCAL + THEIRS.replace('version = 2\n', '')), '');
  assert.equal(readConfigFiles(join(directory, 'nowhere.toml'), 'containerd'), undefined);
  assert.match(examine('version = 3\n'), /^warn has no decoder/);
  assert.match(examine('version = 3\n', { 'ocicrypt.toml': OURS }), /^warn has no decoder/, 'no file imports it');
});

test('a configuration is read with what it imports, from the place of the file that imports', () => {
  for (const imports of ['conf.d/*.toml', join(conf, '*.toml'), './conf.d/ocicrypt.toml']) {
    assert.equal(examine(`imports = ["${imports}"]\n`, { 'ocicrypt.toml': OURS }), '', imports);
  }
  const again = { 'ocicrypt.toml': `imports = ["../config.toml"]\n${OURS}` };
  assert.equal(examine('imports = ["conf.d/*.toml"]\n', again), '', 'a circle ends');
  assert.match(examine('imports = ["absent.toml"]\n'), /^problem .*absent\.toml is imported and is not there/);
  assert.match(examine('imports = ["conf.d"]\n'), /^problem .*conf\.d is no file/);
  const broken = examine('imports = ["conf.d/*.toml"]\n', { 'z.toml': 'a = [' });
  assert.match(broken, /^problem .*z\.toml is not valid TOML \(line 1\)/);
  assert.match(examine(LOCAL + LOCAL), /^problem .*config\.toml is not valid TOML \(line 3\)/);
});

test('an imported table that resets an earlier one is said; the last processor of a name counts', () => {
  const cri = '[plugins."io.containerd.grpc.v1.cri"]\n  sandbox_image = "x"\n';
  const added = '[plugins."io.containerd.grpc.v1.cri".image_decryption]\n  key_model = "node"\n';
  const found = examine(`imports = ["conf.d/*.toml"]\n${cri}`, { 'a.toml': OURS, 'z.toml': added });
  assert.match(found, /^warn .*z\.toml sets a table of plugins that \S+\/config\.toml sets too/);
  const later = examine('imports = ["conf.d/*.toml"]\n', { 'a.toml': OURS, 'b.toml': cri, 'z.toml': added });
  assert.match(later, /^warn .*z\.toml sets a table of plugins that \S+\/b\.toml sets too/);
  const imports = `imports = ["conf.d/*.toml"]\n${LOCAL}`;
  assert.equal(examine(imports, { 'a.toml': THEIRS.replaceAll('/bin/sh', '/nowhere'), 'b.toml': THEIRS }), '');
});

test('the decoders that containerd has by itself are none without their keys, even if ctd-decoder is installed', () => {
  assert.equal(examine('version = 3\n'), 'warn has no decoder for encrypted layers');
  const programs = join(directory, 'bin');
  mkdirSync(programs);
  writeFileSync(join(programs, 'ctd-decoder'), '', { mode: 0o755 });
  assert.equal(examine('version = 3\n', {}, programs), 'warn has no decoder for encrypted layers');
  assert.equal(examine(OURS, {}, programs), '');
});

test('a decoder that needs a payload has one on every version only if CRI pulls by itself', () => {
  assert.match(examine(THEIRS), /^warn would give ctd-decoder no payload from 2\.1 on/);
  const model = '[plugins."io.containerd.cri.v1.images".image_decryption]\nkey_model = ""\n';
  assert.match(examine(LOCAL + model + THEIRS.replace('version = 2\n', '')), /^fail has key_model = ""/);
});

test('a decoder, or a directory of keys, that is not there is said', () => {
  assert.match(examine(OURS.replaceAll('/bin/sh', '/nowhere/decoder')), /^fail .*decoder is not there for containerd/);
  assert.match(examine(OURS.replaceAll('path = "/bin/sh"', '')), /^fail .*names no decoder/);
  const args = (path: string) =>
    THEIRS.replaceAll('path =', `args = ["--decryption-keys-path", "${path}"]\n    path =`);
  const found = examine(LOCAL + args('/nowhere').replace('version = 2\n', ''));
  assert.match(found, /^fail .*--decryption-keys-path \/nowhere is not a directory/);
  assert.equal(examine(LOCAL + args(conf).replace('version = 2\n', '')), '');
});
