// What a client waits for at each layer: one start of the command, one key wrapped, against the bare start of Node.

import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createKeyfile } from '../src/kms/keyfile/key.ts';
import { wrapRequest } from '../tools/sample.ts';
import type { BenchOptions } from './bench.ts';
import { EXECUTABLE } from './build.ts';
import { type Command, CommandRunner, timeCommands } from './command.ts';
import { print, printMachine, printRatios, printRow, printSize } from './measure.ts';
import { startServices } from './services.ts';

const RUNS = 60;

type Entrant = { readonly name: string; readonly command: Command; readonly promised?: number };

const NODE: Entrant = { name: 'node -e 0', command: { words: [process.execPath, '-e', '0'] } };

/** Prints ratios to `node -e 0`, peak memory and file size. */
export async function run({ runs = RUNS, peer }: BenchOptions): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'bench-'));
  const runner = new CommandRunner(directory);
  const { google, internet: environment, close } = await startServices();
  try {
    const keyfile = join(directory, 'local.key');
    createKeyfile(keyfile);
    const local: Command = { words: [EXECUTABLE, 'keyprovider'], request: textOf(wrapRequest(`keyfile://${keyfile}`)) };
    const request = textOf(wrapRequest(google.key));
    const remote: Command = { words: [EXECUTABLE, 'keyprovider', ...google.options], request };
    const compare = (title: string, entrants: readonly Entrant[]) => {
      const commands = entrants.map(({ command }) => command);
      printRatios(title, entrants, timeCommands(directory, commands, runs));
    };

    printMachine();
    compare('cold start', [
      NODE,
      { name: 'wrap, local key', command: local, promised: 0.4 },
      { name: 'wrap, Google service account', command: remote, promised: 0.8 },
    ]);
    if (peer !== undefined) {
      // Both find the service by its own name, through the same proxy: the peer knows no other way.
      const [file = '', ...words] = peer.split(' ');
      compare('cold start, Google through a proxy', [
        NODE,
        { name: 'ocicrypt-kms', command: { words: [EXECUTABLE, 'keyprovider'], request, environment } },
        { name: peer, command: { words: [file, ...words], request, environment } },
      ]);
    }
    printRow('memory and size', '', 'promised');
    printSize('  peak memory, local key', await runner.peakMemory(local), '≤ 60 MiB');
    printSize('  peak memory, Google service account', await runner.peakMemory(remote), '≤ 60 MiB');
    printSize('  executable', statSync(EXECUTABLE).size, '');
    print('');
  } finally {
    await close();
    rmSync(directory, { recursive: true });
  }
}

function textOf(bytes: Uint8Array): string {
  return new TextDecoder().decode(bytes);
}
