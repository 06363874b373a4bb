// What users put into their pipelines encrypts and verifies: the steps of action.yml and of the component for GitLab, run by a shell.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { parse, parseAllDocuments } from 'yaml';
import { PROJECT } from '../../tools/process.ts';
import { readProduct } from '../../tools/release/contents.ts';
import { executablePath, runExecutable } from '../fixtures/executable.ts';
import { readImages, writeImage } from '../fixtures/images.ts';

const read = (name: string) => readFileSync(join(PROJECT, name), 'utf8');
const ACTION = parse(read('action.yml'));
const [SPEC, JOBS] = parseAllDocuments(read('templates/encrypt.yml')).map((document) => document.toJS());

const STEPS = [
  { name: 'action.yml', text: ACTION.runs.steps[1].run, output: 'GITHUB_OUTPUT', label: 'digest' },
  { name: 'templates/encrypt.yml', text: JOBS['encrypt-image'].script[0], output: undefined, label: 'DIGEST' },
] as const;

type Tried = { readonly status: number | null; readonly stderr: string; readonly written: () => string };

/** @param encrypted where the image is to go @param recipients as the variable holds them */
async function runStep(
  t: TestContext,
  { text, output }: (typeof STEPS)[number],
  recipients: (keys: readonly string[]) => string,
): Promise<Tried & { readonly directory: string }> {
  const directory = mkdtempSync(join(tmpdir(), 'pipeline-'));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  await writeImage(join(directory, 'plain'), { layers: [{}] });
  const keys: string[] = [];
  for (const name of ['one.key', 'two.key']) {
    keys.push((await runExecutable(['keygen', join(directory, name)])).stdout.toString().trim());
  }
  const file = join(directory, output === undefined ? 'encrypted.env' : 'output');
  const { status, stderr } = spawnSync('sh', ['-c', text], {
    cwd: directory,
    encoding: 'utf8',
    env: {
      PATH: process.env.PATH,
      TOOLS: dirname(executablePath()),
      SOURCE: 'oci:plain:latest',
      DESTINATION: 'oci:encrypted:latest',
      RECIPIENTS: recipients(keys),
      ...(output === undefined ? {} : { [output]: file }),
    },
  });
  return { status, stderr, written: () => readFileSync(file, 'utf8'), directory };
}

for (const step of STEPS) {
  test(`${step.name} encrypts to every recipient, verifies, and hands on the digest`, async (t) => {
    const { status, stderr, written, directory } = await runStep(t, step, (keys) => `${keys.join('\n')}\n`);
    assert.equal(status, 0, stderr);
    const [, digest] = /^(?:digest|DIGEST)=(sha256:[0-9a-f]{64})\n$/.exec(written()) ?? [];
    assert.equal(digest, (await readImages(join(directory, 'encrypted')))[0]?.digest);
    const { stdout } = await runExecutable(['inspect', 'oci:encrypted:latest'], { cwd: directory });
    assert.equal(stdout.toString().match(/keyfile:sha256:/g)?.length, 2);
  });

  test(`${step.name} fails, and hands on nothing, if a key is wrong or none is named`, async (t) => {
    for (const wrong of ['keyfile:///nonexistent', '', '$(touch injected)', '--plain']) {
      const { status, written, directory } = await runStep(t, step, () => wrong);
      assert.notEqual(status, 0, wrong);
      assert.throws(written, wrong);
      assert.throws(() => readFileSync(join(directory, 'injected')));
    }
  });
}

test('both say the same, but for how they hand on the digest', () => {
  const [action, component] = STEPS.map(({ text }) => text.replace(/^echo .*$/m, ''));
  assert.equal(action, component);
  const { version } = readProduct();
  assert.equal(ACTION.inputs.version.default, version);
  assert.equal(SPEC.spec.inputs.version.default, version);
});
