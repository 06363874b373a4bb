// P32: a secret in the place of every file name, option value, variable and word; it is in nothing that is written.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { VARIABLES } from '../../src/base/environment.ts';
import { COMMANDS } from '../../src/cli/commands.ts';
import { OPTION_NAMES } from '../../src/cli/options/configuration.ts';
import { type OptionName, optionSpec } from '../../src/cli/options/table.ts';
import {
  CALLS,
  commandOf,
  ENDPOINTS,
  ENVIRONMENT,
  KEYS,
  keysFor,
  variable,
  variableWords,
  wordsFor,
} from '../fixtures/calls.ts';
import { CANARIES, type Canary, WORDS } from '../fixtures/canaries.ts';
import { runExecutable } from '../fixtures/executable.ts';
import { SEED, seeded } from '../fixtures/seed.ts';
import { serve } from '../fixtures/serve.ts';
import { wrapRequest } from '../fixtures/vectors/shape.ts';

const directory = mkdtempSync(join(tmpdir(), 'ocicrypt-names-'));
after(() => rmSync(directory, { recursive: true, force: true }));

type Run = {
  readonly words: readonly string[];
  readonly environment?: Readonly<Record<string, string>>;
  readonly canary: Canary;
};

let runs = 0;
/** What is wrong with a run, if anything. */
async function faultOf({ words, environment = {}, canary }: Run): Promise<string | undefined> {
  // What an option makes there must not be found by another run: a file that is there has a name.
  const place = join(directory, `run-${runs++}`);
  mkdirSync(place);
  const log = join(place, 'log');
  const takesLog = COMMANDS.get(words[0] ?? '')?.options.includes('debugLog') ?? false;
  const own = takesLog && !words.some((word) => word.startsWith('--debugLog')) ? [`--debugLog=${log}`] : [];
  const { status, stdout, stderr } = await runExecutable([...words, ...own], {
    environment: { ...ENVIRONMENT, ...environment },
    input: wrapRequest([KEYS[3] ?? '']),
    cwd: place,
  });
  let logged = '';
  try {
    logged = readFileSync(log, 'utf8');
  } catch {}
  rmSync(place, { recursive: true, force: true });
  const written = `${stdout}${stderr}${logged}`.toLowerCase();
  const about = `${words.at(-1)?.slice(0, 80)} ${Object.keys(environment).join(' ')}: ${stderr}`;
  if (status === 70 || status === null) return `status ${status}: ${about}`;
  for (const part of canary.parts) {
    for (const form of [part, JSON.stringify(part).slice(1, -1), encodeURIComponent(part)]) {
      const at = written.indexOf(form.toLowerCase());
      if (at >= 0) return `${written.slice(Math.max(0, at - 80), at + 20)}: ${about}`;
    }
  }
  return undefined;
}

const isFileOption = (name: OptionName) => /^(?:FILE|DIR|KEY=FILE)$/.test(optionSpec(name).value ?? '');
/** What only says of itself where it goes prints it, which is its purpose. */
const PRINTS = new Set(['config']);

function canariesFor(index: number, isFile: boolean): readonly Canary[] {
  const all = [...Object.values(CANARIES), ...(isFile ? Object.values(WORDS) : [])];
  if (process.env.OCICRYPT_PROVE === '1') return all;
  // A sample: each name in one run of three, with one secret.
  return (SEED + index) % 3 === 0 ? [all[(SEED + index) % all.length] ?? assert.fail()] : [];
}

async function assertHidden(runs: readonly Run[]): Promise<void> {
  const rest = [...runs];
  const faults: string[] = [];
  const work = async () => {
    for (let run = rest.pop(); run !== undefined; run = rest.pop()) {
      const fault = await faultOf(run);
      if (fault !== undefined) faults.push(fault);
    }
  };
  await Promise.all([work(), work(), work(), work()]);
  assert.deepEqual(faults, []);
}

