// The workflows are right by actionlint, and give no more rights than they need by zizmor.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { parse } from 'yaml';
import { PROJECT } from '../../tools/process.ts';
import { fetchGo, fetchPython } from '../peers/fetched.ts';

const WORKFLOWS = globSync('.github/workflows/*.yml', { cwd: PROJECT });

test('actionlint finds no fault', async () => {
  assert.deepEqual(WORKFLOWS.map((file) => file.replace(/.*\//, '')).sort(), ['ci.yml', 'release.yml']);
  const actionlint = await fetchGo('github.com/rhysd/actionlint/cmd/actionlint@v1.7.12');
  execFileSync(actionlint, ['-no-color', ...WORKFLOWS], { cwd: PROJECT, stdio: ['ignore', 'inherit', 'inherit'] });
});

test('zizmor finds no fault, in its strictest reading', async () => {
  const directory = await fetchPython('zizmor==1.32.0');
  const flags = ['--offline', '--persona=pedantic', '--no-progress', '--quiet'];
  execFileSync(join(directory, 'bin/zizmor'), [...flags, ...WORKFLOWS, 'action.yml'], {
    cwd: PROJECT,
    stdio: ['ignore', 'inherit', 'inherit'],
    env: { ...process.env, PYTHONPATH: directory },
  });
});

test('every action and image is pinned by its hash, and a job has the rights that it names and no other', () => {
  for (const file of WORKFLOWS) {
    const text = readFileSync(join(PROJECT, file), 'utf8');
    for (const [, use = ''] of text.matchAll(/uses: (\S+)/g)) assert.match(use, /@[0-9a-f]{40}$/);
    for (const [, image = ''] of text.matchAll(/image: (\S+:\S+)/g)) assert.match(image, /@sha256:[0-9a-f]{64}$/);
    const { permissions, jobs } = parse(text);
    assert.deepEqual(permissions, {});
    for (const job of Object.values<{ permissions?: object }>(jobs)) assert.ok(job.permissions);
  }
});
