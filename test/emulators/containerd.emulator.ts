// What `config containerd` prints, as Debian's containerd reads it: imported, it adds what it should and takes nothing away.
import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { parse } from 'smol-toml';
import { runExecutable } from '../fixtures/executable.ts';
import { fetchFromDebian } from '../real-clients/debian.ts';
import { runClient } from '../real-clients/process.ts';
import { namespaceArgv } from '../real-clients/tools.ts';

const MAIN = `version = 2
imports = ["conf.d.toml"]
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "registry.example/pause:1"
`;

for (const decoder of ['ocicrypt-kms', 'ctd-decoder']) {
  test(`${decoder}: the printed file can be imported, and the settings of the file that imports it stay`, async (t) => {
    const directory = await mkdtemp(join(tmpdir(), 'containerd-'));
    t.after(() => rm(directory, { recursive: true }));
    const argv = namespaceArgv([await fetchFromDebian(['containerd'])], 'containerd');
    const version = new TextDecoder().decode((await runClient([...argv, '--version'])).stdout);
    const words = decoder === 'ctd-decoder' ? [`--runtime-version=${version}`] : [];
    const printed = await runExecutable(['config', 'containerd', `--decoder=${decoder}`, ...words]);
    assert.equal(printed.status, 0, printed.stderr);
    await writeFile(join(directory, 'conf.d.toml'), printed.stdout);
    await writeFile(join(directory, 'config.toml'), MAIN);
    const dumped = await runClient([...argv, '-c', join(directory, 'config.toml'), 'config', 'dump']);
    assert.equal(dumped.exitCode, 0, dumped.stderr);
    const { plugins, stream_processors: processors } = JSON.parse(
      JSON.stringify(parse(new TextDecoder().decode(dumped.stdout))),
    );
    const cri = plugins['io.containerd.grpc.v1.cri'];
    assert.equal(cri.sandbox_image, 'registry.example/pause:1');
    assert.equal(cri.image_decryption.key_model, 'node');
    for (const type of ['tar', 'tar.gzip']) {
      const { env, args } = processors[`io.containerd.ocicrypt.decoder.v1.${type}`];
      // No directory of keys has to be there.
      if (decoder === 'ctd-decoder')
        assert.deepEqual([env, args], [['OCICRYPT_KEYPROVIDER_CONFIG=/etc/ocicrypt-kms/ocicrypt.json'], []]);
      else assert.deepEqual(args.slice(-2), ['decoder', '--config=/etc/ocicrypt-kms/config.yaml']);
    }
  });
}
