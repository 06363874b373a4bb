// kill -9 at random moments, and before each thing that lasts, goes to a registry or comes from there: afterwards there is
// the old image or the new one, whole, and a second run completes.

import assert from 'node:assert/strict';
import type { ChildProcess } from 'node:child_process';
import { cp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { parseImageReference } from '../../src/image/model/reference.ts';
import { transformImage } from '../../src/image/transform.ts';
import { openImageSource, openImageStore } from '../../src/image/transports/open.ts';
import type { RegistrySettings } from '../../src/image/transports/registry/client.ts';
import type { ImageSource, ImageStore } from '../../src/image/transports/store.ts';
import { readImageTree } from '../../src/image/tree.ts';
import { COMPILED } from '../fixtures/compiled.ts';
import { type Finished, runExecutable } from '../fixtures/executable.ts';
import { writeIndex } from '../fixtures/images.ts';
import { createRandom, proving, runs, seeded } from '../fixtures/seed.ts';
import { scratch } from '../image/harness.ts';
import { startRegistry } from '../real-clients/registry.ts';
import { realClients } from '../real-clients/tools.ts';

const MIB = 1024 * 1024;
/** How often the executable is killed at random; each time starts with the old image. */
const kills = runs(1);
const MAIN = fileURLToPath(new URL('../../src/main.ts', import.meta.url));
const HOOK = fileURLToPath(new URL('../fixtures/killed-at-step.mjs', import.meta.url));

for (const kind of ['oci', 'oci-archive', 'docker'] as const) {
  for (const operation of ['encrypt', 'rewrap'] as const) {
    test(
      seeded(`P17 ${operation} of ${kind}: killed at any moment it leaves the old image or the new one`),
      async (t) => {
        if (kind === 'docker' && !(await realClients(t, ['docker-registry']))) return;
        const directory = await scratch(t);
        const run = async (...words: readonly string[]) => {
          const { status, stdout, stderr, milliseconds } = await runExecutable(words);
          assert.equal(status, 0, stderr);
          return { digest: stdout.toString().trim(), milliseconds };
        };
        const [first, second] = [join(directory, 'first'), join(directory, 'second')];
        for (const file of [first, second]) await run('keygen', file);
        const made = await writeIndex(join(directory, 'plain'), [
          { layers: [{ size: 3 * MIB }, {}] },
          { platform: { os: 'linux', architecture: 'arm64' }, layers: [{ size: MIB }] },
        ]);
        const encrypted = `oci:${join(directory, 'encrypted')}`;
        if (operation === 'rewrap') await run('encrypt', made.reference, encrypted, `--recipient=keyfile://${first}`);
        const start = openImageSource(parseImageReference(operation === 'rewrap' ? encrypted : made.reference));
        const { image, access, open, reset } = await preparePlace(t, kind, directory, start);
        const words =
          operation === 'rewrap'
            ? ['rewrap', image, `--recipient=keyfile://${second}`, `--key=${first}`, ...access]
            : ['encrypt', image, image, `--recipient=keyfile://${second}`, ...access];

        const { digest: old } = await start.readRoot();
        const left = { old: 0, new: 0 };
        /** Kills the change, looks at what is left, and completes it. */
        const check = async (change: () => Promise<Finished>): Promise<Finished> => {
          await reset();
          const ended = await change();
          const root = await copyImage(open(), NOWHERE);
          if (ended.signal === 'SIGKILL') left[root === old ? 'old' : 'new']++;
          if (root === old) await run(...words);
          const back = join(directory, 'back');
          const opened = await run('decrypt', image, `oci:${back}`, `--key=${second}`, ...access);
          assert.equal(opened.digest, made.digest);
          await rm(back, { recursive: true });
          return ended;
        };
        const random = createRandom();

        // The executable, at random moments. How long it takes undisturbed is seen at its second run.
        await reset();
        await run(...words);
        await reset();
        let { milliseconds: usual } = await run(...words);
        while (left.old + left.new < kills) {
          const moment = (random(1000) / 1000) * usual;
          const { signal, milliseconds } = await check(() =>
            runExecutable(words, { started: (child) => killAfter(child, moment) }),
          );
          // It was faster than thought: on a busy machine no two runs take the same time.
          if (signal === null) usual = (usual + milliseconds) / 2;
        }

        // The sources on Node, before each step, or a few of them.
        const { status, stderr } = await check(() => runToStep(words, 0));
        assert.equal(status, 0, stderr);
        const steps = Number(/(\d+) steps$/.exec(stderr.trim())?.[1]);
        assert.ok(steps > 20, stderr);
        const some = proving ? Array.from({ length: steps }, (_, index) => index + 1) : [1 + random(steps)];
        for (const step of some) {
          const { signal, stderr: said } = await check(() => runToStep(words, step));
          assert.equal(signal, 'SIGKILL', said);
        }
        if (proving) assert.ok(left.old > 0 && left.new > 0);
        t.diagnostic(
          `killed in ${operation} of ${kind} before ${some.length} of ${steps} steps and ${kills} times at random, the old image was left ${left.old} times, the new one ${left.new}`,
        );
      },
    );
  }
}

type Place = {
  readonly image: string;
  /** Options by which the executable reaches the place. */
  readonly access: readonly string[];
  open(): ImageStore;
  /** Puts the image there with which a round begins. */
  reset(): Promise<void>;
};

async function preparePlace(t: TestContext, kind: string, directory: string, start: ImageSource): Promise<Place> {
  const place = (image: string, access: readonly string[] = [], settings: RegistrySettings = {}) => {
    const open = () => openImageStore(parseImageReference(image), settings);
    return { image, access, open };
  };
  if (kind === 'docker') {
    const registry = await startRegistry();
    t.after(registry.stop);
    const { image, access, open } = place(registry.reference('app:1'), [`--ca=${registry.authority}`], {
      caFiles: [registry.authority],
    });
    // What layers there are beside those that the tag leads to makes no difference.
    const reset = async () => void (await copyImage(start, open()));
    return { image, access, open, reset };
  }
  const [first, path] = [join(directory, 'start'), join(directory, 'image')];
  await copyImage(start, openImageStore(parseImageReference(`${kind}:${first}`)));
  const reset = async () => {
    await rm(path, { recursive: true, force: true });
    await cp(first, path, { recursive: true });
  };
  return { ...place(`${kind}:${path}`), reset };
}

/** Copies everything that the source's name stands for, which checks every digest, and closes both. */
async function copyImage(source: ImageSource, destination: ImageStore): Promise<string> {
  const tree = await readImageTree(source);
  await transformImage(source, destination, tree, { selects: () => false, change: () => assert.fail() });
  await source.close();
  await destination.close();
  return tree.stored.digest;
}

/** Has nothing and keeps nothing. */
const NOWHERE: ImageStore = {
  name: 'nowhere',
  transfers: 1,
  readRoot: async () => assert.fail(),
  readManifest: async () => assert.fail(),
  openBlob: async () => assert.fail(),
  close: async () => {},
  hasBlob: async () => false,
  createBlob: async () => ({ write: async () => {}, commit: async () => {}, discard: async () => {} }),
  writeManifest: async () => {},
  writeRoot: async () => {},
};

/** The command on Node, killed before one of its steps, or by nothing with 0. */
function runToStep(words: readonly string[], step: number): Promise<Finished> {
  const shell = `shift; exec "${process.execPath}" --import "${HOOK}" "${MAIN}" "$@"`;
  return runExecutable(words, { shell, environment: { ...COMPILED, KILLED_AT_STEP: String(step) } });
}

function killAfter(child: ChildProcess, milliseconds: number): void {
  const timer = setTimeout(() => child.kill('SIGKILL'), milliseconds);
  child.once('exit', () => clearTimeout(timer));
}
