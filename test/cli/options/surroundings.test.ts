// What a command is told without a word on its command line: variables and a file that is found, what goes before what, and what neither may do.

import assert from 'node:assert/strict';
import { chmodSync, chownSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, beforeEach, describe, test } from 'node:test';
import { COMMANDS } from '../../../src/cli/commands.ts';
import { OPTION_NAMES, readConfiguration } from '../../../src/cli/options/configuration.ts';
import { findConfiguration } from '../../../src/cli/options/found.ts';
import { Settings } from '../../../src/cli/options/settings.ts';
import {
  configurationPath,
  type OptionName,
  optionSpec,
  type SwitchName,
  variableName,
  variableOf,
} from '../../../src/cli/options/table.ts';
import { readVariables } from '../../../src/cli/options/variables.ts';
import { type CommandResult, runCommand } from '../../fixtures/terminal.ts';

const directory = mkdtempSync(join(tmpdir(), 'surroundings-'));
after(() => rmSync(directory, { recursive: true, force: true }));
const home = join(directory, 'home');
const place = join(home, '.config/ocicrypt-kms');
const file = join(place, 'config.yaml');
beforeEach(() => {
  rmSync(home, { recursive: true, force: true });
  mkdirSync(place, { recursive: true, mode: 0o755 });
});
const write = (text: string, mode = 0o644) => {
  writeFileSync(file, text);
  chmodSync(file, mode);
};

/** Runs with these variables and no others of ours, outside of any pipeline. */
async function run(words: readonly string[], environment: NodeJS.ProcessEnv = {}): Promise<CommandResult> {
  const before = { ...process.env };
  for (const name of ['CI', 'XDG_CONFIG_HOME']) delete process.env[name];
  Object.assign(process.env, { HOME: home }, environment);
  try {
    return await runCommand(words);
  } finally {
    for (const name of Object.keys(process.env)) if (!(name in before)) delete process.env[name];
    Object.assign(process.env, before);
  }
}

const OPEN = [...COMMANDS].filter(([, { isOpen }]) => isOpen).map(([name]) => name);

describe('variables', () => {
  test('each has the name of its option, and only what a caller may leave to them has one', () => {
    assert.equal(variableOf('recipients-file'), 'OCICRYPT_KMS_RECIPIENTS_FILE');
    assert.equal(variableOf('debugLog'), 'OCICRYPT_KMS_DEBUG_LOG');
    const names = OPTION_NAMES.map(variableName);
    assert.equal(new Set(names).size, names.length);
    const having = OPTION_NAMES.filter((name) => variableOf(name) !== undefined);
    for (const name of having) assert.doesNotMatch(name, /insecure|pin|passphrase|credentials|tls|client/, name);
    const taken = new Set(OPEN.flatMap((name) => COMMANDS.get(name)?.options ?? []));
    for (const name of having) assert.ok(taken.has(name), `${name} has a variable that no command reads`);
  });

  test('one a line for what may be repeated, and one line for all else', async () => {
    const texts = await readVariables(
      {
        OCICRYPT_KMS_RECIPIENT: 'age1x\n\nkeyfile:///a b\r\n',
        OCICRYPT_KMS_CONTEXT: 'env=prod\nteam=a b',
        OCICRYPT_KMS_JSON: 'true',
        OCICRYPT_KMS_QUIET: 'false',
        OCICRYPT_KMS_TIMEOUT: '5m',
      },
      OPTION_NAMES,
    );
    assert.deepEqual(
      [...texts],
      [
        ['recipient', ['age1x', 'keyfile:///a b']],
        ['context', ['env=prod', 'team=a b']],
        ['json', ['']],
        ['quiet', []],
        ['timeout', ['5m']],
      ],
    );
  });

  test("what is misspelt, empty, or no value of its option is refused by the variable's name, and is not shown", async () => {
    const secret = 'hunter2-hunter2-hunter2';
    for (const [name, value, expected] of [
      [
        'OCICRYPT_KMS_RECIPENT',
        secret,
        /"OCICRYPT_KMS_RECIPENT" is no variable of an option; did you mean OCICRYPT_KMS_RECIPIENT\?/,
      ],
      ['OCICRYPT_KMS_WHATEVER_IT_IS', secret, /known are OCICRYPT_KMS_/],
      ['OCICRYPT_KMS_INSECURE_PLAINTEXT', secret, /has no effect; say --insecure-plaintext on the command line/],
      ['OCICRYPT_KMS_PKCS11_PIN_FILE', secret, /has no effect; say --pkcs11-pin-file/],
      ['OCICRYPT_KMS_REQUIRE', '', /OCICRYPT_KMS_REQUIRE is empty/],
      ['OCICRYPT_KMS_ONLY', ' \n', /OCICRYPT_KMS_ONLY is empty/],
      ['OCICRYPT_KMS_JSON', secret, /OCICRYPT_KMS_JSON takes true or false/],
      ['OCICRYPT_KMS_TIMEOUT', '5m\n6m', /OCICRYPT_KMS_TIMEOUT takes one line/],
      ['OCICRYPT_KMS_TIMEOUT', 'soon', /OCICRYPT_KMS_TIMEOUT: option --timeout takes a time/],
      [
        'OCICRYPT_KMS_KEY',
        `-----BEGIN PRIVATE KEY-----\n${secret}`,
        /OCICRYPT_KMS_KEY: option --key holds the content of a file/,
      ],
    ] as const) {
      const { status, stderr } = await run(['inspect', 'oci:nowhere'], { [name]: value });
      const others = await run(['verify', 'oci:nowhere'], { [name]: value });
      const line = /_(?:REQUIRE|ONLY|KEY)$/.test(name) ? others : { status, stderr };
      assert.equal(line.status, 78, `${name}: ${line.stderr}`);
      assert.match(line.stderr, expected);
      assert.ok(!line.stderr.includes(secret), line.stderr);
    }
  });

  test('those of another command are left alone', async () => {
    const { status, stderr } = await run(['inspect', 'oci:nowhere'], { OCICRYPT_KMS_RECIPIENT: 'age1x' });
    assert.equal(status, 66, stderr);
  });

  test('what other programs start reads none', async () => {
    for (const name of [...COMMANDS.keys()].filter((command) => !OPEN.includes(command))) {
      assert.equal(COMMANDS.get(name)?.isOpen, undefined);
    }
    for (const name of ['keyprovider', 'serve', 'decoder', 'config']) assert.ok(!OPEN.includes(name), name);
    write('remote: unix:///nowhere\nallow: [no key]\n');
    const { status, stderr } = await run(['keyprovider'], { OCICRYPT_KMS_ALLOW: 'no key', OCICRYPT_KMS_NONSENSE: 'x' });
    assert.equal(status, 65, stderr);
  });

  test('recipients that are named on the command line are all of them', async () => {
    const variables = { OCICRYPT_KMS_RECIPIENT: 'keyfile:///variable' };
    const recipients = join(directory, 'recipients');
    writeFileSync(recipients, 'keyfile:///named\n');
    for (const words of [[`--recipients-file=${recipients}`], ['--recipient=keyfile:///named']]) {
      const { stderr } = await run(['encrypt', 'oci:nowhere', 'oci:there', ...words], variables);
      assert.ok(!stderr.includes('variable'), stderr);
    }
    const added = await run(['rewrap', 'oci:nowhere', '--add=keyfile:///named'], variables);
    assert.equal(added.status, 66, added.stderr);
  });
});

