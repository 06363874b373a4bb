// What each kind of key costs at the start of the command, beside Google's: one layer key wrapped, or unwrapped.

import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { generateX25519Identity, identityToRecipient } from 'age-encryption';
import { createToken, ensureSoftHsm, useTokenStore } from '../test/fixtures/softhsm.ts';
import { unwrapRequest, wrapRequest } from '../tools/sample.ts';
import type { BenchOptions } from './bench.ts';
import { EXECUTABLE } from './build.ts';
import { type Command, CommandRunner, timeCommands } from './command.ts';
import { print, printMachine, printRatios, printSize } from './measure.ts';
import { type Service, startServices } from './services.ts';

const RUNS = 40;
/** Ratios to Google's figure. */
const PROMISED = 1.3;
const PROMISED_AWS = 1.6;

type Entrant = { readonly name: string; readonly service: Service; readonly promised?: number };

/** Prints ratios to a key of Google's, and peak memory. */
export async function run({ runs = RUNS }: BenchOptions): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'bench-'));
  const services = await startServices();
  try {
    const entrants: readonly Entrant[] = [
      { name: 'Google, service account', service: services.google },
      { name: 'AWS, access key', service: services.aws, promised: PROMISED_AWS },
      { name: 'Azure, RSA, client secret', service: services.azure, promised: PROMISED },
      { name: 'Vault, token', service: services.vault, promised: PROMISED },
      { name: 'PKCS#11, AES in SoftHSM', service: await openToken(directory), promised: PROMISED },
      { name: 'age, X25519', service: await makeIdentity(directory), promised: PROMISED },
    ];
    const runner = new CommandRunner(directory);
    const wraps = entrants.map(({ service }) => commandOf(service, wrapRequest(service.key)));
    const unwraps = entrants.map(({ service }, index) =>
      commandOf(service, unwrapRequest(service.key, replyTo(wraps[index], directory))),
    );
    printMachine();
    printRatios('cold start by kind of key, wrap', entrants, timeCommands(directory, wraps, runs));
    printRatios('cold start by kind of key, unwrap', entrants, timeCommands(directory, unwraps, runs));
    print('peak memory, wrap');
    for (const [index, wrap] of wraps.entries()) {
      printSize(`  ${entrants[index]?.name}`, await runner.peakMemory(wrap), '≤ 60 MiB');
    }
    print('');
  } finally {
    await services.close();
    rmSync(directory, { recursive: true });
  }
}

function commandOf({ options, environment }: Service, request: Uint8Array): Command {
  return {
    words: [EXECUTABLE, 'keyprovider', ...options],
    request: new TextDecoder().decode(request),
    environment,
  };
}

function replyTo(command: Command | undefined, directory: string): Uint8Array {
  const {
    words: [file, ...words],
    request: input,
    environment,
  } = command ?? { words: ['false'] };
  return execFileSync(file, words, { input, env: { PATH: process.env.PATH, HOME: directory, ...environment } });
}

/** A token of SoftHSM with an AES key. */
async function openToken(directory: string): Promise<Service> {
  const hsm = await ensureSoftHsm();
  if ('missing' in hsm) throw new Error(hsm.missing);
  const store = await useTokenStore(directory);
  createToken(hsm, 'bench', '97531').createAesKey('images');
  const pin = join(directory, 'pin');
  writeFileSync(pin, '97531\n', { mode: 0o600 });
  return {
    key: 'pkcs11:token=bench;object=images',
    options: [`--pkcs11-module=${hsm.module}`, `--pkcs11-binding=${hsm.binding}`, `--pkcs11-pin-file=${pin}`],
    environment: { SOFTHSM2_CONF: store },
  };
}

async function makeIdentity(directory: string): Promise<Service> {
  const identity = await generateX25519Identity();
  const file = join(directory, 'identity.txt');
  writeFileSync(file, `${identity}\n`, { mode: 0o600 });
  return { key: await identityToRecipient(identity), options: [`--key=${file}`], environment: {} };
}
