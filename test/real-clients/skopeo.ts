// Runs skopeo, the client that most people encrypt images with, and writes the file that tells it of key providers.
import { writeFile } from 'node:fs/promises';
import { type Environment, runClient } from './process.ts';
import type { Registry } from './registry.ts';
import { toolArgv } from './tools.ts';

/** How skopeo ended, and what it said. */
export type SkopeoResult = { readonly exitCode: number; readonly stdout: string; readonly stderr: string };

/** The environment (see `clientEnvironment`) and the working directory of skopeo, and so of the providers that it starts. */
export type SkopeoOptions = { readonly env?: Environment; readonly cwd?: string };

/**
 * What to do while copying. `encryptionKeys` are recipients (`jwe:PUBLIC.pem`, `provider:NAME:VALUE`), `decryptionKeys`
 * keys (`PRIVATE.pem`, `provider:NAME`); a comma in either splits it. `encryptLayers` counts from 0, or from -1 backwards;
 * all layers by default. `all` copies every platform of an index. `registry` says how to reach a `docker://` side.
 */
export type CopyOptions = SkopeoOptions & {
  readonly encryptionKeys?: readonly string[];
  readonly encryptLayers?: readonly number[];
  readonly decryptionKeys?: readonly string[];
  readonly all?: boolean;
  readonly registry?: Registry;
  readonly extra?: readonly string[];
};

/** One entry of `key-providers`: a command that skopeo starts for each call, or a gRPC target that it dials. */
export type KeyProvider =
  | { readonly cmd: { readonly path: string; readonly args?: readonly string[] } }
  | { readonly grpc: string };

/** Runs skopeo with `args`. A failing exit is a result; throws only when skopeo cannot be had or started. */
export async function skopeo(args: readonly string[], options: SkopeoOptions = {}): Promise<SkopeoResult> {
  const argv = await toolArgv('skopeo');
  // The machine may have no /etc/containers/policy.json, without which skopeo refuses to copy.
  const { exitCode, stdout, stderr } = await runClient([...argv, '--insecure-policy', ...args], options);
  return { exitCode, stdout: new TextDecoder().decode(stdout), stderr };
}

/** Runs `skopeo copy SOURCE DESTINATION`, both as skopeo names images: `oci:DIR:TAG`, `oci-archive:FILE`, `docker://…`. */
export async function copy(source: string, destination: string, options: CopyOptions = {}): Promise<SkopeoResult> {
  const args = [
    ...(options.all ? ['--all'] : []),
    ...(options.encryptionKeys ?? []).flatMap((key) => ['--encryption-key', key]),
    ...(options.encryptLayers ?? []).flatMap((layer) => ['--encrypt-layer', String(layer)]),
    ...(options.decryptionKeys ?? []).flatMap((key) => ['--decryption-key', key]),
    ...registryFlags('src', source, options.registry),
    ...registryFlags('dest', destination, options.registry),
    ...(options.extra ?? []),
  ];
  return skopeo(['copy', ...args, source, destination], options);
}

/**
 * Writes the key providers of `ocicrypt.json` to `file`, and answers the variable that names it to a client.
 * Format: https://github.com/containers/ocicrypt/blob/main/docs/keyprovider.md
 */
export async function writeOcicryptConfig(
  file: string,
  providers: Readonly<Record<string, KeyProvider>>,
): Promise<{ readonly OCICRYPT_KEYPROVIDER_CONFIG: string }> {
  await writeFile(file, JSON.stringify({ 'key-providers': providers }, undefined, 2));
  return { OCICRYPT_KEYPROVIDER_CONFIG: file };
}

function registryFlags(side: 'src' | 'dest', reference: string, registry: Registry | undefined): readonly string[] {
  if (registry === undefined || !reference.startsWith('docker://')) return [];
  const { credentials } = registry;
  return [
    ...[`--${side}-cert-dir`, registry.certificateDirectory],
    ...(credentials === undefined ? [] : [`--${side}-creds`, `${credentials.username}:${credentials.password}`]),
  ];
}