describe('a configuration file that is found', () => {
  const environment = { HOME: home };
  test("is the user's, and says what is not policy and not a time", async () => {
    write('ca: [/a.pem]\ntimeout: 1s\nallow: [age1x]\nhashivault: { address: "https://vault.example" }\n');
    const found = await findConfiguration(environment);
    assert.equal(found?.file, file);
    assert.deepEqual([...(found?.texts ?? [])].toSorted(), [
      ['ca', ['/a.pem']],
      ['vault-addr', ['https://vault.example']],
    ]);
    assert.deepEqual(found?.left, ['allow']);
    assert.equal((await findConfiguration({ HOME: '/nowhere', XDG_CONFIG_HOME: join(home, '.config') }))?.file, file);
    assert.equal((await findConfiguration({ HOME: home, XDG_CONFIG_HOME: '/nowhere' }))?.file, undefined);
    assert.equal((await findConfiguration({ HOME: home, XDG_CONFIG_HOME: 'relative' }))?.file, file);
  });

  test('may not be one that others write, by file or directory, nor of another user', async () => {
    const refuse = async (expected: RegExp) =>
      assert.rejects(findConfiguration(environment), (error: Error) => expected.test(error.message));
    for (const mode of [0o664, 0o646, 0o666]) {
      write('ca: [/a.pem]\n', mode);
      await refuse(/may be written by other users/);
    }
    write('ca: [/a.pem]\n');
    for (const mode of [0o775, 0o757, 0o1777]) {
      chmodSync(place, mode);
      await refuse(/others may put a configuration into/);
    }
    chmodSync(place, 0o755);
    assert.ok(await findConfiguration(environment));
    if (process.getuid?.() === 0) {
      chownSync(file, 65534, 65534);
      await refuse(/belongs to another user/);
      chownSync(file, 0, 0);
      chownSync(place, 65534, 65534);
      await refuse(/others may put a configuration into/);
    }
  });

  test('is what a link leads to, by whose owner and mode it is judged', async () => {
    const target = join(directory, 'target.yaml');
    writeFileSync(target, 'ca: [/a.pem]\n', { mode: 0o666 });
    chmodSync(target, 0o666);
    symlinkSync(target, file);
    await assert.rejects(findConfiguration(environment), /may be written by other users/);
    rmSync(file);
    symlinkSync('/dev/zero', file);
    await assert.rejects(findConfiguration(environment), /is not a regular file/);
  });

  test('is not looked for in the home of a pipeline', async () => {
    write('ca: [/a.pem]\n', 0o666);
    for (const CI of ['true', '1', 'woodpecker'])
      assert.equal(await findConfiguration({ ...environment, CI }), undefined);
    for (const CI of ['', 'false', '0']) await assert.rejects(findConfiguration({ ...environment, CI }));
  });

  test('holds no policy: every option that decides over keys, callers or images is told, and has no effect', async () => {
    const policy = OPTION_NAMES.filter((name) => optionSpec(name).isPolicy);
    for (const name of [
      'allow',
      'key',
      'only',
      'require',
      'context',
      'kmsURI',
      'insecure-plaintext',
      'allow-client',
    ] as const)
      assert.ok(policy.includes(name), name);
    write('key: [/nowhere/key]\nallow-client: [x]\n');
    const { status, stderr } = await run(['inspect', 'oci:nowhere']);
    assert.deepEqual([status, stderr.includes('warning')], [66, false], 'inspect takes no key');
    const told = await run(['decrypt', 'oci:nowhere', 'oci:there']);
    assert.match(told.stderr, /^warning: \S+config\.yaml was found, not named, so its key has no effect; --config=/);
    const named = await run(['decrypt', 'oci:nowhere', 'oci:there', '--key=/nowhere/other']);
    assert.doesNotMatch(named.stderr, /warning/);
  });

  test('that demands something of images is not passed over by verify', async () => {
    for (const member of ['require', 'only'] as const) {
      write(`${member}: ["keyfile:sha256:${'0'.repeat(64)}"]\n`);
      const { status, stderr } = await run(['verify', 'oci:nowhere']);
      assert.equal(status, 78);
      assert.match(stderr, /was found, not named: what it requires of images does not count/);
      assert.equal((await run(['verify', 'oci:nowhere', `--config=${file}`])).status, 66);
      assert.equal((await run(['verify', 'oci:nowhere', `--${member}=keyfile:sha256:${'0'.repeat(64)}`])).status, 66);
    }
  });

  test('is told by doctor, with what counts of it', async () => {
    write('ca: [/nowhere.pem]\nallow: [age1x]\n');
    const { stdout } = await run(['doctor', '--json'], { OCICRYPT_KMS_QUIET: 'true' });
    const setup: readonly { readonly subject: string; readonly level: string; readonly message: string }[] =
      JSON.parse(stdout).setup;
    const said = setup.find(({ subject }) => subject === file);
    assert.equal(said?.level, 'ok');
    assert.match(said?.message ?? '', /says ca; its allow counts if --config names the file/);
    assert.ok(setup.some(({ subject }) => subject === 'OCICRYPT_KMS_QUIET'));
  });
});

