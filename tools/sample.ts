// The requests that a client sends for a layer, and an image, for what is measured and for what the executable is arranged by.
// https://github.com/containers/ocicrypt/blob/main/docs/keyprovider.md

import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';

/** A request to wrap a layer key, which is not a secret, with `key`, under the reference provider's name. */
export function wrapRequest(key: string): Uint8Array {
  const parameters = { Parameters: { kmscrypt: [base64(key)] } };
  const record = {
    symkey: base64(new Uint8Array(32).fill(1)),
    digest: `sha256:${'5'.repeat(64)}`,
    cipheroptions: { nonce: base64(new Uint8Array(16).fill(2)) },
  };
  const ec = { ...parameters, DecryptConfig: parameters };
  return encode({ op: 'keywrap', keywrapparams: { ec, optsdata: base64(JSON.stringify(record)) } });
}

/** A request to unwrap what a reply to {@link wrapRequest} holds. */
export function unwrapRequest(key: string, wrapReply: Uint8Array): Uint8Array {
  const { keywrapresults } = JSON.parse(Buffer.from(wrapReply).toString());
  const dc = { Parameters: { kmscrypt: [base64(key)] } };
  return encode({ op: 'keyunwrap', keyunwrapparams: { dc, annotation: keywrapresults.annotation } });
}

/** Writes an image layout `oci:DIRECTORY` with one small layer, compressed by gzip as most are. */
export function writeSampleImage(directory: string): void {
  const blobs = join(directory, 'blobs/sha256');
  mkdirSync(blobs, { recursive: true });
  const add = (mediaType: string, bytes: Uint8Array) => {
    const hex = createHash('sha256').update(bytes).digest('hex');
    writeFileSync(join(blobs, hex), bytes);
    return { mediaType, digest: `sha256:${hex}`, size: bytes.length };
  };
  const tar = new Uint8Array(10_240);
  const diffId = `sha256:${createHash('sha256').update(tar).digest('hex')}`;
  const config = { architecture: 'amd64', os: 'linux', rootfs: { type: 'layers', diff_ids: [diffId] } };
  const type = (name: string) => `application/vnd.oci.image.${name}`;
  const manifest = {
    ...{ schemaVersion: 2, mediaType: type('manifest.v1+json') },
    config: add(type('config.v1+json'), encode(config)),
    layers: [add(type('layer.v1.tar+gzip'), gzipSync(tar))],
  };
  const manifests = [add(manifest.mediaType, encode(manifest))];
  writeFileSync(join(directory, 'index.json'), encode({ schemaVersion: 2, manifests }));
  writeFileSync(join(directory, 'oci-layout'), encode({ imageLayoutVersion: '1.0.0' }));
}

/** The type and the blob of the one layer of a layout that {@link writeSampleImage} wrote, or that was made of it. */
export function sampleLayer(directory: string): { readonly mediaType: string; readonly blob: string } {
  const path = (digest: string) => join(directory, 'blobs/sha256', digest.replace('sha256:', ''));
  const read = (file: string) => JSON.parse(readFileSync(file, 'utf8'));
  const [{ digest }] = read(join(directory, 'index.json')).manifests;
  const [layer] = read(path(digest)).layers;
  return { mediaType: layer.mediaType, blob: path(layer.digest) };
}

function encode(request: object): Uint8Array {
  return Buffer.from(JSON.stringify(request));
}

function base64(data: string | Uint8Array): string {
  return Buffer.from(data).toString('base64');
}
