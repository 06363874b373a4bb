/**
 * The clients that vendors publish for their own key services, driven by a test line by line.
 *
 *     const google = await startVendorClient('google', { HTTPS_PROXY: … });
 *     await google.ask('call', { rpc: 'Encrypt', request: { … } });
 *     await google.close();
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { fetchNodeClient, fetchPythonClient } from './fetched.ts';

export interface VendorClient {
  /** @throws VendorError with what the client raised */
  ask(method: string, parameters: object): Promise<unknown>;
  close(): Promise<void>;
}

/** What a client raised: its own name for it, and the members that it has. */
class VendorError extends Error {
  constructor(error: { readonly type: string; readonly message: string }) {
    super(error.message);
    Object.assign(this, error, { name: error.type });
  }
}

/** What runs a client, what its file's name ends with, and the variable that says where its packages are. */
const PYTHON = { program: 'python3', suffix: '.py', path: 'PYTHONPATH', fetchPackages: fetchPythonClient };
const NODE = { program: process.execPath, suffix: '.mjs', path: 'NODE_PATH', fetchPackages: fetchNodeClient };

/** @param vendor as in `vendors/VENDOR_client.py` or `.mjs`, and the packages in `.txt` beside it */
export async function startVendorClient(
  vendor: 'aws' | 'azure' | 'google' | 'google-node' | 'vault',
  environment: NodeJS.ProcessEnv,
): Promise<VendorClient> {
  const place = fileURLToPath(new URL(`vendors/${vendor}_client`, import.meta.url));
  const { program, suffix, path, fetchPackages } = vendor === 'google-node' ? NODE : PYTHON;
  const packages = { [path]: await fetchPackages(`${place}.txt`) };
  const child = spawn(program, [place + suffix], {
    env: { PATH: process.env.PATH, HOME: '/nonexistent', PYTHONDONTWRITEBYTECODE: '1', ...packages, ...environment },
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  let complaints = '';
  child.stderr.on('data', (chunk: Buffer) => (complaints += chunk));
  const closed = once(child, 'close');
  const end = () => child.kill('SIGKILL');
  process.once('exit', end);
  const replies = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  let previous: Promise<unknown> = Promise.resolve();

  async function exchange(method: string, parameters: object): Promise<unknown> {
    child.stdin.write(`${JSON.stringify({ method, parameters })}\n`);
    const { done, value } = await replies.next();
    if (done === true) throw new Error(`the client of ${vendor} has ended:\n${complaints}`);
    const reply = JSON.parse(value);
    if (reply.error !== undefined) throw new VendorError(reply.error);
    return reply.result;
  }

  return {
    ask(method, parameters) {
      const next = previous.then(() => exchange(method, parameters));
      previous = next.catch(() => {});
      return next;
    },
    async close() {
      end();
      await closed;
      process.off('exit', end);
    },
  };
}

/** A member of an answer, of bytes in base64. */
export function bytesOf(answer: unknown, name: string): Buffer {
  return Buffer.from(textOf(answer, name), 'base64');
}

/** A member of an answer, of text. */
export function textOf(answer: unknown, name: string): string {
  assert.ok(typeof answer === 'object' && answer !== null);
  const value = new Map<string, unknown>(Object.entries(answer)).get(name);
  assert.ok(typeof value === 'string', `${name} of ${JSON.stringify(answer)}`);
  return value;
}
