/**
 * Programs of the Python Package Index, installed into a directory of their own under `.cache` and kept nowhere else.
 */
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { createServer } from 'node:net';
import { dirname, join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

const PROJECT = dirname(dirname(dirname(fileURLToPath(import.meta.url))));
const MOTO = '5.2.5';

/** Starts moto on a port of this machine. */
export async function startMoto(): Promise<{ readonly endpoint: string; readonly stop: () => void }> {
  const environment = join(PROJECT, '.cache', `moto-${MOTO}`);
  const program = join(environment, 'bin', 'moto_server');
  if (!existsSync(program)) {
    run('python3', ['-m', 'venv', environment]);
    run(join(environment, 'bin', 'python'), ['-m', 'pip', 'install', '--quiet', `moto[server]==${MOTO}`]);
  }
  const port = await findPort();
  const server = spawn(program, ['-H', '127.0.0.1', '-p', String(port)], { stdio: 'ignore' });
  const endpoint = `http://127.0.0.1:${port}`;
  for (let attempt = 0; attempt < 150; attempt++) {
    try {
      await fetch(endpoint);
      return { endpoint, stop: () => void server.kill() };
    } catch {
      await pause(200);
    }
  }
  server.kill();
  throw new Error('moto does not start');
}

function run(command: string, words: readonly string[]): void {
  const { status, error } = spawnSync(command, words, { stdio: 'inherit' });
  if (status !== 0) throw new Error(`${command} failed`, { cause: error });
}

async function findPort(): Promise<number> {
  const probe = createServer().listen(0, '127.0.0.1');
  await once(probe, 'listening');
  const address = probe.address();
  probe.close();
  return typeof address === 'object' && address !== null ? address.port : 0;
}
