// P32: a secret in the place of every file name, option value, variable and word; it is in nothing that is written.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { wrapRequest } from '../../scripts/vectors-shape.ts';
import { VARIABLES } from '../../src/base/environment.ts';
import { COMMANDS } from '../../src/cli/commands.ts';
import { type OptionName, optionSpec } from '../../src/cli/options.ts';
import { OPTION_NAMES } from '../../src/cli/settings.ts';
import { CANARIES, type Canary, WORDS } from '../fixtures/canaries.ts';
import { runExecutable } from '../fixtures/executable.ts';
import { SEED, seeded } from '../fixtures/seed.ts';
import { serve } from '../fixtures/serve.ts';

const directory = mkdtempSync(join(tmpdir(), 'ocicrypt-names-'));
after(() => rmSync(directory, { recursive: true, force: true }));

/** Where nobody listens, so that every service fails at once. */
const NOWHERE = 'https://127.0.0.1:1';
const KEYS = [
  'gcpkms://projects/p/locations/l/keyRings/r/cryptoKeys/k',
  'awskms:///arn:aws:kms:eu-west-1:111122223333:key/12345678-1234-1234-1234-123456789012',
  'azurekms://example.vault.azure.net/k',
  'hashivault://k',
  'pkcs11:token=t;object=k',
  'keyfile:///nowhere/x.key',
];
const ENVIRONMENT: Readonly<Record<string, string>> = {
  METADATA_SERVER_DETECTION: 'none',
  AWS_EC2_METADATA_DISABLED: 'true',
  AZURE_TENANT_ID: 'tenant',
  AZURE_CLIENT_ID: 'client',
  AZURE_CLIENT_SECRET: 'x',
  AZURE_AUTHORITY_HOST: NOWHERE,
  VAULT_ADDR: NOWHERE,
  VAULT_TOKEN: 'x',
};
const ENDPOINTS = [`--gcp-endpoint=${NOWHERE}`, `--aws-endpoint=${NOWHERE}`, `--azure-endpoint=${NOWHERE}`];

/** How each command comes as far as it can without a key or an image. */
const CALLS: Readonly<Record<string, readonly string[]>> = {
  doctor: [...ENDPOINTS, '--timeout=1s'],
  keyprovider: ['--timeout=1s'],
  serve: ['--listen=unix:///nowhere/socket', '--allow=hashivault://k'],
  encrypt: ['oci:/nowhere/a', 'oci:/nowhere/b', '--recipient=hashivault://k'],
  decrypt: ['oci:/nowhere/a', 'oci:/nowhere/b'],
  rewrap: ['oci:/nowhere/a', '--add=hashivault://k'],
  verify: ['oci:/nowhere/a'],
  inspect: ['oci:/nowhere/a'],
  keygen: ['/nowhere/x.key'],
  config: ['ocicrypt'],
};
/** What an option needs beside it for its value to be looked at. */
const BESIDE: Readonly<Record<string, readonly string[]>> = {
  'vault-credentials': ['--vault-login=approle', '--vault-role=r'],
  'vault-login-path': ['--vault-login=cert'],
  'tls-ca': ['--remote=tls://127.0.0.1:1'],
  'tls-cert': ['--remote=tls://127.0.0.1:1', '--tls-ca=/nowhere/ca.pem', '--tls-key=/nowhere/x.key'],
  'tls-key': ['--remote=tls://127.0.0.1:1', '--tls-ca=/nowhere/ca.pem', '--tls-cert=/nowhere/x.crt'],
};
const UNSET: Readonly<Record<string, readonly string[]>> = {
  AZURE_CLIENT_CERTIFICATE_PATH: ['AZURE_CLIENT_SECRET'],
  AZURE_FEDERATED_TOKEN_FILE: ['AZURE_CLIENT_SECRET'],
  BAO_TOKEN_PATH: ['VAULT_TOKEN'],
};
const WITH: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  VAULT_CLIENT_KEY: { VAULT_CLIENT_CERT: '/nowhere/x.crt' },
  VAULT_CLIENT_CERT: { VAULT_CLIENT_KEY: '/nowhere/x.key' },
  BAO_CLIENT_KEY: { BAO_CLIENT_CERT: '/nowhere/x.crt' },
  BAO_CLIENT_CERT: { BAO_CLIENT_KEY: '/nowhere/x.key' },
};

/** The keys that look at an option or variable: those of its service, else one with TLS and one without. */
function keysFor(name: string): readonly string[] {
  const services = [/^(?:gcp|adc|GOOGLE|CLOUD|GCE|METADATA|K_)/, /^aws/i, /^azure/i, /^(?:vault|bao)/i, /^pkcs11/];
  const index = services.findIndex((service) => service.test(name));
  return index < 0 ? KEYS.slice(3) : KEYS.slice(index, index + 1);
}

/** The command by which an option is tried: the doctor looks at most of them. */
function commandOf(name: OptionName): string {
  const taking = [...COMMANDS].filter(([, { options }]) => options.includes(name)).map(([command]) => command);
  const preferred = name in BESIDE && name.startsWith('tls-') ? 'keyprovider' : 'doctor';
  return taking.includes(preferred) ? preferred : (taking[0] ?? '');
}

function wordsFor(name: OptionName, value: string): readonly string[] {
  const command = commandOf(name);
  const { kind, value: shown } = optionSpec(name);
  const pair = kind !== 'pairs' ? value : shown === 'KEY=FILE' ? `kbs:///a/b/c=${value}` : `${value}=${value}`;
  const others = (CALLS[command] ?? []).filter((word) => !word.startsWith(`--${name}=`));
  const keys = command === 'doctor' ? keysFor(name) : [];
  return [command, ...keys, ...others, ...(BESIDE[name] ?? []), `--${name}=${pair}`];
}

/** The environment in which a variable is looked at. */
function variable(name: string, value: string): Readonly<Record<string, string>> {
  const unset = Object.fromEntries((UNSET[name] ?? []).map((one) => [one, '']));
  return { ...unset, ...WITH[name], [name]: value };
}

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
        const environment = variable(name, canary.text);
        const encrypts = /^(?:OCICRYPT|REGISTRY|DOCKER|XDG)_/.test(name);
        const words = encrypts
          ? ['encrypt', 'docker://127.0.0.1:1/a', 'oci:/nowhere/b', '--recipient=provider:other:x']
          : ['doctor', ...keysFor(name), ...(CALLS.doctor ?? [])];
        return { words, environment, canary };
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