describe('P32 no secret in any error: a canary', () => {
  test(seeded('P32 in the place of every option’s value'), async (context) => {
    const runs = OPTION_NAMES.filter((name) => optionSpec(name).kind !== 'switch').flatMap((name, index) =>
      PRINTS.has(commandOf(name))
        ? []
        : canariesFor(index, isFileOption(name)).map((canary) => ({ words: wordsFor(name, canary.text), canary })),
    );
    await assertHidden(runs);
    context.diagnostic(`figures: ${runs.length} runs with a secret in an option`);
  });

  test(seeded('P32 in the place of every variable’s value'), async (context) => {
    const runs = [...VARIABLES].flatMap(([name, kind], index) =>
      canariesFor(index, /^(?:file|secret)$/.test(kind)).map((canary) => {
        return { words: variableWords(name), environment: variable(name, canary.text), canary };
      }),
    );
    await assertHidden(runs.filter(({ environment }) => environment.PATH === undefined));
    context.diagnostic(`figures: ${runs.length} runs with a secret in a variable`);
  });

  test(seeded('P32 in the place of every word'), async (context) => {
    const runs = [...Object.keys(CALLS), 'x'].flatMap((command, index) =>
      canariesFor(index, false).flatMap((canary) => [
        { words: command === 'x' ? [canary.text] : [command, canary.text, canary.text], canary },
        { words: command === 'x' ? [`--${canary.text}`] : [command, canary.text], canary },
        { words: command === 'x' ? [`-${canary.text}`] : [command, `--${canary.text}`], canary },
      ]),
    );
    const keys = ['pkcs11:token=t?pin-value=', 'base64key://', 'gcpkms://', 'oci:', 'docker://'];
    const own = keys.flatMap((key, index) =>
      canariesFor(index, false).map((canary) => ({ words: ['doctor', `${key}${canary.text}`], canary })),
    );
    await assertHidden([...runs, ...own]);
    context.diagnostic(`figures: ${runs.length + own.length} runs with a secret as a word`);
  });
});

test('a pipe in the place of any file holds nothing up: refused at once, and as a mistake of this machine', async () => {
  const pipe = join(directory, 'pipe');
  assert.equal(spawnSync('mkfifo', [pipe]).status, 0);
  const writes = new Set<OptionName>(['audit-log', 'debugLog', 'digestfile']);
  const options = OPTION_NAMES.filter(
    (name) => isFileOption(name) && !writes.has(name) && !PRINTS.has(commandOf(name)),
  ).map((name) => ({ name, words: wordsFor(name, pipe), environment: {} }));
  const variables = [...VARIABLES]
    .filter(([, kind]) => kind === 'file')
    .map(([name]) => ({
      name,
      words: ['doctor', ...keysFor(name), ...(CALLS.doctor ?? [])],
      environment: variable(name, pipe),
    }));
  const faults: string[] = [];
  for (const { name, words, environment } of [...options, ...variables]) {
    const { status, stdout, stderr, milliseconds } = await runExecutable(words, {
      environment: { ...ENVIRONMENT, ...environment },
      input: wrapRequest([KEYS[3] ?? '']),
      cwd: directory,
    });
    if (status === 70 || status === null || milliseconds > 4000)
      faults.push(`${name}: ${status}, ${milliseconds} ms, ${stdout}${stderr}`);
  }
  assert.deepEqual(faults, []);
});

test('P32 no path of the server’s own credentials reaches a caller; its log has them', async (t) => {
  const secret = (name: string) => join(directory, 'own-credentials', `${name}.pem`);
  const ca = join(directory, 'ca.pem');
  writeFileSync(ca, 'no certificate');
  const { AZURE_CLIENT_SECRET: _, ...others } = ENVIRONMENT;
  const { addresses, log } = await serve(
    t,
    [
      `--listen=unix://${join(directory, 's')}`,
      ...KEYS.slice(0, 5).map((key) => `--allow=${key}`),
      `--key=${secret('key')}`,
      ...[`--adc=${secret('adc')}`, `--pkcs11-module=${secret('module')}`, `--vault-credentials=${secret('token')}`],
      ...[...ENDPOINTS, '--timeout=2s'],
    ],
    {
      environment: {
        ...others,
        AZURE_FEDERATED_TOKEN_FILE: secret('federated'),
        AWS_ACCESS_KEY_ID: 'AKIDEXAMPLE',
        AWS_SECRET_ACCESS_KEY: 'x',
        SSL_CERT_FILE: ca,
      },
    },
  );
  const asked = [...KEYS.slice(0, 5), `keyfile://${secret('key')}`];
  for (const key of asked) {
    const { status, stderr } = await runExecutable(['keyprovider', `--remote=${addresses[0]}`, '--timeout=5s'], {
      input: wrapRequest([key]),
    });
    assert.ok(status !== 0 && status !== 70, stderr);
    const own = key.startsWith('keyfile:') ? stderr.replaceAll(key, '') : stderr;
    assert.ok(!own.includes(directory), stderr);
  }
  for (const name of ['adc', 'token']) assert.ok(log().includes(secret(name)), `${name}: ${log()}`);
});
