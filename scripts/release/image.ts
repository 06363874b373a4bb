// The container image: the executable, the C library that it needs, the certificate authorities, and nothing else.
// https://github.com/opencontainers/image-spec

import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { rootCertificates } from 'node:tls';
import { gunzipSync, gzipSync } from 'node:zlib';
import { packTar, type TarEntry } from 'modern-tar';
import { CURRENT, fetchFromDebian } from '../../test/real-clients/debian.ts';
import type { Build, Product } from '../../tools/release/contents.ts';
import type { SystemPackage } from './sbom.ts';

export type ImageArch = 'amd64' | 'arm64';

export type ImageRequest = {
  readonly arch: ImageArch;
  readonly executable: string;
  readonly licenses: string;
};

/** A user without a name on the host, as distroless images have it. */
const USER = 65532;
const TYPE = 'application/vnd.oci.image';

/** Where the dynamic linker is, which the executable names, and where it looks for libraries. */
const PLACES = {
  amd64: { linker: 'lib64/ld-linux-x86-64.so.2', triplet: 'x86_64-linux-gnu' },
  arm64: { linker: 'lib/ld-linux-aarch64.so.1', triplet: 'aarch64-linux-gnu' },
};
const LIBRARIES = ['libc.so.6', 'libm.so.6', 'libpthread.so.0', 'libdl.so.2', 'libresolv.so.2'];

type Descriptor = { readonly mediaType: string; readonly digest: string; readonly size: number };

/**
 * An archive of an OCI layout, with an image for each architecture under the tag of the version.
 *
 * @returns its bytes, and what of Debian is in it
 */
export async function makeImage(
  requests: readonly ImageRequest[],
  product: Product,
  build: Build,
): Promise<{ readonly archive: Uint8Array; readonly system: readonly SystemPackage[] }> {
  const blobs = new Map<string, Uint8Array>();
  const add = (mediaType: string, bytes: Uint8Array): Descriptor => {
    const digest = digestOf(bytes);
    blobs.set(digest, bytes);
    return { mediaType: `${TYPE}.${mediaType}`, digest, size: bytes.length };
  };
  const addJson = (mediaType: string, value: object) => add(mediaType, Buffer.from(JSON.stringify(value)));
  const date = new Date(build.date);
  const manifests = [];
  let system: readonly SystemPackage[] = [];
  for (const request of requests) {
    const root = await fetchFromDebian(['libc6'], CURRENT, request.arch);
    system = [libcOf(root)];
    const layers = [baseLayer(root, request.arch), programLayer(request)].map((entries) => entries.map(dated(date)));
    const tars = await Promise.all(layers.map((entries) => packTar(entries)));
    const config = addJson('config.v1+json', configOf(request.arch, tars.map(digestOf), product, build));
    const manifest = addJson('manifest.v1+json', {
      schemaVersion: 2,
      mediaType: `${TYPE}.manifest.v1+json`,
      config,
      layers: tars.map((tar) => add('layer.v1.tar+gzip', gzipSync(tar))),
      annotations: annotationsOf(product, build),
    });
    manifests.push({ ...manifest, platform: { os: 'linux', architecture: request.arch } });
  }
  const index = addJson('index.v1+json', {
    schemaVersion: 2,
    mediaType: `${TYPE}.index.v1+json`,
    manifests,
    annotations: annotationsOf(product, build),
  });
  const named = { ...index, annotations: { 'org.opencontainers.image.ref.name': product.version } };
  const entries = [
    directory('blobs'),
    directory('blobs/sha256'),
    ...[...blobs].map(([digest, bytes]) => file(`blobs/${digest.replace(':', '/')}`, bytes)),
    file('index.json', JSON.stringify({ schemaVersion: 2, manifests: [named] })),
    file('oci-layout', '{"imageLayoutVersion":"1.0.0"}'),
  ];
  return { archive: await packTar(entries.map(dated(date))), system };
}

