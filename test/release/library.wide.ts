// The library as npm installs it, on every runtime that it is for, by every TypeScript that reads its types, in bundles of
// esbuild and Bun, and without what it asks for by name.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import process from 'node:process';
import { after, before, describe, test } from 'node:test';
import { promisify } from 'node:util';
import { createKeyfile } from '../../src/kms/keyfile/key.ts';
import { toolPath } from '../../tools/process.ts';
import { readImages, writeImage } from '../fixtures/images.ts';
import { type Packed, runProgram, unpackLibrary } from './packed.ts';

const run = promisify(execFile);
const PLATFORM = `${process.platform}-${process.arch}`;
const NODES = ['22.18.0', '22', '24', '26'];
const TOO_OLD = ['18', '20'];
const COMPILERS = ['5.7', '5.8', '5.9', '6.0', '7.0'];

/** What npm calls a version of a package beside others of it. */
const alias = (name: string, version: string) => `${name}-${version.replaceAll('.', '-')}`;

describe('the library from npm', () => {
  let packed: Packed;
  let digest: string;
  const cleanups: (() => Promise<unknown>)[] = [];
  before(async () => {
    const directory = await mkdtemp(join(tmpdir(), 'library-key-'));
    cleanups.push(() => rm(directory, { recursive: true, force: true }));
    createKeyfile(join(directory, 'app.key'));
    packed = await unpackLibrary(cleanups, `keyfile://${join(directory, 'app.key')}`, (home, archive) =>
      install(home, [
        archive,
        '@types/node@24',
        'esbuild',
        ...[...NODES, ...TOO_OLD].map((version) => `${alias('node', version)}@npm:node-${PLATFORM}@${version}`),
        ...COMPILERS.map((version) => `${alias('typescript', version)}@npm:typescript@${version}`),
      ]),
    );
    digest = (await writeImage(join(packed.directory, 'app'), { layers: [{ size: 20 * 1024 * 1024 }] })).digest;
  });
  after(async () => {
    for (const cleanup of cleanups) await cleanup();
  });

  const inside = (...parts: readonly string[]) => join(packed.directory, 'node_modules', ...parts);
  const nodeOf = (version: string) => inside(alias('node', version), 'bin/node');

  async function encryptWith(command: readonly string[], name: string): Promise<void> {
    await runProgram(packed, command, ['oci:app:latest', `oci:${name}:latest`, `oci:${name}-opened:latest`]);
    const [opened] = await readImages(join(packed.directory, `${name}-opened`));
    assert.equal(opened?.digest, digest, name);
  }

  for (const version of COMPILERS) {
    test(`strict TypeScript ${version} reads its types and all programs`, async () => {
      await runProgram(packed, [process.execPath, inside(alias('typescript', version), 'bin/tsc')], ['-p', '.']);
    });
  }

  for (const version of NODES) {
    test(`its programs run on Node ${version}`, async () => {
      await encryptWith([nodeOf(version), 'own-key.ts'], `node-${version}`);
      for (const name of packed.programs.filter((program) => program.startsWith('document-')))
        assert.match(await runProgram(packed, [nodeOf(version), name]), /^sha256:/);
    });
  }

  test('its programs run on Bun', async () => {
    await encryptWith([toolPath('bun'), 'own-key.ts'], 'bun');
    for (const name of packed.programs.filter((program) => program.startsWith('document-')))
      assert.match(await runProgram(packed, [toolPath('bun'), name]), /^sha256:/);
  });

  for (const version of TOO_OLD) {
    test(`Node ${version} is refused in one line, by the command and by the library`, async () => {
      const command = [nodeOf(version), inside('ocicrypt-kms/dist/lib/main.js'), 'version'];
      const failed: unknown = await runProgram(packed, command).catch((error: unknown) => error);
      assert.ok(failed instanceof Error && 'stderr' in failed && 'code' in failed);
      assert.match(
        String(failed.stderr),
        /^ocicrypt-kms: configuration: Node \S+ is too old for ocicrypt-kms; [^\n]*\n$/,
      );
      assert.equal(failed.code, 78);
      await writeFile(
        join(packed.directory, 'old.js'),
        `import { describeError, openImageKeys } from 'ocicrypt-kms';
        const keys = await openImageKeys([]).catch((error) => console.log(describeError(error)));`,
      );
      assert.match(await runProgram(packed, [nodeOf(version), 'old.js']), /^configuration: Node /);
    });
  }

  test('bundled by esbuild, as modules and for CommonJS, large layers go through', async () => {
    for (const [format, file] of [
      ['esm', 'esbuild.mjs'],
      ['cjs', 'esbuild.cjs'],
    ] as const) {
      const words = ['--bundle', '--platform=node', `--format=${format}`, `--outfile=${file}`, '--log-level=error'];
      const banner =
        "import { createRequire as requireFrom } from 'node:module'; const require = requireFrom(import.meta.url);";
      if (format === 'esm') words.push(`--banner:js=${banner}`);
      const source = format === 'esm' ? 'own-key.ts' : await withoutTopLevelAwait(packed);
      await runProgram(packed, [inside('.bin/esbuild')], [source, ...words]);
      await encryptWith([process.execPath, file], `esbuild-${format}`);
    }
  });

  test('compiled by Bun into an executable, large layers go through', async () => {
    const words = ['build', 'own-key.ts', '--compile', '--outfile=program'];
    await runProgram(packed, [toolPath('bun')], words);
    await encryptWith([join(packed.directory, 'program')], 'compiled');
  });

  test('a package of a cloud is asked for by name if a key of that cloud is opened', async () => {
    const arn = 'awskms:///arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab';
    await writeFile(
      join(packed.directory, 'cloud.js'),
      `import { describeError, openImageKeys } from 'ocicrypt-kms';
      const environment = { AWS_ACCESS_KEY_ID: 'AKIAIOSFODNN7EXAMPLE', AWS_SECRET_ACCESS_KEY: 'none' };
      const keys = await openImageKeys(['${arn}'], { environment });
      await keys.encrypt('oci:app:latest', 'oci:cloud:latest').catch((error) => console.log(describeError(error)));
      await keys.close();`,
    );
    const asked = await runProgram(packed, [process.execPath, 'cloud.js']);
    assert.match(
      asked,
      /^configuration: .*@smithy\/signature-v4, which is not installed; npm install @smithy\/signature-v4/,
    );
    assert.ok(asked.includes(arn));
  });
});

/** The example as a function: a bundle for CommonJS has no `await` at its top level. */
async function withoutTopLevelAwait({ directory }: Packed): Promise<string> {
  const text = await readFile(join(directory, 'own-key.ts'), 'utf8');
  const at = text.indexOf('const [plain');
  const name = 'own-key-later.ts';
  await writeFile(
    join(directory, name),
    `${text.slice(0, at)}async function main() {\n${text.slice(at)}}\nvoid main();\n`,
  );
  return name;
}

async function install(directory: string, names: readonly string[]): Promise<void> {
  await run('npm', ['install', '--no-audit', '--no-fund', '--loglevel=error', ...names], { cwd: directory });
}
