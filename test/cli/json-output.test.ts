// Every command that prints JSON has a published schema, and the check that all tests make of real outputs finds what differs.
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { COMMANDS } from '../../src/cli/commands.ts';
import { writeImage } from '../fixtures/images.ts';
import { assertJsonOutput, findFaults, readSchema, type Schema } from '../fixtures/json-output.ts';
import { runCommand } from '../fixtures/terminal.ts';

const directory = mkdtempSync(join(tmpdir(), 'json-'));
after(() => rmSync(directory, { recursive: true, force: true }));
const place = (name: string) => `oci:${join(directory, name)}`;

test('a command has a schema if it prints JSON, and says what every member is', () => {
  for (const [name, { options }] of COMMANDS) {
    const schema = readSchema(name);
    assert.equal(schema !== undefined, options.includes('json'), name);
    const visit = (inner: Schema, path: string): void => {
      for (const [member, own] of Object.entries(inner.properties ?? {})) {
        assert.match(own.description ?? '', /^\S/, `${path}.${member}`);
        visit(own, `${path}.${member}`);
      }
      if (inner.items !== undefined) visit(inner.items, `${path}[]`);
    };
    if (schema !== undefined) visit(schema, name);
  }
});

test('each command prints what its schema says: in this process, from an image with several faults to one with none', async () => {
  await writeImage(join(directory, 'plain'), { layers: [{}, {}] });
  const key = join(directory, 'key');
  const uri = `keyfile://${key}`;
  // What is printed is held against the schema by what runs the command.
  const print = async (...words: readonly string[]) => {
    const { stdout, stderr } = await runCommand([...words, '--json']);
    assert.notEqual(stdout, '', stderr);
    return JSON.parse(stdout);
  };
  await print('keygen', key);
  await print('version');
  const written = await print('encrypt', place('plain'), place('encrypted'), `--recipient=${uri}`);
  assert.equal(typeof written.images[0].platform, 'string');
  const { platforms } = await print('inspect', place('encrypted'));
  assert.equal(written.images[0].platform, platforms[0].platform, 'platforms have one form');
  await print('rewrap', place('encrypted'), `--recipient=${uri}`, `--key=${key}`, '--dry-run');
  await print('decrypt', place('encrypted'), place('opened'), `--key=${key}`);
  await print('doctor', uri, place('encrypted'), `--key=${key}`);
  assert.deepEqual((await print('verify', place('encrypted'), '--content', `--key=${key}`)).reasons, []);
  const { ok, reasons } = await print('verify', place('plain'));
  assert.equal(ok, false);
  assert.deepEqual(new Set(reasons.map((reason: { code: string }) => reason.code)), new Set(['plain']));
  const missing = await print(
    'verify',
    place('encrypted'),
    `--require=keyfile:sha256:${'0'.repeat(64)}`,
    '--post-quantum',
  );
  assert.deepEqual([...new Set(missing.reasons.map((reason: { code: string }) => reason.code))], ['missing-recipient']);
});

test('what is not as the schema says is found: a member too many, too few, of another type, or no word of a list', () => {
  const schema: Schema = {
    type: 'object',
    properties: {
      name: { type: 'string', pattern: '^a' },
      sizes: { type: 'array', items: { type: 'integer', minimum: 0 } },
      kind: { enum: ['x'] },
      labels: { type: 'object', additionalProperties: { type: 'string' } },
      sure: { const: true },
    },
    required: ['name'],
  };
  const good = { name: 'a', sizes: [0, 1], kind: 'x', labels: { any: 'text' }, sure: true };
  assert.deepEqual(findFaults(good, schema, ''), []);
  for (const change of [
    { name: undefined, extra: 1 },
    { name: 1 },
    { name: 'b' },
    { sizes: {} },
    { sizes: [0.5] },
    { sizes: [-1] },
    { kind: 'y' },
    { labels: { any: 1 } },
    { labels: [] },
    { sure: false },
    { more: 'x' },
  ]) {
    assert.notDeepEqual(findFaults({ ...good, ...change }, schema, ''), [], JSON.stringify(change));
  }
  const { name, ...without } = good;
  assert.deepEqual(findFaults(without, schema, 'x'), ['x: lacks name'], name);
  assert.throws(() => assertJsonOutput(['keygen', '--json'], '{"uri":"keyfile:///x"}'), /lacks key/);
  assert.throws(() => assertJsonOutput(['licenses', '--json'], '{}'), /has no schema/);
});
