// Starts the server in this process, with one key file, for tests of what clients see.

import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { type ClientHttp2Session, connect as connectHttp2, type IncomingHttpHeaders } from 'node:http2';
import { connect as connectSocket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import type { Address } from '../../src/base/address.ts';
import { asOcicryptError } from '../../src/base/errors.ts';
import { decodeBytesField, encodeBytesField, encodeFrame } from '../../src/base/grpc.ts';
import type { KeyUri } from '../../src/base/key-uri.ts';
import { callOnce, type GrpcTls } from '../../src/client/grpc-client.ts';
import type { Kek } from '../../src/kms/kek.ts';
import { createKeyfile, openKeyfile } from '../../src/kms/keyfile/key.ts';
import { DEFAULT_LIMITS } from '../../src/provider/attempts.ts';
import { createProvider, type Provider, type ProviderOptions } from '../../src/provider/handle.ts';
import { parseListenAddress, parseListenTarget } from '../../src/server/address.ts';
import { Instruments } from '../../src/server/instruments.ts';
import { DEFAULT_SERVER_LIMITS, type ServerLimits } from '../../src/server/limits.ts';
import type { ListenTarget } from '../../src/server/listener.ts';
import { type ServerOptions, type ServerPolicy, startServer } from '../../src/server/start.ts';
import type { RunningServer, ServerLog } from '../../src/server/upkeep.ts';
import { CALL_HEADERS } from './raw-http2.ts';

/** What a test changes of the usual server: one unix socket, one key file, default limits. */
export type RunningOptions = {
  readonly listen?: readonly (string | ListenTarget)[];
  readonly limits?: Partial<ServerLimits>;
  readonly provider?: Partial<ProviderOptions>;
  readonly server?: Partial<ServerOptions>;
  readonly policy?: Partial<ServerPolicy>;
  /** Names in client certificates that may call. */
  readonly clients?: readonly string[];
  /** In place of the key file. */
  readonly kek?: Kek;
};

/** A server, its first address as a target for clients, and what it has said. */
export type Running = {
  readonly server: RunningServer;
  readonly target: Address;
  readonly targets: readonly Address[];
  readonly provider: Provider;
  readonly key: string;
  readonly directory: string;
  readonly instruments: Instruments;
  readonly said: readonly string[];
};

/** A directory of the test's own, removed after it. */
export async function temporaryDirectory(t: TestContext): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'server-'));
  t.after(() => rm(directory, { recursive: true, force: true }));
  return directory;
}

/** Starts a server that ends with the test. */
export async function startRunning(t: TestContext, options: RunningOptions = {}): Promise<Running> {
  const directory = await temporaryDirectory(t);
  const path = join(directory, 'key');
  const key = options.kek?.key ?? createKeyfile(path);
  const kek = options.kek ?? openKeyfile(path);
  const uri: KeyUri = { scheme: 'keyfile', path };
  const provider = createProvider({
    openKek: async () => kek,
    rules: [{ kind: 'key', uri }],
    callerKeysAllowed: false,
    names: { configured: undefined, fallback: 'grpc-keyprovider' },
    ...options.provider,
  });
  const said: string[] = [];
  const log: ServerLog = { info: (_fields, text) => said.push(text), warn: (_fields, text) => said.push(text) };
  const instruments = new Instruments();
  const server = await startServer({
    listen: (options.listen ?? [`unix://${directory}/s`]).map((one) =>
      typeof one === 'string' ? parseListenTarget(one) : one,
    ),
    listener: { access: { mode: 0o600, group: undefined }, tls: undefined, insecurePlaintext: true },
    policy: {
      service: { provider, clients: (options.clients ?? []).map((name) => ({ name, provider })) },
      probes: [{ open: async () => kek, wrap: true, unwrap: true, limits: DEFAULT_LIMITS }],
      close: async () => undefined,
      ...options.policy,
    },
    rereadPolicy: async () => assert.fail('no policy was to be read again'),
    limits: { ...DEFAULT_SERVER_LIMITS, ...options.limits },
    instruments,
    status: undefined,
    reopenLogs: () => false,
    log,
    ...options.server,
  });
  t.after(() => server.close());
  const targets = server.addresses.filter((address) => !address.startsWith('ttrpc:')).map(targetOf);
  const [target = { kind: 'unix', path: '' }] = targets;
  return { server, target, targets, provider, key, directory, instruments, said };
}

