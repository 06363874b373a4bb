// What is in a release, for programs that look for weaknesses and licences: CycloneDX 1.6.
// https://cyclonedx.org/docs/1.6/json/

import { createHash } from 'node:crypto';
import { type Build, type Component, type Product, runtimeVersion } from '../../tools/release/contents.ts';
import { RUNTIME_PARTS } from './licenses.ts';

/** A package of a distribution that an image holds beside the executable. */
export type SystemPackage = { readonly name: string; readonly version: string; readonly license: string };

export type Contents = {
  readonly product: Product;
  readonly build: Build;
  /** What the document is about: the executable, the package for npm, or the image. */
  readonly kind: 'application' | 'library' | 'container';
  readonly packages: readonly Component[];
  /** Whether the runtime is a part of it. */
  readonly runtime: boolean;
  readonly system?: readonly SystemPackage[];
};

/** @returns the document as JSON; equal contents give equal bytes */
export function billOfMaterials({ product, build, kind, packages, runtime, system = [] }: Contents): string {
  const own = `pkg:npm/${product.name}@${product.version}`;
  const components = [
    ...packages.map(packageComponent),
    ...(runtime ? [runtimeComponent()] : []),
    ...system.map(({ name, version, license }) => ({
      type: 'library',
      'bom-ref': `pkg:deb/debian/${name}@${version}`,
      name,
      version,
      ...licensed(license),
      purl: `pkg:deb/debian/${name}@${encodeURIComponent(version)}`,
    })),
  ];
  const references = new Map(packages.map((component) => [component.path, packageUrl(component)]));
  const needed = new Set(packages.flatMap(({ dependencies }) => dependencies));
  const direct = packages.filter(({ path }) => !needed.has(path));
  const body = {
    metadata: {
      timestamp: build.date,
      component: {
        type: kind,
        'bom-ref': own,
        name: product.name,
        version: product.version,
        description: product.description,
        ...licensed(product.license),
        purl: own,
        externalReferences: [{ type: 'vcs', url: product.home, comment: build.commit }],
      },
    },
    components,
    dependencies: [
      {
        ref: own,
        dependsOn: [
          ...direct.map(packageUrl),
          ...components.slice(packages.length).map((component) => component['bom-ref']),
        ],
      },
      ...packages.map((component) => ({
        ref: packageUrl(component),
        dependsOn: component.dependencies.flatMap((path) => references.get(path) ?? []),
      })),
    ],
  };
  const serialNumber = `urn:uuid:${uuidOf(JSON.stringify(body))}`;
  return `${JSON.stringify({ bomFormat: 'CycloneDX', specVersion: '1.6', serialNumber, version: 1, ...body }, null, 2)}\n`;
}

function packageComponent(component: Component) {
  const { name, version, license, integrity } = component;
  const [, group, base = name] = /^(@[^/]+)\/(.*)$/.exec(name) ?? [];
  return {
    type: 'library',
    'bom-ref': packageUrl(component),
    ...(group === undefined ? {} : { group }),
    name: base,
    version,
    hashes: [{ alg: 'SHA-512', content: Buffer.from(integrity.replace('sha512-', ''), 'base64').toString('hex') }],
    ...licensed(license),
    purl: packageUrl(component),
  };
}

/** The libraries that Bun links have versions that only its source tells. */
function runtimeComponent() {
  const version = runtimeVersion();
  return {
    type: 'platform',
    'bom-ref': `pkg:npm/bun@${version}`,
    name: 'bun',
    version,
    ...licensed('MIT'),
    purl: `pkg:npm/bun@${version}`,
    components: RUNTIME_PARTS.slice(1).map(({ name, license, source }) => ({
      type: 'library',
      'bom-ref': `bun:${name}`,
      name,
      ...licensed(license),
      externalReferences: [{ type: 'vcs', url: source }],
    })),
  };
}

/** https://github.com/package-url/purl-spec/blob/main/types-doc/npm-definition.md */
function packageUrl({ name, version }: Component): string {
  return `pkg:npm/${name.replace('@', '%40')}@${version}`;
}

/** An identifier of SPDX, or an expression of several. */
function licensed(license: string) {
  return { licenses: [license.includes(' ') ? { expression: license } : { license: { id: license } }] };
}

/** RFC 9562, section 5.8: a UUID of our own making, from the content instead of chance. */
function uuidOf(text: string): string {
  const hex = createHash('sha256').update(text).digest('hex');
  return [hex.slice(0, 8), hex.slice(8, 12), `8${hex.slice(13, 16)}`, `8${hex.slice(17, 20)}`, hex.slice(20, 32)].join(
    '-',
  );
}