function baseLayer(root: string, arch: ImageArch): readonly TarEntry[] {
  const { linker, triplet } = PLACES[arch];
  const libraries = join(root, 'usr/lib', triplet);
  const library = (name: string, at: string) => file(at, readFileSync(join(libraries, name)), 0o755);
  const [linkerDirectory = '', linkerName = ''] = linker.split('/');
  return [
    ...['etc', 'etc/ssl', 'etc/ssl/certs', 'lib', `lib/${triplet}`].map((name) => directory(name)),
    ...(linkerDirectory === 'lib' ? [] : [directory(linkerDirectory)]),
    ...['usr', 'usr/bin', 'usr/share', 'usr/share/doc', 'usr/share/doc/libc6', 'run'].map((name) => directory(name)),
    directory('tmp', 0o1777),
    directory('home', 0o755),
    directory('home/nonroot', 0o700, USER),
    directory('run/ocicrypt-kms', 0o700, USER),
    file(
      'etc/passwd',
      `root:x:0:0:root:/root:/sbin/nologin\nnonroot:x:${USER}:${USER}:nonroot:/home/nonroot:/sbin/nologin\n`,
    ),
    file('etc/group', `root:x:0:\nnonroot:x:${USER}:\n`),
    file('etc/nsswitch.conf', 'passwd: files\ngroup: files\nhosts: files dns\n'),
    // The authorities that Mozilla trusts, as the pinned Node has them.
    file('etc/ssl/certs/ca-certificates.crt', `${rootCertificates.join('\n')}\n`),
    library(linkerName, linker),
    ...LIBRARIES.map((name) => library(name, `lib/${triplet}/${name}`)),
    file('usr/share/doc/libc6/copyright', readFileSync(join(root, 'usr/share/doc/libc6/copyright'))),
  ];
}

function programLayer({ executable, licenses }: ImageRequest): readonly TarEntry[] {
  return [
    file('usr/bin/ocicrypt-kms', readFileSync(executable), 0o755),
    { header: { name: 'usr/bin/kms_oci_crypt', type: 'symlink', linkname: 'ocicrypt-kms', size: 0, mode: 0o777 } },
    directory('usr/share/doc/ocicrypt-kms'),
    file('usr/share/doc/ocicrypt-kms/THIRD-PARTY-LICENSES', readFileSync(licenses)),
  ];
}

function configOf(architecture: ImageArch, layers: readonly string[], product: Product, build: Build): object {
  const made = (by: string) => ({ created: build.date, created_by: by });
  return {
    created: build.date,
    architecture,
    os: 'linux',
    config: {
      User: `${USER}:${USER}`,
      Env: [
        'PATH=/usr/bin',
        'SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt',
        'HOME=/home/nonroot',
        'XDG_RUNTIME_DIR=/run/ocicrypt-kms',
      ],
      Entrypoint: ['/usr/bin/ocicrypt-kms'],
      Cmd: ['--help'],
      WorkingDir: '/home/nonroot',
      Labels: annotationsOf(product, build),
    },
    rootfs: { type: 'layers', diff_ids: layers },
    history: [made('the C library, certificate authorities'), made('ocicrypt-kms')],
  };
}

/** https://github.com/opencontainers/image-spec/blob/main/annotations.md */
function annotationsOf({ name, version, description, license, home }: Product, { commit, date }: Build): object {
  const values = {
    title: name,
    version,
    description,
    licenses: license,
    source: home,
    revision: commit,
    created: date,
  };
  return Object.fromEntries(Object.entries(values).map(([key, value]) => [`org.opencontainers.image.${key}`, value]));
}

/** The first line of Debian's list of changes: `glibc (2.41-12) trixie; urgency=medium`. */
function libcOf(root: string): SystemPackage {
  const changes = gunzipSync(readFileSync(join(root, 'usr/share/doc/libc6/changelog.Debian.gz'))).toString();
  const [, version = 'unknown'] = /^\S+ \(([^)]+)\)/.exec(changes) ?? [];
  return { name: 'libc6', version, license: 'LGPL-2.1-or-later' };
}

function file(name: string, body: string | Uint8Array, mode = 0o644): TarEntry {
  return { header: { name, size: Buffer.byteLength(body), mode }, body };
}

function directory(name: string, mode = 0o755, owner = 0): TarEntry {
  return { header: { name: `${name}/`, type: 'directory', size: 0, mode, uid: owner, gid: owner } };
}

function dated(mtime: Date): (entry: TarEntry) => TarEntry {
  return ({ header, ...rest }) => ({ ...rest, header: { uid: 0, gid: 0, ...header, mtime } });
}

function digestOf(bytes: Uint8Array): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
}
