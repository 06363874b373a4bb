// What every test with a real client needs: a directory, our executable as users run it, keys, and what skopeo printed.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import type { ErrorCode } from '../../src/base/errors.ts';
import { ERROR_STATUS } from '../../src/base/errors.ts';
import { type Descriptor, type Image, readImages } from '../fixtures/images.ts';
import { assertJsonOutput } from '../fixtures/json-output.ts';
import { clientEnvironment } from '../real-clients/process.ts';
import type { KeyProvider } from '../real-clients/skopeo.ts';

/** The directory that holds the built executable under both of its names. */
export const DIST = fileURLToPath(new URL('../../dist', import.meta.url));

/** The executable's names: ours, and the reference provider's. */
export type ExecutableName = 'kms_oci_crypt' | 'ocicrypt-kms';

/** A temporary directory. `oci(NAME)` is skopeo's name for a layout in it, `path(NAME)` a file or that layout's directory. */
export interface Workspace {
  readonly directory: string;
  path(name: string): string;
  oci(name: string): string;
  /** Makes a local key by `ocicrypt-kms keygen`. */
  keygen(name: string): Promise<LocalKey>;
}

/** A key file: where it is, the URI to encrypt to, and the URI that packets hold. */
export type LocalKey = { readonly file: string; readonly uri: string; readonly thumbprint: string };

/** Makes a directory that is removed when the test ends. */
export async function createWorkspace(t: Pick<TestContext, 'after'>): Promise<Workspace> {
  const directory = await mkdtemp(join(tmpdir(), 'end-to-end-'));
  // What a client has started may be tidying up there still.
  t.after(() => rm(directory, { recursive: true, force: true, maxRetries: 10 }));
  const path = (name: string) => join(directory, name);
  return {
    directory,
    path,
    oci: (name) => `oci:${path(name)}:latest`,
    async keygen(name) {
      const file = path(name);
      const { stdout } = await promisify(execFile)(executable(), ['keygen', '--json', file], {
        env: clientEnvironment(),
      });
      assertJsonOutput(['keygen', '--json'], stdout);
      const { uri, key }: { readonly uri: string; readonly key: string } = JSON.parse(stdout);
      return { file, uri, thumbprint: key };
    },
  };
}

/** The path of the built executable, as it stands in an `ocicrypt.json`. */
export function executable(name: ExecutableName = 'ocicrypt-kms'): string {
  const path = join(DIST, name);
  assert.ok(existsSync(path), `${path} is not there: run npm run build`);
  return path;
}

/** Our command as a client's key provider. */
export function keyprovider(...options: readonly string[]): KeyProvider {
  return { cmd: { path: executable(), args: ['keyprovider', ...options] } };
}

/** The same executable under the reference provider's name. */
export function referenceProvider(...options: readonly string[]): KeyProvider {
  return { cmd: { path: executable('kms_oci_crypt'), args: options } };
}

/** Demands that a client ended well. */
export async function succeed<Result extends { readonly exitCode: number; readonly stderr: string }>(
  running: Promise<Result>,
): Promise<Result> {
  const result = await running;
  assert.equal(result.exitCode, 0, result.stderr);
  return result;
}

/** What the client printed of our one line. */
export type ProviderLine = {
  readonly name: string;
  readonly code: string;
  readonly text: string;
  readonly exitStatus: number;
};

/**
 * Demands that a client failed and that its output holds our line: the code, the exit status of that code, and each
 * of `parts` (the key, the hint) within that line.
 */
export function assertRefusal(
  result: { readonly exitCode: number; readonly stderr: string },
  code: ErrorCode,
  ...parts: readonly string[]
): ProviderLine {
  assert.notEqual(result.exitCode, 0, 'the client should have failed');
  const lines = providerLines(result.stderr);
  const line = lines.find((one) => one.code === code);
  assert.ok(line, `no line with code ${code} in: ${result.stderr}`);
  assert.equal(line.exitStatus, ERROR_STATUS[code].exit);
  for (const part of parts) assert.ok(line.text.includes(part), `${part} is not in: ${line.text}`);
  return line;
}

/** Our lines within what a Go client printed, which quotes its own output where it is no terminal. */
function providerLines(stderr: string): readonly ProviderLine[] {
  const plain = stderr.replaceAll('\\n', '\n').replaceAll('\\"', '"');
  const lines = plain.matchAll(/stderr: (ocicrypt-kms|kms_oci_crypt): ([a-z-]+): ([^\n]*)\n: exit status (\d+)/g);
  return [...lines].map(([, name = '', code = '', text = '', exitStatus]) => ({
    ...{ name, code, text },
    exitStatus: Number(exitStatus),
  }));
}

/** The one image of a layout. */
export async function readImage(directory: string): Promise<Image> {
  const [image, ...others] = await readImages(directory);
  assert.ok(image);
  assert.equal(others.length, 0);
  return image;
}

/** The annotation that holds a provider's packets. */
export function annotationOf(provider: string): string {
  return `org.opencontainers.image.enc.keys.provider.${provider}`;
}

/** Whether a layer is encrypted, to the named provider among others. */
export function isEncrypted(layer: Descriptor, provider = 'kmscrypt'): boolean {
  return layer.mediaType.endsWith('+encrypted') && layer.annotations?.[annotationOf(provider)] !== undefined;
}

/** The packets that a layer holds for a provider, as JSON text. */
export function packetsOf(layer: Descriptor | undefined, provider = 'kmscrypt'): readonly string[] {
  const annotation = layer?.annotations?.[annotationOf(provider)];
  assert.ok(annotation, `no annotation of ${provider}`);
  return annotation.split(',').map((packet) => Buffer.from(packet, 'base64').toString());
}

export function digests(layers: readonly Descriptor[]): readonly string[] {
  return layers.map(({ digest }) => digest);
}
