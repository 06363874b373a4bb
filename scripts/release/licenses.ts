// THIRD-PARTY-LICENSES: the authors' own texts for each bundled package, and what is known of the runtime's parts.

import { createRequire } from 'node:module';
import { type Component, licenseFiles, runtimeVersion } from '../../tools/release/contents.ts';

/** A library that is linked into Bun. https://github.com/oven-sh/bun/blob/main/LICENSE.md */
export type RuntimePart = { readonly name: string; readonly license: string; readonly source: string };

/** SPDX identifiers; where a project has several licences for several files, those that its binary form needs. */
export const RUNTIME_PARTS: readonly RuntimePart[] = [
  part('Bun', 'MIT', 'oven-sh/bun'),
  part('JavaScriptCore and WebKit', 'LGPL-2.0-only', 'oven-sh/WebKit'),
  part('BoringSSL', 'Apache-2.0', 'google/boringssl'),
  part('brotli', 'MIT', 'google/brotli'),
  part('c-ares', 'MIT', 'c-ares/c-ares'),
  part('highway', 'Apache-2.0', 'google/highway'),
  part('ICU', 'Unicode-3.0', 'unicode-org/icu'),
  part('libarchive', 'BSD-2-Clause', 'libarchive/libarchive'),
  part('libbase64', 'BSD-2-Clause', 'aklomp/base64'),
  part('libdeflate', 'MIT', 'ebiggers/libdeflate'),
  part('libjpeg-turbo', 'BSD-3-Clause AND IJG AND Zlib', 'libjpeg-turbo/libjpeg-turbo'),
  part('libspng', 'BSD-2-Clause', 'randy408/libspng'),
  part('libuv', 'MIT', 'libuv/libuv'),
  part('libwebp', 'BSD-3-Clause', 'webmproject/libwebp'),
  part('LLVM libc++abi', 'Apache-2.0', 'llvm/llvm-project'),
  part('lol-html', 'BSD-3-Clause', 'cloudflare/lol-html'),
  part('ls-hpack', 'MIT', 'litespeedtech/ls-hpack'),
  part('ls-qpack', 'MIT', 'litespeedtech/ls-qpack'),
  part('lsquic', 'MIT AND BSD-3-Clause', 'litespeedtech/lsquic'),
  part('mimalloc', 'MIT', 'microsoft/mimalloc'),
  part('picohttpparser', 'MIT', 'h2o/picohttpparser'),
  part('simdutf', 'Apache-2.0', 'simdutf/simdutf'),
  part('TigerBeetle (input and output)', 'Apache-2.0', 'tigerbeetle/tigerbeetle'),
  part('tinycc', 'LGPL-2.1-only', 'tinycc/tinycc'),
  part('uSockets and uWebSockets', 'Apache-2.0', 'uNetworking/uWebSockets'),
  part('uucode', 'MIT', 'jacobsandlund/uucode'),
  part('zlib-ng', 'Zlib', 'zlib-ng/zlib-ng'),
  part('zstd', 'BSD-3-Clause', 'facebook/zstd'),
];

const RULE = `${'='.repeat(100)}\n`;

/** @param packages those bundled in the executable */
export function licenseText(packages: readonly Component[]): string {
  const ids = [...new Set(RUNTIME_PARTS.flatMap(({ license }) => license.split(' AND ')))].sort();
  return [
    `The executable of ocicrypt-kms holds the packages of npm below and the runtime Bun ${runtimeVersion()}. ocicrypt-kms
itself is licensed under the Apache License 2.0.

${packages.map(({ name, version, license }) => `${name} ${version}: ${license}`).join('\n')}

Bun links these libraries:

${RUNTIME_PARTS.map(({ name, license, source }) => `${name}: ${license}, ${source}`).join('\n')}

JavaScriptCore and tinycc are under the GNU Lesser General Public License: their source, and how to build and link a
changed one, is at the addresses above. ocicrypt-kms is built around any Bun by scripts/build.ts of its source.
`,
    ...byText(packages).map(([text, names]) => `${names.join('\n')}\n\n${text}\n`),
    ...ids.map((id) => `${id}, of libraries that Bun links\n\n${spdxText(id)}\n`),
  ].join(`\n${RULE}\n`);
}

function part(name: string, license: string, repository: string): RuntimePart {
  return { name, license, source: `https://github.com/${repository}` };
}

/** Each text once, below the packages that come with it. */
function byText(packages: readonly Component[]): readonly (readonly [string, readonly string[]])[] {
  const groups = Map.groupBy(packages, textsOf);
  return [...groups].map(([text, group]) => [text, group.map(({ name, version }) => `${name} ${version}`)]);
}

/** A package without a file of its own names a licence whose text is the same for all. */
function textsOf(component: Component): string {
  const files = licenseFiles(component);
  return files.length > 0 ? files.join('\n\n') : spdxText(component.license);
}

function spdxText(id: string): string {
  const { licenseText: text } = createRequire(import.meta.url)(`spdx-license-list/licenses/${id}.json`);
  if (typeof text !== 'string') throw new Error(`no text of the licence ${id}`);
  return text.trim();
}
