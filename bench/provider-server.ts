// Servers of providers, ours and others, as they are measured: started on a port of the loopback, and called.

import { type ChildProcess, spawn } from 'node:child_process';
import { encodeBytesField } from '../src/base/grpc.ts';
import { callOnce } from '../src/client/grpc-client.ts';
import { findPort, waitUntilListening } from '../test/peers/started.ts';
import { EXECUTABLE } from './build.ts';
import type { GoogleWorld } from './google-world.ts';

export type Server = { readonly port: number; readonly child: ChildProcess };
/** Ours first, then theirs. */
export type Pair<Value> = readonly [ours: Value, theirs: Value];

/** Longer than any server takes for a call. */
const PATIENCE_MILLISECONDS = 70_000;

/**
 * Starts our server and another (`COMMAND --option`, split at spaces) that takes the reference server's options, both with
 * the world's key and a service account. They end with this process.
 */
export async function startServers(
  { key, credentials, environments }: GoogleWorld,
  { peer, home, options = [] }: { readonly peer: string; readonly home: string; readonly options?: readonly string[] },
): Promise<Pair<Server>> {
  const [theirs = '', ...words] = peer.split(' ');
  const common = [`--adc=${credentials['service account']}`, `--kmsURI=${key}`];
  const env = { PATH: process.env.PATH, HOME: home, ...environments["the machine's roots"] };
  const start = async (file: string, more: readonly string[], host: string): Promise<Server> => {
    const port = await findPort();
    const child = spawn(file, [...more, ...common, `--grpcport=${host}:${port}`], { stdio: 'ignore', env });
    // This process does not wait for it.
    child.unref();
    process.once('exit', () => child.kill('SIGKILL'));
    await waitUntilListening(port);
    return { port, child };
  };
  return [await start(EXECUTABLE, ['serve', ...options], ''), await start(theirs, words, '127.0.0.1')];
}

/** One call over a connection of its own, as clients make it. @throws OcicryptError where the server refuses */
export async function callServer({ port }: Pick<Server, 'port'>, method: string, request: Uint8Array): Promise<void> {
  await callOnce({ kind: 'tcp', host: '127.0.0.1', port }, undefined, {
    ...{ method: `/keyprovider.KeyProviderService/${method}`, message: encodeBytesField(request) },
    ...{ timeout: PATIENCE_MILLISECONDS, maximumReply: 65_536, signal: AbortSignal.timeout(PATIENCE_MILLISECONDS) },
  });
}
