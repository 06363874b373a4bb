// What a client waits for at each layer: one start of the command, one key wrapped, against the bare start of Node.

import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { wrapRequest } from '../scripts/sample.ts';
import { createKeyfile } from '../src/kms/keyfile.ts';
import type { BenchOptions } from './bench.ts';
import { EXECUTABLE } from './build.ts';
import { type Command, CommandRunner } from './command.ts';
import { type Contender, compare, print, printMachine, printRow } from './measure.ts';
import { startGoogleService } from './services.ts';

const RUNS = 60;

/** Prints ratios to `node -e 0`, peak memory and file size. */
export async function run({ runs = RUNS, peer }: BenchOptions): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'bench-'));
  const runner = new CommandRunner(directory);
  const google = await startGoogleService();
  try {
    const keyfile = join(directory, 'local.key');
    createKeyfile(keyfile);
    const local: Command = { words: [EXECUTABLE, 'keyprovider'], request: wrapRequest(`keyfile://${keyfile}`) };
    const request = wrapRequest(google.key);
    const remote: Command = { words: [EXECUTABLE, 'keyprovider', ...google.options], request };
    const contender = (name: string, command: Command, promised?: number): Contender => ({
      name,
      run: () => runner.time(command),
      ...(promised === undefined ? {} : { promised }),
    });
    const node = contender('node -e 0', { words: [process.execPath, '-e', '0'] });

    printMachine();
    const ours = [contender('wrap, local key', local, 0.4), contender('wrap, Google service account', remote, 0.8)];
    await compare('cold start', [node, ...ours], runs);
    if (peer !== undefined) {
      // Both find the service by its own name, through the same proxy: the peer knows no other way.
      const { environment } = google;
      const proxied: Command = { words: [EXECUTABLE, 'keyprovider'], request, environment };
      const [file = '', ...words] = peer.split(' ');
      const others = [
        contender('ocicrypt-kms', proxied),
        contender(peer, { words: [file, ...words], request, environment }),
      ];
      await compare('cold start, Google through a proxy', [node, ...others], runs);
    }
    printRow('memory and size', '', 'promised');
    printSize('  peak memory, local key', await runner.peakMemory(local), '≤ 60 MiB');
    printSize('  peak memory, Google service account', await runner.peakMemory(remote), '≤ 60 MiB');
    printSize('  executable', statSync(EXECUTABLE).size, '');
    print('');
  } finally {
    await google.close();
    rmSync(directory, { recursive: true });
  }
}

function printSize(name: string, bytes: number, promised: string): void {
  printRow(name, '', promised, `${(bytes / 1024 / 1024).toFixed(1)} MiB`);
}
