// What can be seen of a client's set-up from here: its configuration of key providers, and containerd's.
// https://github.com/containers/ocicrypt/blob/main/docs/keyprovider.md

import { accessSync, constants, statSync } from 'node:fs';
import { connect } from 'node:net';
import { delimiter, isAbsolute, join } from 'node:path';
import { readPublicFile } from '../base/secret-file.ts';
import { namePath } from '../base/shown.ts';
import { findContainerdTraps } from './doctor-containerd.ts';
import type { Finding } from './doctor-finding.ts';

/** Where to look; the machine's own places but in tests. */
export type SetupPlaces = {
  readonly environment: NodeJS.ProcessEnv;
  readonly containerdConfig: string;
};

const VARIABLE = 'OCICRYPT_KEYPROVIDER_CONFIG';
const MAXIMUM_FILE = 1024 * 1024;

/** Looks at everything and changes nothing; sockets are connected to and closed again. */
export async function examineSetup(places: SetupPlaces): Promise<readonly Finding[]> {
  return [...(await examineVariable(places.environment)), ...findContainerdTraps(places.containerdConfig)];
}

async function examineVariable(environment: NodeJS.ProcessEnv): Promise<readonly Finding[]> {
  const file = environment[VARIABLE];
  if (!file) {
    const hint = `ocicrypt-kms config ocicrypt > ocicrypt.json && export ${VARIABLE}=$PWD/ocicrypt.json`;
    return [{ level: 'warn', subject: VARIABLE, message: 'is not set here: clients would call no provider', hint }];
  }
  const { providers, problem } = readProviders(file);
  if (problem !== undefined) return [problem];
  const findings = await Promise.all([...providers].map(([name, entry]) => examineProvider(name, entry, environment)));
  return [
    { level: 'ok', subject: VARIABLE, message: `${namePath(file)} names ${providers.size} provider(s)` },
    ...findings.flat(),
  ];
}

type Providers = { readonly providers: ReadonlyMap<string, Json>; readonly problem?: Finding };

function readProviders(file: string): Providers {
  const fail = (message: string, hint: string): Providers => ({
    providers: new Map(),
    problem: { level: 'fail', subject: VARIABLE, message, hint },
  });
  const hint = 'ocicrypt-kms config ocicrypt prints one that works';
  let text: string;
  try {
    const bytes = readPublicFile(file, 'the configuration of providers', MAXIMUM_FILE);
    if (bytes.length > MAXIMUM_FILE) return fail(`${namePath(file)} is too large to be a configuration`, hint);
    text = new TextDecoder().decode(bytes);
  } catch {
    return fail(`${namePath(file)} cannot be read: clients say nothing and call no provider`, hint);
  }
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    return fail(`${namePath(file)} is not JSON`, hint);
  }
  const providers = isJson(json) ? json['key-providers'] : undefined;
  if (!isJson(providers) || Object.keys(providers).length === 0)
    return fail(`${namePath(file)} has no "key-providers"`, hint);
  return { providers: new Map(Object.entries(providers).map(([name, entry]) => [name, isJson(entry) ? entry : {}])) };
}

type Json = Readonly<Record<string, unknown>>;

