// The arrows between the layers (CONTRIBUTING.md), read from the import statements of src.
import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const SOURCE = fileURLToPath(new URL('../../src', import.meta.url));

/** Which layers each layer may import beside itself. */
const ARROWS: Readonly<Record<string, readonly string[]>> = {
  base: [],
  kms: ['base'],
  provider: ['kms', 'base'],
  client: ['provider', 'kms', 'base'],
  image: ['client', 'provider', 'kms', 'base'],
  server: ['provider', 'kms', 'base'],
  node: ['image', 'client', 'provider', 'kms', 'base'],
  admission: ['image', 'client', 'provider', 'kms', 'base'],
  cli: ['server', 'node', 'admission', 'image', 'client', 'provider', 'kms', 'base'],
};

type Source = {
  readonly file: string;
  readonly text: string;
  readonly code: string;
  readonly imports: readonly string[];
};

const sources: readonly Source[] = globSync('**/*.ts', { cwd: SOURCE }).map((file) => {
  const text = readFileSync(join(SOURCE, file), 'utf8');
  const specifiers = [...text.matchAll(/(?:\bfrom|^import|\bimport\()\s*'([^']+)'/gm)].map((match) => match[1] ?? '');
  return { file, text, code: withoutComments(text), imports: specifiers };
});

/** The files of src that a file imports, as paths from there. */
function localImports({ file, imports }: Source): readonly string[] {
  return imports.filter((name) => name.startsWith('.')).map((name) => normalize(join(dirname(file), name)));
}

/** The backend that a file belongs to: a folder of kms, named after its URI scheme. */
const backendOf = (file: string): string | undefined => /^kms\/([^/]+)\//.exec(file)?.[1];

const layerOf = (file: string): string => (file.includes('/') ? (file.split('/')[0] ?? '') : '');

test('there are nine layers and two front doors, and nothing else', () => {
  const layers = new Set(sources.map(({ file }) => layerOf(file)));
  layers.delete('');
  assert.deepEqual(
    [...layers].filter((layer) => !(layer in ARROWS)),
    [],
  );
  assert.deepEqual(
    sources
      .map(({ file }) => file)
      .filter((file) => !file.includes('/'))
      .toSorted(),
    ['index.ts', 'main.ts'],
  );
});

/** What is not shipped: which folders each may import beside itself. */
const WORKSHOP: Readonly<Record<string, readonly string[]>> = {
  tools: ['src'],
  test: ['src', 'tools'],
  scripts: ['src', 'tools', 'test'],
  bench: ['src', 'tools', 'test', 'scripts'],
};

test('tests import no script, and scripts no benchmark: what both take is in tools', () => {
  const project = join(SOURCE, '..');
  for (const [folder, others] of Object.entries(WORKSHOP)) {
    for (const file of globSync(`${folder}/**/*.ts`, { cwd: project })) {
      const text = readFileSync(join(project, file), 'utf8');
      for (const [, name = ''] of text.matchAll(/(?:\bfrom|^import|\bimport\()\s*'(\.[^']+)'/gm)) {
        const [target = ''] = normalize(join(dirname(file), name)).split('/');
        assert.ok([folder, ...others].includes(target), `${file} → ${name}`);
      }
    }
  }
});

test('the imports are found at all', () => {
  const handle = sources.find(({ file }) => file === 'provider/handle.ts');
  assert.ok(handle !== undefined && localImports(handle).includes('kms/kek.ts'));
  const open = sources.find(({ file }) => file === 'kms/open.ts');
  assert.ok(open !== undefined && localImports(open).includes('kms/gcpkms/key.ts'), 'lazy ones too');
});

test('a file imports from its own folder and from layers below it', () => {
  const wrong = sources.flatMap((source) => {
    const layer = layerOf(source.file);
    if (layer === '') return [];
    const allowed = [layer, ...(ARROWS[layer] ?? [])];
    return localImports(source)
      .filter((target) => !allowed.includes(layerOf(target)))
      .map((target) => `${source.file} → ${target}`);
  });
  assert.deepEqual(wrong, []);
});

test('every import says where it is from: a file of src with its ending, a node: module, or a package that users can update', () => {
  const manifest: { dependencies: Record<string, string>; peerDependencies: Record<string, string> } = JSON.parse(
    readFileSync(join(SOURCE, '../package.json'), 'utf8'),
  );
  const files = new Set(sources.map(({ file }) => file));
  for (const source of sources) {
    for (const target of localImports(source)) assert.ok(files.has(target), `${source.file} → ${target}`);
    for (const name of source.imports.filter((one) => !one.startsWith('.') && !one.startsWith('node:'))) {
      const [first = '', second = ''] = name.split('/');
      const dependency = first.startsWith('@') ? `${first}/${second}` : first;
      const range = manifest.dependencies[dependency] ?? manifest.peerDependencies[dependency] ?? 'missing';
      assert.match(range, /^\^\d+\.\d+\.\d+$/, `${source.file} → ${name}`);
    }
  }
});

test('the provider sees nothing of keys but their contract', () => {
  for (const source of sources.filter(({ file }) => layerOf(file) === 'provider')) {
    for (const target of localImports(source))
      if (layerOf(target) === 'kms') assert.equal(target, 'kms/kek.ts', source.file);
  }
});

test('a backend imports no other backend, and below the commands only the table of backends imports one', () => {
  const free = [
    'kms/open.ts',
    ...sources.map(({ file }) => file).filter((file) => ['', 'cli'].includes(layerOf(file))),
  ];
  for (const source of sources.filter(({ file }) => !free.includes(file)))
    for (const target of localImports(source))
      assert.ok([undefined, backendOf(source.file)].includes(backendOf(target)), `${source.file} → ${target}`);
});

test('no file leads back to itself, not even by types or by what is loaded later', () => {
  refuseCircles(new Map(sources.map((source) => [source.file, localImports(source)])));
});

test('no folder leads back to itself by another one beside it', () => {
  const graph = new Map<string, Set<string>>();
  for (const source of sources) {
    const folder = dirname(source.file);
    const others = graph.get(folder) ?? new Set();
    graph.set(folder, others);
    // A folder and the one around it are one thing: that has the front door.
    const isWithin = (one: string, other: string) => one === '.' || other === one || other.startsWith(`${one}/`);
    for (const target of localImports(source).map(dirname))
      if (!isWithin(folder, target) && !isWithin(target, folder)) others.add(target);
  }
  refuseCircles(graph);
});

function refuseCircles(graph: ReadonlyMap<string, Iterable<string>>): void {
  const done = new Set<string>();
  const visit = (node: string, path: readonly string[]): void => {
    assert.ok(!path.includes(node), [...path, node].join(' → '));
    if (done.has(node)) return;
    for (const target of graph.get(node) ?? []) visit(target, [...path, node]);
    done.add(node);
  };
  for (const node of graph.keys()) visit(node, []);
}

test('base knows nothing of the domain', () => {
  const words = /\b(?:kek|ocicrypt packet|layer|manifest|optsdata|symkey|keywrap|recipient list|annotation)\b/i;
  for (const { file, code } of sources.filter(({ file: name }) => layerOf(name) === 'base')) {
    assert.doesNotMatch(code, words, file);
  }
});

test('only cli and the front door touch argv, stdin, stdout and the exit', () => {
  const words =
    /\bprocess\.(?:argv0?|stdin|stdout|stderr|exit|exitCode)\b|\bconsole\.|\bwriteSync\((?:1|2)\b|\/dev\/std(?:in|out|err)/;
  for (const { file, code } of sources) {
    if (layerOf(file) === 'cli' || file === 'main.ts') continue;
    assert.doesNotMatch(code, words, file);
  }
});

test('only server listens', () => {
  const words = /\bcreate(?:Secure)?Server\b|\.listen\(/;
  for (const { file, code } of sources) {
    if (layerOf(file) === 'server') continue;
    assert.doesNotMatch(code, words, file);
  }
});

test('the library’s front door starts no command and no server, and loads no backend', () => {
  const index = sources.find(({ file }) => file === 'index.ts');
  assert.ok(index !== undefined);
  const reached = new Set<string>();
  const visit = (file: string): void => {
    if (reached.has(file)) return;
    reached.add(file);
    const source = sources.find((one) => one.file === file);
    for (const target of source === undefined ? [] : staticImports(source)) visit(target);
  };
  visit('index.ts');
  for (const file of reached) assert.ok(layerOf(file) !== 'cli', file);
  for (const file of reached) assert.ok([undefined, 'keyfile'].includes(backendOf(file)), file);
  assert.doesNotMatch(index.code, /^(?!export|import|\s|\}|$)/m, 'explicit re-exports only');
});

test('a file opens with its charter, and has about 300 lines at the most', () => {
  for (const { file, text } of sources) {
    assert.match(text.replace(/^#!.*\n/, ''), /^(?:\/\/ \S|\/\*\* ?\S|\/\*\*\n \* \S)/, file);
    assert.ok(text.split('\n').length <= 340, `${file} has ${text.split('\n').length} lines`);
  }
});

test('a function has 100 lines at the most: what has state is a class', () => {
  const functions = /^(?:export )?(?:async )?function\*? (\w+)[\s\S]*?^}$/gm;
  const found = sources.flatMap(({ file, text }) =>
    [...text.matchAll(functions)].flatMap(([whole, name]) =>
      whole.split('\n').length > 100 ? [`${file}: ${name}`] : [],
    ),
  );
  assert.deepEqual(found, []);
});

test('there is no any, no default export, no enum, no class for an error but the one', () => {
  for (const { file, code } of sources) {
    assert.doesNotMatch(
      code,
      /:\s*any\b|\bas any\b|^export default|^\s*(?:export )?(?:const )?enum |@ts-(?:ignore|expect-error)|\bTODO\b|\bFIXME\b/m,
      file,
    );
  }
});

test('a constant of time or size says its unit', () => {
  const measured =
    /\bconst ((?:\w+_)?(?:ANSWER|BLOCK|CHUNK|DURATION|FILE|GRACE|INTERVAL|LIFETIME|LIMIT|MANIFEST|PACKET|PATIENCE|PAUSE|PAYLOAD|PEM|PLAINTEXT|POLL|RECORD|REQUEST|RESERVE|TIME|TIMEOUT|TOKEN|WRAPPED)) = (?!0\.)\d/g;
  const found = sources.flatMap(({ file, code }) => [...code.matchAll(measured)].map(([, name]) => `${file}: ${name}`));
  assert.deepEqual(found, []);
});

/** What is loaded with a file: neither types nor `await import()`. */
function staticImports({ file, code }: Source): readonly string[] {
  return [...code.matchAll(/^(?:import|export)\s+(?!type\b)(?:[^;']*?\bfrom\s*)?'(\.[^']+)'/gm)].map((match) =>
    normalize(join(dirname(file), match[1] ?? '')),
  );
}

/** The source without comments and without what stands in quotes of one line. */
function withoutComments(text: string): string {
  return text
    .replace(/\/\*[\s\S]*?\*\//g, '')
    .replace(/^\s*\/\/.*$/gm, '')
    .replace(/ \/\/ .*$/gm, '');
}

/** Each checks certificates, or sends nothing. */
const OPENS_SOCKETS = [
  'base/http/dial-bun.ts',
  'base/http/dial-node.ts',
  'base/http/stream.ts',
  // Connects to a socket to see that somebody listens, and hangs up.
  'cli/doctor/clients.ts',
  'client/grpc-client.ts',
  'server/unix-socket.ts',
];

test('only these files open a connection', () => {
  const opening =
    /\b(?:connect|request|get)(?:\s+as\s+\w+)?\b[^}]*\}\s*from 'node:(?:http2?|https|net|tls)'|(?:await|return|=)\s+fetch\(|\bWebSocket\(|'node:dgram'|import\('node:(?:http2?|https|net|tls)'\)|\bbun\.connect\(/;
  const found = sources.filter(({ code }) => opening.test(code)).map(({ file }) => file);
  assert.deepEqual(found.toSorted(), OPENS_SOCKETS);
});
