// The configuration file: the same as the options, in YAML or JSON.
import assert from 'node:assert/strict';
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { stringify } from 'yaml';
import { readPolicyFile } from '../../../src/admission/policy-file.ts';
import { asOcicryptError } from '../../../src/base/errors.ts';
import { OPTION_NAMES, readConfiguration } from '../../../src/cli/options/configuration.ts';
import { configurationPath, type OptionName, optionSpec } from '../../../src/cli/options/table.ts';
import { makeKeyDirectory } from '../../fixtures/provider.ts';
import { runCommand } from '../../fixtures/terminal.ts';
import { FIRST_KEY, GCP, PACKET, REPLY, unwrapRequest, wrapRequest } from '../../fixtures/vectors/shape.ts';

const keys = makeKeyDirectory();
const directory = mkdtempSync(join(tmpdir(), 'ocicrypt-config-'));
after(() => {
  keys.remove();
  rmSync(directory, { recursive: true, force: true });
});

let count = 0;
function write(content: string | Uint8Array): string {
  const file = join(directory, `config-${count++}.yaml`);
  writeFileSync(file, content);
  return file;
}

async function refused(content: string | Uint8Array): Promise<string> {
  const error = await readConfiguration(write(content)).then(
    () => assert.fail(`it was read: ${String(content).slice(0, 80)}`),
    asOcicryptError,
  );
  assert.equal(error.code, 'configuration', error.message);
  return `${error.message}; ${error.hint}`;
}

/** What stands in a file for an option, and what it comes to. */
function example(name: OptionName): readonly [unknown, readonly string[]] {
  switch (optionSpec(name).kind) {
    case 'list':
      return [
        ['a', 'b'],
        ['a', 'b'],
      ];
    case 'pairs':
      return [{ env: 'prod', team: 'a=b' }, ['env=prod', 'team=a=b']];
    case 'count':
      return [7, ['7']];
    case 'duration':
      return ['2s', ['2s']];
    case 'choice': {
      const [choice = ''] = optionSpec(name).choices ?? [];
      return [choice, [choice]];
    }
    case 'switch':
      return [true, ['']];
    default:
      return ['x', ['x']];
  }
}

function nested(path: readonly string[], value: unknown): unknown {
  return path.reduceRight((inner: unknown, member) => ({ [member]: inner }), value);
}

for (const name of OPTION_NAMES) {
  const path = configurationPath(name);
  if (path === undefined) continue;
  test(`${path.join('.')} can be set, in YAML and in JSON`, async () => {
    const [value, texts] = example(name);
    for (const text of [stringify(nested(path, value)), JSON.stringify(nested(path, value))]) {
      assert.deepEqual(await readConfiguration(write(text)), new Map([[name, texts]]));
    }
    for (const wrong of [null, 1, [1], [''], {}, { a: 1 }, '']) {
      if (JSON.stringify(wrong) === '{}' && optionSpec(name).kind === 'pairs') continue;
      if (wrong === 1 && optionSpec(name).kind === 'count') continue;
      await refused(JSON.stringify(nested(path, wrong)));
    }
  });
}

test('an unknown member is refused with the nearest one, at the top and in a section', async () => {
  assert.match(await refused('alow: [x]'), /"alow".*did you mean allow\?/);
  assert.match(await refused('kmsUri: x'), /did you mean kmsURI\?/);
  assert.match(await refused('gcpkms: {endpont: x}'), /"gcpkms.endpont".*did you mean endpoint\?/);
  assert.match(await refused('zzzzzzzzzzzz: 1'), /known are .*allow/);
  await refused('config: x');
  await refused('help: true');
  await refused('__proto__: {allow: [x]}');
  await refused('constructor: x');
  await refused('gcpkms: x');
  await refused('gcpkms: [x]');
});

test('an empty file sets nothing', async () => {
  for (const text of ['', '# nothing\n', '{}', 'null']) assert.equal((await readConfiguration(write(text))).size, 0);
});

test('what is no mapping, or no YAML, or not UTF-8, is refused', async () => {
  for (const text of [
    '- a',
    'text',
    '1',
    'allow: [',
    'allow: a: b',
    '\tallow: x',
    'allow: [a]\nallow: [b]',
    'a: &a [x]\nallow: *a',
    '--- {}\n--- {}',
    '{"allow": ["a"]',
  ])
    await refused(text);
  await refused(Buffer.from([0x61, 0x3a, 0xff]));
  const laughs = [
    'a: &a [x,x,x,x,x,x,x,x,x]',
    ...'bcdefgh'
      .split('')
      .map((name, index) => `${name}: &${name} [${Array(9).fill(`*${'abcdefg'[index]}`).join(',')}]`),
  ].join('\n');
  await refused(laughs);
  await refused(`allow: ["${'x'.repeat(1024 * 1024)}"]`);
});

