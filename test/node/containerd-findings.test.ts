// What a dump, a version and a processor say of a containerd; test/nodes has the same from real ones.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseToml } from '../../src/node/containerd-config.ts';
import { examineContainerd, unreadableConfig } from '../../src/node/containerd-findings.ts';
import { containerdDropIn, type Decoder } from '../../src/node/drop-in.ts';
import type { Containerd } from '../../src/node/runtimes.ts';
import { parseVersion } from '../../src/node/versions.ts';

const containerd = (version: string): Containerd => ({
  kind: 'containerd',
  program: '/usr/bin/containerd',
  config: '/nowhere/config.toml',
  version: parseVersion(version),
  running: undefined,
  unit: undefined,
});
const OURS: Decoder = { kind: 'ocicrypt-kms', words: ['/bin/sh', 'decoder'] };
const THEIRS: Decoder = { kind: 'ctd-decoder', path: '/bin/sh', payload: 'always' };

function examine(version: string, text: string): string {
  const { findings } = examineContainerd(containerd(version), parseToml(text, 'dump'), 'fail');
  for (const { hint } of findings) assert.ok(hint !== undefined);
  return findings.map(({ level, message }) => `${level} ${message}`).join('\n');
}

test('our decoder is right on every version, whoever pulls', () => {
  for (const version of ['1.6.20', '1.7.24', '2.0.14', '2.1.5', '2.2.1', '2.4.2']) {
    assert.equal(examine(version, containerdDropIn(OURS)), '', version);
  }
  const model = '[plugins."io.containerd.grpc.v1.cri".image_decryption]\nkey_model = ""\n';
  assert.equal(examine('1.7.24', `${containerdDropIn(OURS)}${model}`), '');
});

test('an old containerd is named', () => {
  assert.match(examine('1.2.9', containerdDropIn(OURS)), /^fail has no stream processors/);
  assert.match(examine('1.5.9', containerdDropIn(OURS)), /^warn is older than/);
});

test('another decoder than ours needs the payload: by version, by who pulls, by key_model', () => {
  const text = containerdDropIn(THEIRS);
  const local = '[plugins."io.containerd.cri.v1.images"]\nuse_local_image_pull = true\n';
  assert.equal(examine('1.7.24', text), '');
  assert.match(examine('2.0.14', text), /^fail gives ctd-decoder no payload, as every 2\.0\.14 does/);
  assert.match(examine('2.1.9', text), /^fail gives ctd-decoder no payload, because CRI leaves/);
  assert.equal(examine('2.1.9', `${text}${local}`), '');
  assert.match(examine('2.1.6', `${text}${local}`), /^fail/);
  assert.match(
    examine('2.1.9', `${text}${local}[plugins."io.containerd.cri.v1.images".image_decryption]\nkey_model = ""\n`),
    /^fail has key_model/,
  );
  assert.match(
    examine('1.7.24', text.replace('.v1.tar.gzip"', '.v1.mine"')),
    /^fail .*\.v1\.mine: containerd gives a payload to/,
  );
});

test('a type without a decoder, and one with two, is named', () => {
  const text = containerdDropIn(OURS);
  assert.match(
    examine('2.4.2', text.replace(/, "[^"]*zstd[^"]*"/, '')),
    /^fail has no decoder for \S+tar\+zstd\+encrypted/,
  );
  const second =
    '[stream_processors.mine]\naccepts = ["application/vnd.oci.image.layer.v1.tar+encrypted"]\npath = "/bin/sh"\nargs = ["decoder"]\n';
  assert.match(examine('2.4.2', `${text}${second}`), /^warn has 2 decoders for/);
  assert.match(examine('2.4.2', ''), /^fail has no decoder/);
});

test('why a configuration cannot be read leads to what to do', () => {
  const { message, hint } = unreadableConfig(containerd('1.7.24'), '(3, 2): duplicated tables');
  assert.ok(message.includes('duplicated tables') && hint?.includes('file of their own'));
  for (const problem of ['open /etc/x.toml: permission denied', '/etc/x.toml cannot be read here']) {
    const said = (isRoot: boolean) => unreadableConfig(containerd('1.7.24'), problem, isRoot);
    assert.deepEqual([said(false).level, said(false).hint], ['warn', 'run this as root'], problem);
    assert.deepEqual([said(true).level, said(true).hint?.startsWith('correct it')], ['fail', true], problem);
  }
});
