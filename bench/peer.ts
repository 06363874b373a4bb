// Ours beside the reference provider, with the same Google: each contender finds the service by Google's own names, with
// the same credentials, roots and requests. `--peer=COMMAND` is its command, `--peer-server=COMMAND` its server.

import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { unwrapRequest, wrapRequest } from '../tools/sample.ts';
import type { BenchOptions } from './bench.ts';
import { EXECUTABLE } from './build.ts';
import { type Command, timeCommands } from './command.ts';
import { CREDENTIAL_KINDS, type GoogleWorld, ROOT_STORES, startGoogleWorld } from './google-world.ts';
import { print, printMachine, printRow } from './measure.ts';

const RUNS = 30;

/** Prints ratios to the reference. */
export async function run({ runs = RUNS, peer }: BenchOptions): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'bench-'));
  const { world, close } = await startGoogleWorld(directory);
  try {
    printMachine();
    if (peer !== undefined) compareCommands(directory, world, peer, runs);
  } finally {
    await close();
    rmSync(directory, { recursive: true });
  }
}

function compareCommands(directory: string, world: GoogleWorld, peer: string, runs: number): void {
  const [theirs = '', ...more] = peer.split(' ');
  for (const store of ROOT_STORES) {
    printRow(`command, ${store}`, 'wrap', 'unwrap', 'ours', 'theirs');
    for (const kind of CREDENTIAL_KINDS) {
      const environment = { ...world.environments[store], GOOGLE_APPLICATION_CREDENTIALS: world.credentials[kind] };
      const asking = (request: Uint8Array): readonly [Command, Command] => {
        const common = { request: new TextDecoder().decode(request), environment };
        return [
          { words: [EXECUTABLE, 'keyprovider', `--kmsURI=${world.key}`], ...common },
          { words: [theirs, ...more], ...common },
        ];
      };
      const wraps = asking(wrapRequest(world.key));
      const annotation = answerOf(wraps[1], directory);
      const unwraps = asking(unwrapRequest(world.key, annotation));
      const [wrap, theirWrap, unwrap, theirUnwrap] = timeCommands(directory, [...wraps, ...unwraps], runs).map(
        ({ median }) => median,
      );
      const [ours = Number.NaN, reference = Number.NaN] = [wrap, theirWrap];
      printRow(
        `  ${kind}`,
        (ours / reference).toFixed(2),
        ((unwrap ?? Number.NaN) / (theirUnwrap ?? Number.NaN)).toFixed(2),
        `${ours.toFixed(1)} ms`,
        `${reference.toFixed(1)} ms`,
      );
    }
    print('');
  }
}

function answerOf({ words: [file, ...words], request: input, environment }: Command, home: string): Uint8Array {
  return execFileSync(file, words, { input, env: { PATH: process.env.PATH, HOME: home, ...environment } });
}