test('what people get wrong most in YAML is said, with what to do, and nothing of the file', async () => {
  for (const [text, said] of [
    ['allow:\n\t- secret', '(line 2: a tab before a name); indent with spaces'],
    ['allow: [secret]\nallow: [b]', '(line 2: a member that is there twice); keep one of them'],
    ['a: &a [secret]\nallow: *a', '(a value that begins with *); put it in quotes; an alias *NAME is refused'],
    ['allow: [**/secret]', '(a value that begins with *); put it in quotes'],
    ['allow: [*]', '(line 1: a value that begins with * or &); put it in quotes'],
    ['allow: [a]\n---\nallow: [b]', '(line 2: a second document); keep one, without a line of ---'],
    ['timeout: "secret', '(line 1: a quote or bracket that is not closed); close it'],
    ['timeout: @secret', '(line 1: a value that begins with a reserved character); put it in quotes'],
    ['timeout: secret: x', '(line 1: lines that are not indented alike, or a second colon)'],
  ] as const) {
    const line = await refused(text);
    assert.ok(line.includes(` is not valid YAML ${said}`), line);
    assert.doesNotMatch(line, /secret/);
  }
});

test('each member that holds a value of another type says how to write it', async () => {
  for (const name of OPTION_NAMES) {
    const path = configurationPath(name);
    if (path === undefined) continue;
    const text = stringify(path.reduceRight<unknown>((value, member) => ({ [member]: value }), null));
    assert.match(await refused(text), /must (?:be|hold) .*; write it /, text);
  }
  assert.match(await refused('gcpkms: x'), /gcpkms must hold members; known are adc, /);
});

test('values are checked as those of the command line are, and the file is named', async () => {
  for (const text of ['packet: v3', 'timeout: 1d', 'bytes: hex'])
    assert.match(await refused(text), /config-\d+\.yaml: /);
});

test('a file that cannot be read is a fault of the configuration, whatever the reason', async () => {
  const unreadable = write('{}');
  chmodSync(unreadable, 0);
  const folder = join(directory, 'folder');
  mkdirSync(folder);
  const files = [
    join(directory, 'missing'),
    folder,
    '/dev/zero',
    '/dev/null',
    '',
    ...(process.getuid?.() === 0 ? [] : [unreadable]),
  ];
  for (const file of files.filter((name) => name !== '')) {
    const error = await readConfiguration(file).then(() => assert.fail(file), asOcicryptError);
    assert.equal(error.code, 'configuration', file);
    assert.ok(error.message.includes(file));
    if (file.endsWith('missing')) assert.match(error.message, /does not exist/);
  }
});

test('a file that every user can write says nothing, and neither does a policy of the webhook', async () => {
  const file = write('audit-log: /tmp/x');
  chmodSync(file, 0o666);
  for (const read of [readConfiguration, readPolicyFile]) {
    const error = await read(file).then(() => assert.fail('it was read'), asOcicryptError);
    assert.deepEqual([error.code, error.hint], ['configuration', `chmod o-w ${file}`]);
  }
});

test('the command takes its options from the file, and those of the command line replace them', async () => {
  const file = write(stringify({ key: [keys.file('first')], allow: [GCP] }));
  assert.equal((await runCommand(['keyprovider', `--config=${file}`], unwrapRequest(PACKET))).stdout, REPLY);
  const replaced = await runCommand(
    ['keyprovider', `--config=${file}`, `--key=${keys.file('second')}`],
    unwrapRequest(PACKET),
  );
  assert.deepEqual([replaced.status, replaced.stdout], [77, '']);
  const wrong = write(stringify({ key: [keys.file('first')], context: { env: 'prod' } }));
  assert.equal((await runCommand(['keyprovider', '--config', wrong], unwrapRequest(PACKET))).status, 77);
  assert.equal((await runCommand(['-config', file], unwrapRequest(PACKET), 'kms_oci_crypt')).stdout, REPLY);
});

test('the command says in one line what is wrong with the file', async () => {
  for (const text of [
    'alow: [x]',
    'allow: [',
    'allow: [http://x]',
    'allow: ["gcpkms://projects/p*"]',
    'kmsURI: x',
    'kmsURI: gcpkms://projects/p/*',
  ]) {
    const { status, stdout, stderr } = await runCommand(
      ['keyprovider', `--config=${write(text)}`],
      wrapRequest([FIRST_KEY]),
    );
    assert.deepEqual([status, stdout], [78, ''], text);
    assert.match(stderr, /^ocicrypt-kms: configuration: [^\n]+\n$/);
  }
});

test('a tag that is unknown makes no noise', async () => {
  const { promise, resolve } = Promise.withResolvers<string>();
  const warned = (warning: Error) => resolve(warning.message);
  process.on('warning', warned);
  await readConfiguration(write('allow: !mine [a]')).catch(() => {});
  setTimeout(() => resolve(''), 20);
  assert.equal(await promise, '');
  process.off('warning', warned);
});