/** One key-provider request through gRPC, as a client makes it. */
export async function callKeyProvider(target: Address, request: Uint8Array, tls?: GrpcTls): Promise<Uint8Array> {
  const reply = await callOnce(target, tls, {
    method: methodOf(request),
    message: encodeBytesField(request),
    timeout: 10_000,
    maximumReply: 1024 * 1024,
    signal: AbortSignal.timeout(15_000),
  });
  return decodeBytesField(reply);
}

/** The method that clients call with this request. */
function methodOf(request: Uint8Array): string {
  const isUnwrap = new TextDecoder().decode(request).includes('keyunwrap"');
  return `/keyprovider.KeyProviderService/${isUnwrap ? 'UnWrapKey' : 'WrapKey'}`;
}

/** What grpc.health.v1 says of a service: its status, or the code of the error. */
export async function checkHealth(target: Address, service: string): Promise<number | string> {
  try {
    const reply = await callOnce(target, undefined, {
      method: '/grpc.health.v1.Health/Check',
      message: encodeBytesField(new TextEncoder().encode(service)),
      timeout: 5000,
      maximumReply: 100,
      signal: AbortSignal.timeout(5000),
    });
    return reply[1] ?? 0;
  } catch (error) {
    return asOcicryptError(error).code;
  }
}

/** Makes all calls at once, 25 on a connection; resolves to the gRPC statuses and reply frames. */
export async function callMany(path: string, requests: readonly Uint8Array[]): Promise<readonly Reply[]> {
  const perConnection = 25;
  const sessions = Array.from({ length: Math.ceil(requests.length / perConnection) }, () =>
    connectHttp2('http://localhost', { createConnection: () => connectSocket(path) }),
  );
  try {
    return await Promise.all(
      requests.map((request, index) => {
        const session = sessions[Math.floor(index / perConnection)];
        if (session === undefined) throw new Error('no session');
        return callOn(session, request);
      }),
    );
  } finally {
    for (const session of sessions) session.destroy();
  }
}

export type Reply = { readonly status: string; readonly frame: string };

/** One call on a connection that is open. */
export function callOn(session: ClientHttp2Session, request: Uint8Array): Promise<Reply> {
  return new Promise((resolve) => {
    const stream = session.request({ ...CALL_HEADERS, ':path': methodOf(request) });
    let status = 'none';
    const take = (headers: IncomingHttpHeaders) => {
      status = String(headers['grpc-status'] ?? status);
    };
    const chunks: Buffer[] = [];
    stream.on('response', take);
    stream.on('trailers', take);
    stream.on('data', (chunk: Buffer) => chunks.push(chunk));
    stream.on('error', () => {});
    stream.on('close', () => resolve({ status, frame: Buffer.concat(chunks).toString('hex') }));
    stream.end(encodeFrame(encodeBytesField(request)));
  });
}

/** A request that wraps a layer key to the server's only key. */
export function wrapRequest(symkey = 'BnVzTgWrcR9bHku9tvpk6fUEV5jb+XiEAAQVpCXLvAo='): Uint8Array {
  const optsdata = btoa(
    JSON.stringify({
      symkey,
      digest: `sha256:${'ac'.repeat(32)}`,
      cipheroptions: { nonce: 'IXIaaf2jpVLOTlXNX8aRWw==' },
    }),
  );
  return bytes({
    op: 'keywrap',
    keywrapparams: { ec: { Parameters: { 'grpc-keyprovider': [btoa('Enabled')] }, DecryptConfig: null }, optsdata },
    keyunwrapparams: { dc: null, annotation: null },
  });
}

/** A request that unwraps what a wrap answered with. */
export function unwrapRequest(wrapReply: Uint8Array): Uint8Array {
  const { keywrapresults } = JSON.parse(new TextDecoder().decode(wrapReply));
  return bytes({
    op: 'keyunwrap',
    keywrapparams: { ec: null, optsdata: null },
    keyunwrapparams: { dc: { Parameters: null }, annotation: keywrapresults.annotation },
  });
}

/** The address that a server says, as a target. */
function targetOf(address: string): Address {
  const parsed = parseListenAddress(address);
  return parsed.kind === 'unix' ? parsed : { ...parsed, host: parsed.host };
}

function bytes(value: unknown): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(value));
}
