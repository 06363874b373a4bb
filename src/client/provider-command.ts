// Runs another key provider's command: the request in a pipe, the reply in a pipe.

import { type ChildProcess, spawn } from 'node:child_process';
import { concatBytes, wipe } from '../base/bytes.ts';
import { isErrorCode, OcicryptError } from '../base/errors.ts';

const MAXIMUM_REPLY = 1024 * 1024;
const MAXIMUM_COMPLAINT = 4096;

/**
 * Runs a command for one request, in its caller's environment and directory, as ocicrypt does.
 *
 * @param signal ends the command
 * @returns what it wrote to standard output; may hold a key
 * @throws OcicryptError with the code that one of our own commands names; `unavailable` for others that fail,
 *   `configuration` if it cannot be started
 */
export async function runProviderCommand(
  command: { readonly path: string; readonly words: readonly string[] },
  request: Uint8Array,
  signal: AbortSignal,
): Promise<Uint8Array> {
  signal.throwIfAborted();
  const child: ChildProcess = spawn(command.path, command.words, { stdio: ['pipe', 'pipe', 'pipe'] });
  const ended = Promise.withResolvers<number | null>();
  child.once('error', ended.reject);
  child.once('close', ended.resolve);
  // Not only the command itself: what it has started may hold its pipes open, and dies of their end.
  const kill = () => {
    child.kill('SIGKILL');
    child.stdout?.destroy();
    child.stderr?.destroy();
    ended.resolve(null);
  };
  signal.addEventListener('abort', kill, { once: true });
  const output: Uint8Array[] = [];
  let length = 0;
  let complaint = '';
  try {
    // It has no streams if it could not be started.
    child.stdout?.on('data', (chunk: Uint8Array) => {
      output.push(chunk);
      length += chunk.length;
      if (length > MAXIMUM_REPLY) kill();
    });
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      if (complaint.length < MAXIMUM_COMPLAINT) complaint += text;
    });
    // A command that ends without reading breaks the pipe; its exit says why.
    child.stdin?.on('error', () => undefined).end(Buffer.from(request));
    const status = await ended.promise.catch((cause: unknown) => {
      throw new OcicryptError('configuration', `cannot run the key provider ${command.path}`, {
        cause,
        hint: 'check its path in the file that OCICRYPT_KEYPROVIDER_CONFIG names',
      });
    });
    signal.throwIfAborted();
    if (status === 0) return concatBytes(...output);
    throw failure(command.path, status, complaint);
  } finally {
    signal.removeEventListener('abort', kill);
    wipe(...output);
  }
}

function failure(path: string, status: number | null, complaint: string): OcicryptError {
  const line = complaint.trim().split('\n').at(-1)?.slice(0, 1000) ?? '';
  const [, code = '', text = ''] = /^(?:ocicrypt-kms|kms_oci_crypt): ([a-z-]+): (.*)$/.exec(line) ?? [];
  if (isErrorCode(code)) return new OcicryptError(code, text);
  return new OcicryptError('unavailable', `key provider ${path} failed (exit ${status ?? 'by a signal'}): ${line}`);
}
