// What can be seen of clients from here: the file of key providers that they read, and the providers in it.
// https://github.com/containers/ocicrypt/blob/main/docs/keyprovider.md

import { existsSync } from 'node:fs';
import { connect } from 'node:net';
import { delimiter, isAbsolute, join } from 'node:path';
import { isLoopback } from '../../base/address.ts';
import { asOcicryptError, OcicryptError } from '../../base/errors.ts';
import { namePath } from '../../base/shown.ts';
import { describeTarget } from '../../client/grpc-client.ts';
import { runProviderCommand } from '../../client/provider-command.ts';
import { type ConfiguredProvider, readProviderConfig } from '../../client/provider-config.ts';
import { socketWeakness } from '../../client/socket-trust.ts';
import { isExecutable } from '../../node/files.ts';
import type { Finding } from '../../node/finding.ts';

const VARIABLE = 'OCICRYPT_KEYPROVIDER_CONFIG';

/**
 * Looks at everything and changes nothing: commands are run once with a request that holds nothing, sockets are
 * connected to and closed again.
 */
export async function examineClients(environment: NodeJS.ProcessEnv): Promise<readonly Finding[]> {
  const file = environment[VARIABLE];
  if (file) return examineFile(VARIABLE, file, environment);
  const hint = `ocicrypt-kms config ocicrypt > ocicrypt.json && export ${VARIABLE}=$PWD/ocicrypt.json`;
  return [{ level: 'warn', subject: VARIABLE, message: 'is not set here: clients would call no provider', hint }];
}

/** One configuration of key providers, and each of them as it is called with these variables. */
export async function examineFile(
  subject: string,
  file: string,
  environment: NodeJS.ProcessEnv,
): Promise<readonly Finding[]> {
  const hint = 'ocicrypt-kms config ocicrypt prints one that works';
  if (!existsSync(file)) {
    const message = `names ${namePath(file)}, which is not there: clients say nothing and call no provider`;
    return [{ level: 'fail', subject, message, hint }];
  }
  let providers: ReadonlyMap<string, () => ConfiguredProvider>;
  try {
    providers = await readProviderConfig(file);
  } catch (error) {
    return [failure(subject, error)];
  }
  if (providers.size === 0) return [{ level: 'fail', subject, message: `${namePath(file)} names no provider`, hint }];
  const message = `${namePath(file)} names ${providers.size} provider(s)`;
  const findings: Finding[] = [{ level: 'ok', subject, message }];
  // One after the other: commands that are started at once make each other look slow.
  for (const [name, read] of providers) {
    findings.push(...(await examineProvider(`provider ${name}`, read, environment)));
  }
  return findings;
}

function failure(subject: string, error: unknown): Finding {
  const { message, hint } = asOcicryptError(error);
  return { level: 'fail', subject, message, hint };
}

async function examineProvider(
  subject: string,
  read: () => ConfiguredProvider,
  environment: NodeJS.ProcessEnv,
): Promise<readonly Finding[]> {
  let provider: ConfiguredProvider;
  try {
    provider = read();
  } catch (error) {
    return [failure(subject, error)];
  }
  if (provider.kind === 'grpc') return examineTarget(subject, provider);
  const findings = await examineCommand(subject, provider, environment);
  if (!provider.hasIdleServer) return findings;
  const message = 'has both cmd and grpc: clients take cmd';
  return [{ level: 'warn', subject, message, hint: 'leave one out' }, ...findings];
}

type CommandProvider = Extract<ConfiguredProvider, { kind: 'command' }>;
type ServerProvider = Extract<ConfiguredProvider, { kind: 'grpc' }>;

/** Longer than a busy machine takes to start a command. */
const PATIENCE_FOR_COMMAND_MILLISECONDS = 10_000;

