// A place of one's own for images, here this process's memory: an image is copied there and encrypted on the way, and
// inspected where it lies: node own-place.ts IMAGE KEYFILE.

import process from 'node:process';
import {
  type BlobIdentity,
  type BlobReader,
  type BlobWriter,
  checkContent,
  createKekStore,
  createProvider,
  createProviderWrapper,
  createStoredManifest,
  type Descriptor,
  encryptImage,
  type ImageStore,
  inspectImage,
  OcicryptError,
  openImageSource,
  parseAllowRule,
  parseImageReference,
  type StoredManifest,
} from 'ocicrypt-kms';

class MemoryStore implements ImageStore {
  readonly name = 'memory';
  readonly transfers = 1;
  readonly #blobs = new Map<string, Uint8Array>();
  #root: StoredManifest | undefined;

  async readRoot(): Promise<StoredManifest> {
    if (this.#root !== undefined) return this.#root;
    throw new OcicryptError('not-found', `there is no image in ${this.name}`);
  }

  async readManifest(descriptor: Descriptor): Promise<StoredManifest> {
    const bytes = this.#find(descriptor);
    checkContent(bytes, descriptor, 'manifest');
    return createStoredManifest(bytes, descriptor.mediaType);
  }

  async openBlob(blob: BlobIdentity): Promise<BlobReader> {
    let rest = this.#find(blob);
    return {
      async read(into) {
        const part = rest.subarray(0, into.length);
        into.set(part);
        rest = rest.subarray(part.length);
        return part.length;
      },
      async close() {},
    };
  }

  async hasBlob({ digest }: BlobIdentity): Promise<boolean> {
    return this.#blobs.has(digest);
  }

  async createBlob(): Promise<BlobWriter> {
    const parts: Uint8Array[] = [];
    const blobs = this.#blobs;
    return {
      // The bytes are the writer's only until the promise settles.
      async write(bytes) {
        parts.push(Uint8Array.from(bytes));
      },
      async commit({ digest }) {
        blobs.set(digest, Buffer.concat(parts));
      },
      async discard() {
        parts.length = 0;
      },
    };
  }

  async writeManifest(manifest: StoredManifest): Promise<void> {
    this.#blobs.set(manifest.digest, manifest.bytes);
  }

  async writeRoot(manifest: StoredManifest): Promise<void> {
    await this.writeManifest(manifest);
    this.#root = manifest;
  }

  async close(): Promise<void> {}

  #find({ digest }: BlobIdentity): Uint8Array {
    const bytes = this.#blobs.get(digest);
    if (bytes !== undefined) return bytes;
    throw new OcicryptError('not-found', `there is no ${digest} in ${this.name}`);
  }
}

const [image = '', file = ''] = process.argv.slice(2);
const key = `keyfile://${file}`;
const keks = createKekStore({});
const provider = createProvider({
  openKek: (uri) => keks.open(uri),
  rules: [parseAllowRule(key)],
  callerKeysAllowed: false,
  names: { configured: 'kmscrypt', fallback: 'kmscrypt' },
});
const source = openImageSource(parseImageReference(image));
const store = new MemoryStore();
try {
  const recipients = [
    createProviderWrapper('kmscrypt', [key], (request, _, signal) => provider.handle(request, { signal })),
  ];
  await encryptImage(source, store, { recipients });
  const { platforms } = await inspectImage(store);
  for (const { layers } of platforms)
    for (const { encrypted, keys } of layers)
      process.stdout.write(`${encrypted ? 'encrypted' : 'plain'} ${keys[0]?.recipients[0]?.key ?? 'to nobody'}\n`);
} finally {
  await source.close();
  await keks.close();
}