function isJson(value: unknown): value is Json {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

async function examineProvider(name: string, entry: Json, environment: NodeJS.ProcessEnv): Promise<readonly Finding[]> {
  const subject = `provider ${name}`;
  const findings: Finding[] = [];
  const { cmd, grpc } = entry;
  if (cmd !== undefined && cmd !== null && grpc) {
    findings.push({
      level: 'warn',
      subject,
      message: 'has both cmd and grpc: clients take cmd',
      hint: 'leave one out',
    });
  }
  if (isJson(cmd)) return [...findings, examineCommand(subject, cmd, environment)];
  if (typeof grpc === 'string' && grpc !== '') return [...findings, ...(await examineTarget(subject, grpc, entry))];
  const message =
    'path' in entry
      ? 'has path and args without cmd around them: clients say "Unsupported keyprovider invocation"'
      : 'has neither cmd nor grpc';
  return [
    { level: 'fail', subject, message, hint: 'write {"cmd": {"path": "/…/ocicrypt-kms", "args": ["keyprovider"]}}' },
  ];
}

function examineCommand(subject: string, { path, args }: Json, environment: NodeJS.ProcessEnv): Finding {
  const fail = (message: string, hint: string): Finding => ({ level: 'fail', subject, message, hint });
  if (typeof path !== 'string' || path === '') return fail('cmd has no path', 'name the executable');
  if (args !== undefined && args !== null && !(Array.isArray(args) && args.every((one) => typeof one === 'string'))) {
    return fail('cmd has args that are not a list of texts', 'write "args": ["keyprovider"]');
  }
  const places = path.includes('/') ? [path] : (environment.PATH ?? '').split(delimiter).map((one) => join(one, path));
  const executable = places.find(isExecutable);
  if (executable === undefined)
    return fail(`cmd ${path} is not an executable file`, 'correct the path, or chmod 755 it');
  if (isAbsolute(path)) return { level: 'ok', subject, message: `runs ${path}` };
  const hint = 'containerd runs it from /, with a PATH of its own: write the whole path';
  return { level: 'warn', subject, message: `runs ${path}, found as ${executable}`, hint };
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile();
  } catch {
    return false;
  }
}

/** The forms that grpc-go takes, as measured: `host:port`, `dns:///host:port`, `unix:///path`, `unix:/path`. */
const UNIX = /^unix:(?:\/\/(?=\/))?(\/.+)$/;
const HOST = /^(?:dns:\/\/\/)?(\[[0-9A-Fa-f:]+\]|[A-Za-z0-9.-]+):(\d{1,5})$/;

async function examineTarget(subject: string, target: string, entry: Json): Promise<readonly Finding[]> {
  const fail = (message: string, hint: string): readonly Finding[] => [{ level: 'fail', subject, message, hint }];
  const path = UNIX.exec(target)?.[1];
  if (path !== undefined) {
    const problem = await tryConnect({ path });
    if (problem === undefined) return [{ level: 'ok', subject, message: `listens on ${path}` }];
    if (problem === 'ECONNREFUSED') {
      return fail(`nobody listens on ${path}: the socket is left over`, 'start it: ocicrypt-kms serve takes it over');
    }
    return fail(`${path} cannot be reached (${problem})`, 'start it with ocicrypt-kms serve, or correct the path');
  }
  const [, host, port] = HOST.exec(target) ?? [];
  if (host === undefined || port === undefined) {
    return fail(`grpc ${target} is no target that clients take`, 'write unix:///PATH or HOST:PORT');
  }
  const bare = host.replace(/^\[(.*)\]$/, '$1');
  const local = bare === 'localhost' || bare === '::1' || bare.startsWith('127.');
  const problem = await tryConnect({ host: bare, port: Number(port) });
  if (problem !== undefined)
    return fail(`${target} cannot be reached (${problem})`, 'start it, or correct the address');
  if (local) return [{ level: 'ok', subject, message: `listens on ${target}` }];
  const message = isJson(entry['grpc-tls'])
    ? 'uses TLS, which clients with ocicrypt before 1.3.0 ignore: they send layer keys in clear'
    : 'sends layer keys in clear over the network';
  const hint = 'use a unix socket, or cmd with ocicrypt-kms keyprovider --remote';
  return [{ level: 'warn', subject, message, hint }];
}

const PATIENCE = 1000;

/** Undefined where somebody listens, else the system's code. */
function tryConnect(to: { readonly path: string } | { readonly host: string; readonly port: number }) {
  const { promise, resolve } = Promise.withResolvers<string | undefined>();
  const socket = connect({ ...to, timeout: PATIENCE });
  socket.on('connect', () => resolve(undefined));
  socket.on('timeout', () => resolve('ETIMEDOUT'));
  socket.on('error', (error) => resolve('code' in error ? String(error.code) : 'unreachable'));
  return promise.finally(() => socket.destroy());
}