/** Asks for what no provider can do, and expects that it says so: a command that does anything else is none of ours. */
async function examineCommand(
  subject: string,
  { path, words }: CommandProvider,
  environment: NodeJS.ProcessEnv,
): Promise<readonly Finding[]> {
  const fail = (message: string, hint?: string): readonly Finding[] => [{ level: 'fail', subject, message, hint }];
  const places = path.includes('/') ? [path] : (environment.PATH ?? '').split(delimiter).map((one) => join(one, path));
  const executable = places.find(isExecutable);
  if (executable === undefined) {
    return fail(`cmd ${namePath(path)} is not an executable file`, 'correct the path, or chmod 755 it');
  }
  const hint = 'write "args": ["keyprovider"]; ocicrypt-kms config ocicrypt prints a file that works';
  try {
    const signal = AbortSignal.timeout(PATIENCE_FOR_COMMAND_MILLISECONDS);
    await runProviderCommand({ path: executable, words }, new Uint8Array(), signal);
    return fail(`cmd ${namePath(path)} ends well without a request: it is no key provider with these args`, hint);
  } catch (error) {
    const { code, message, hint: told } = explain(error, path);
    // The code of commands that are not ours.
    if (code === 'unavailable') {
      const next = 'if it is a key provider of others, ignore this; ocicrypt-kms doctor IMAGE asks it for a key';
      return [{ level: 'warn', subject, message: `does not answer as ocicrypt-kms does: ${message}`, hint: next }];
    }
    if (code !== 'bad-input') return fail(`cannot answer: ${code}: ${message}`, told ?? hint);
  }
  if (isAbsolute(path)) return [{ level: 'ok', subject, message: `runs ${path}, which answers` }];
  const whole = 'containerd runs it from /, with a PATH of its own: write the whole path';
  return [{ level: 'warn', subject, message: `runs ${path}, found as ${executable}`, hint: whole }];
}

function explain(error: unknown, path: string): OcicryptError {
  if (error instanceof OcicryptError) return error;
  return new OcicryptError('deadline-exceeded', `${namePath(path)} waits although its request has ended`, {
    hint: 'write "args": ["keyprovider"]: a server is configured by its address, as "grpc"',
  });
}

async function examineTarget(subject: string, { target, refusal }: ServerProvider): Promise<readonly Finding[]> {
  const shown = describeTarget(target);
  const fail = (message: string, hint: string): readonly Finding[] => [{ level: 'fail', subject, message, hint }];
  const problem = await tryConnect(target);
  if (problem === 'ECONNREFUSED' && target.kind === 'unix') {
    return fail(`no server listens on ${shown}: the socket is left over`, 'start it: ocicrypt-kms serve takes it over');
  }
  if (problem !== undefined) {
    return fail(`${shown} cannot be reached (${problem})`, 'start it with ocicrypt-kms serve, or correct the address');
  }
  const warn = (message: string, hint?: string): readonly Finding[] => [{ level: 'warn', subject, message, hint }];
  if (refusal !== undefined) return warn(refusal.message, refusal.hint);
  const weakness = target.kind === 'unix' ? socketWeakness(target.path) : undefined;
  if (weakness !== undefined) return fail(`${shown} is not trusted: ${weakness.problem}`, weakness.hint);
  if (target.kind === 'unix' || isLoopback(target.host))
    return [{ level: 'ok', subject, message: `listens on ${shown}` }];
  return warn(
    'uses TLS, which clients with ocicrypt before 1.3.0 ignore: they send layer keys in clear',
    'use a unix socket, or cmd with ocicrypt-kms keyprovider --remote',
  );
}

const PATIENCE_MILLISECONDS = 1000;

/** Undefined if somebody listens, else the system's code. */
function tryConnect(to: { readonly path: string } | { readonly host: string; readonly port: number }) {
  const { promise, resolve } = Promise.withResolvers<string | undefined>();
  const socket = connect({ ...to, timeout: PATIENCE_MILLISECONDS });
  socket.on('connect', () => resolve(undefined));
  socket.on('timeout', () => resolve('ETIMEDOUT'));
  socket.on('error', (error) => resolve('code' in error ? String(error.code) : 'unreachable'));
  return promise.finally(() => socket.destroy());
}
