// Images of buildah, umoci, crane, oras and regctl, encrypted and decrypted in docker-registry 2.8, distribution 3 and crane's registry.
import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { decryptImage } from '../../src/image/decrypt.ts';
import { encryptImage } from '../../src/image/encrypt.ts';
import { type ImageManifest, parseManifest } from '../../src/image/model/manifest.ts';
import { parseImageReference } from '../../src/image/model/reference.ts';
import { openRegistry } from '../../src/image/transports/registry/store.ts';
import { packetKeys, v2Recipient } from '../image/packet-recipients.ts';
import { type CountingProxy, startCountingProxy } from '../peers/counting-proxy.ts';
import { fetchGo } from '../peers/fetched.ts';
import { CRANE, fillWorkshop, IMAGE_MAKERS } from '../peers/image-makers.ts';
import { findPort, startProgram } from '../peers/started.ts';
import { startRegistry } from '../real-clients/registry.ts';

const KEY = 'gcpkms://projects/p/locations/global/keyRings/r/cryptoKeys/a';
const DISTRIBUTION = 'github.com/distribution/distribution/v3/cmd/registry@v3.1.2';
type Started = { readonly host: string; readonly authority?: string; readonly stop: () => unknown };

const REGISTRIES: Readonly<Record<string, (directory: string) => Promise<Started>>> = {
  'docker-registry 2.8': () => startRegistry(),
  'distribution 3': async (directory) => {
    const port = await findPort();
    const settings = {
      version: 0.1,
      storage: { filesystem: { rootdirectory: join(directory, 'distribution') } },
      http: { addr: `127.0.0.1:${port}` },
    };
    const file = join(directory, 'distribution.yml');
    // JSON is YAML.
    await writeFile(file, JSON.stringify(settings));
    const { stop } = await startProgram(await fetchGo(DISTRIBUTION), ['serve', file], { port });
    return { host: `127.0.0.1:${port}`, stop };
  },
  "crane's registry": async () => {
    const port = await findPort();
    const words = ['registry', 'serve', `--address=127.0.0.1:${port}`];
    const { stop } = await startProgram(await fetchGo(CRANE), words, { port });
    return { host: `127.0.0.1:${port}`, stop };
  },
};

for (const [name, start] of Object.entries(REGISTRIES)) {
  describe(name, () => {
    let directory: string;
    let registry: Started;
    let proxy: CountingProxy;
    before(async () => {
      directory = await mkdtemp(join(tmpdir(), 'registries-'));
      await fillWorkshop(directory);
      registry = await start(directory);
      proxy = await startCountingProxy(registry.host, registry.authority);
    });
    after(async () => {
      proxy?.stop();
      await registry?.stop();
      await rm(directory, { recursive: true, force: true });
    });

    for (const [maker, make] of Object.entries(IMAGE_MAKERS)) {
      test(`an image of ${maker}`, async (t) => {
        const open = (tag: string) => {
          const image = parseImageReference(`docker://${proxy.host}/${maker}:${tag}`);
          assert.ok(image.transport === 'docker');
          const store = openRegistry(image, { environment: { HOME: directory, XDG_RUNTIME_DIR: directory } });
          t.after(() => store.close());
          return store;
        };
        assert.equal(await make({ directory, host: proxy.host }), `${proxy.host}/${maker}:plain`);
        const plain = await readManifest(open('plain'));
        const layers = new Set(plain.layers.map(({ digest }) => digest)).size;

        proxy.counts();
        const encrypted = await encryptImage(open('plain'), open('enc'), { recipients: [v2Recipient([KEY])] });
        assert.equal(encrypted.referrersComplete, true);
        const { GET: _, ...sent } = proxy.counts();
        // Three tags of signatures and the config, which is there; each layer once; the tag.
        assert.deepEqual(sent, { HEAD: 4, POST: layers, PATCH: layers, PUT: layers + 1 });

        await decryptImage(open('enc'), open('dec'), { keys: packetKeys([KEY]), checkDiffIds: maker !== 'oras' });
        const { GET: __, ...back } = proxy.counts();
        assert.deepEqual(back, { HEAD: 1, POST: layers, PATCH: layers, PUT: layers + 1 });
        const decrypted = await readManifest(open('dec'));
        assert.deepEqual(
          [decrypted.config, ...decrypted.layers].map(({ digest, size }) => [digest, size]),
          [plain.config, ...plain.layers].map(({ digest, size }) => [digest, size]),
        );
      });
    }
  });
}

async function readManifest(store: ReturnType<typeof openRegistry>): Promise<ImageManifest> {
  const { bytes, mediaType } = await store.readRoot();
  const manifest = parseManifest(bytes, mediaType, 'manifest');
  assert.ok(manifest.kind === 'manifest');
  return manifest;
}
