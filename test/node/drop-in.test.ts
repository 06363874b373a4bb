// What runtimes read on a node: every encrypted layer has a decoder, and nothing else is set.
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { parse } from 'smol-toml';
import { containerdDropIn, type Decoder, ENCRYPTED_TYPES, rancherTemplate } from '../../src/node/drop-in.ts';
import { formatVersion, parseVersion, payloadRule } from '../../src/node/versions.ts';
import { runCommand } from '../fixtures/terminal.ts';

const OURS: Decoder = { kind: 'ocicrypt-kms', words: ['/opt/x', 'decoder', '--config=/etc/c.yaml'] };
const THEIRS: Decoder = { kind: 'ctd-decoder', path: 'ctd-decoder', payload: 'always' };

/** As JSON has it. */
const read = (text: string) => JSON.parse(JSON.stringify(parse(text)));
const processorsOf = (text: string): readonly { accepts: string[]; returns: string; path: string; args?: string[] }[] =>
  Object.values(read(text).stream_processors);

describe('the drop-in for containerd', () => {
  for (const decoder of [OURS, THEIRS]) {
    test(`${decoder.kind}: each encrypted type has one processor, and no table of a plugin is set`, () => {
      const text = containerdDropIn(decoder);
      assert.deepEqual(Object.keys(read(text)), ['version', 'stream_processors']);
      const accepted = processorsOf(text).flatMap(({ accepts }) => accepts);
      assert.deepEqual(accepted.toSorted(), [...ENCRYPTED_TYPES].toSorted());
    });
  }
  test('ours gives back plain tars; ctd-decoder what lies below the encryption', () => {
    const returns = (decoder: Decoder) => processorsOf(containerdDropIn(decoder)).map((one) => one.returns);
    const layer = 'application/vnd.oci.image.layer.v1.tar';
    assert.deepEqual(returns(OURS), [layer, layer]);
    assert.deepEqual(returns(THEIRS), [layer, `${layer}+gzip`]);
  });
  test('if CRI must pull by itself for ctd-decoder, it is told so where containerd 2 looks', () => {
    const { plugins } = read(containerdDropIn({ ...THEIRS, payload: 'local pull' }));
    assert.deepEqual(plugins, { 'io.containerd.cri.v1.images': { use_local_image_pull: true } });
  });
  test('any word comes back as it was', () => {
    fc.assert(
      fc.property(fc.array(fc.string({ unit: 'grapheme' })), (args) => {
        for (const one of processorsOf(containerdDropIn({ kind: 'ocicrypt-kms', words: ['/x\u007f"\\', ...args] }))) {
          assert.deepEqual([one.path, one.args], ['/x\u007f"\\', args]);
        }
      }),
    );
  });
  test('in a template of k3s no word is taken for one of Go', () => {
    const text = rancherTemplate({ kind: 'ocicrypt-kms', words: ['/x', '{{ template "x" }}'] });
    assert.equal(text.replaceAll('{{"{{"}}', '').match(/\{\{/g)?.length, 1);
  });
});

describe('versions of containerd', () => {
  test('are read out of what it prints', () => {
    for (const [text, version] of [
      ['containerd github.com/containerd/containerd 1.7.24~ds1 1.7.24~ds1-6', '1.7.24'],
      ['containerd github.com/containerd/containerd/v2 v2.4.2 ', '2.4.2'],
      ['containerd github.com/k3s-io/containerd v1.7.23-k3s2 abc', '1.7.23'],
      ['2.1', '2.1.0'],
    ] as const) {
      assert.equal(formatVersion(parseVersion(text) ?? assert.fail(text)), version);
    }
    assert.equal(parseVersion('containerd'), undefined);
  });
  test('say whether ctd-decoder gets a payload', () => {
    for (const [version, rule] of [
      ['1.6.20', 'always'],
      ['1.7.99', 'always'],
      ['2.0.0', 'never'],
      ['2.0.99', 'never'],
      ['2.1.6', 'never'],
      ['2.1.7', 'local pull'],
      ['2.2.0', 'never'],
      ['2.2.1', 'never'],
      ['2.2.2', 'local pull'],
      ['2.10.0', 'local pull'],
      ['3.0.0', 'local pull'],
    ] as const) {
      assert.equal(payloadRule(parseVersion(version) ?? assert.fail()), rule, version);
    }
  });
});

describe('config for a node', () => {
  test('prints no ctd-decoder for a containerd that gives it nothing', async () => {
    const call = (version: string) =>
      runCommand(['config', 'containerd', '--decoder=ctd-decoder', `--runtime-version=${version}`]);
    assert.deepEqual([(await call('2.0.5')).status, (await call('x')).status], [78, 64]);
    assert.ok(!(await call('1.7.24')).stdout.includes('use_local_image_pull'));
    assert.ok((await call('2.2.2')).stdout.includes('use_local_image_pull'));
  });
  test('has the form of gRPC for a unix socket alone', async () => {
    const call = (remote: string) => runCommand(['config', 'ocicrypt', '--grpc', `--remote=${remote}`]);
    const { stdout } = await call('unix:///run/ocicrypt-kms/ocicrypt-kms.sock');
    const provider = { grpc: 'unix:///run/ocicrypt-kms/ocicrypt-kms.sock' };
    assert.deepEqual(JSON.parse(stdout), { 'key-providers': { kmscrypt: provider } });
    assert.equal((await call('tls://kms.example:7443')).status, 64);
  });
});