test('the command line goes before a variable, that before a named file, and that takes the place of a found one', async () => {
  const named = join(directory, 'named.yaml');
  const told = async (words: readonly string[], variables: NodeJS.ProcessEnv) => {
    const { stderr } = await run(['decrypt', 'oci:nowhere', 'oci:there', ...words], variables);
    return /\/(?:word|variable|named|found)\b/.exec(stderr)?.[0];
  };
  const taken: OptionName = 'audit-log';
  const variable = { [variableName(taken)]: '/nowhere/variable' };
  const config = { OCICRYPT_KMS_CONFIG: named };
  write('audit-log: /nowhere/found\n');
  writeFileSync(named, 'audit-log: /nowhere/named\n');
  assert.equal(await told(['--audit-log=/nowhere/word', `--config=${named}`], { ...variable }), '/word');
  assert.equal(await told([`--config=${named}`], variable), '/variable');
  assert.equal(await told([], { ...variable, ...config }), '/variable');
  assert.equal(await told([`--config=${named}`], {}), '/named');
  assert.equal(await told([], config), '/named');
  assert.equal(await told([], {}), '/found');
  writeFileSync(named, '');
  assert.equal(await told([], config), undefined);
});

test('a switch that a file or variable turns off is off', async () => {
  write('quiet: true\n');
  const { stderr } = await run(['keygen', join(home, 'key')], { OCICRYPT_KMS_QUIET: 'false' });
  assert.match(stderr, /packets know this key/);
  assert.equal((await run(['keygen', join(home, 'other')])).stderr, '');
});

test('every switch that a file says is false is off', async () => {
  for (const name of OPTION_NAMES.filter(isSwitch)) {
    const path = configurationPath(name);
    if (path === undefined) continue;
    for (const value of [true, false]) {
      write(JSON.stringify(path.reduceRight<unknown>((inner, member) => ({ [member]: inner }), value)));
      assert.equal(new Settings(await readConfiguration(file)).switch(name), value, name);
    }
  }
});

function isSwitch(name: OptionName): name is SwitchName {
  return optionSpec(name).kind === 'switch';
}
