// Starts a real image registry (docker-registry) over TLS on loopback, with an authority of its own.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import process from 'node:process';
import { createInterface } from 'node:readline';
import { hash } from 'bcryptjs';
import { createCertificateAuthority } from '../fixtures/certificates.ts';
import { clientEnvironment } from './process.ts';
import { startTokenServer, type TokenServer, type TokenServerOptions } from './token-server.ts';
import { toolArgv } from './tools.ts';

/** A name and password that a registry asks for. */
export type Credentials = { readonly username: string; readonly password: string };

/** What to start: without credentials or a token server anybody may read and write. */
export type RegistryOptions = { readonly credentials?: Credentials; readonly tokens?: TokenServerOptions };

/** A running registry, empty at the start; its storage is a temporary directory that `stop` removes. */
export interface Registry {
  /** `127.0.0.1:PORT` */
  readonly host: string;
  /** The PEM file of its authority: for SSL_CERT_FILE, or our own `--ca`. */
  readonly authority: string;
  /** A directory that holds the authority alone: for skopeo's `--src-cert-dir` and `--dest-cert-dir`. */
  readonly certificateDirectory: string;
  readonly credentials?: Credentials;
  /** Who hands out tokens, where the registry asks for them. */
  readonly tokens?: TokenServer;
  /** `docker://127.0.0.1:PORT/NAME`; NAME may end in a tag or digest. */
  reference(name: string): string;
  stop(): Promise<void>;
}

/** Starts a registry, ready to serve when the promise resolves; throws with the registry's own words when it does not start. */
export async function startRegistry(options: RegistryOptions = {}): Promise<Registry> {
  const argv = await toolArgv('docker-registry');
  const directory = await mkdtemp(join(tmpdir(), 'registry-'));
  const certificateDirectory = join(directory, 'authority');
  const { certificate: authority, issue } = await createCertificateAuthority(certificateDirectory);
  const { certificate, privateKey } = await issue('../server', { usage: 'server' });
  const configuration = join(directory, 'config.yml');
  const passwords = join(directory, 'htpasswd');
  const { credentials } = options;
  const tokens = options.tokens && (await startTokenServer({ certificate, privateKey, authority }, options.tokens));
  if (credentials !== undefined) {
    await writeFile(passwords, `${credentials.username}:${await hash(credentials.password, 4)}\n`, { mode: 0o600 });
  }
  // JSON is YAML. Port 0: the registry says which port it was given, so no port is ever taken between two steps.
  const settings = {
    version: '0.1',
    log: { level: 'info', formatter: 'json', accesslog: { disabled: true } },
    storage: {
      filesystem: { rootdirectory: join(directory, 'storage') },
      delete: { enabled: true },
      maintenance: { uploadpurging: { enabled: false } },
    },
    http: { addr: '127.0.0.1:0', tls: { certificate, key: privateKey } },
    ...(credentials === undefined ? {} : { auth: { htpasswd: { realm: 'test', path: passwords } } }),
    ...(tokens === undefined ? {} : { auth: { token: tokens.forRegistry } }),
  };
  await writeFile(configuration, JSON.stringify(settings));

  const [command, ...args] = argv;
  const child = spawn(command, [...args, 'serve', configuration], {
    stdio: ['ignore', 'ignore', 'pipe'],
    env: clientEnvironment(),
  });
  const kill = () => void child.kill('SIGKILL');
  process.once('exit', kill);
  const stop = async () => {
    process.removeListener('exit', kill);
    tokens?.stop();
    if (child.exitCode === null && child.signalCode === null) {
      const ended = once(child, 'exit');
      child.kill('SIGKILL');
      await ended;
    }
    await rm(directory, { recursive: true, force: true });
  };
  try {
    const host = await listeningHost(child);
    return {
      ...{ host, authority, certificateDirectory, stop },
      ...(credentials === undefined ? {} : { credentials }),
      ...(tokens === undefined ? {} : { tokens }),
      reference: (name) => `docker://${host}/${name}`,
    };
  } catch (error) {
    await stop();
    throw error;
  }
}

/** Reads the log until the line that names the address, and keeps reading after it so that the pipe never fills. */
async function listeningHost(child: ChildProcess): Promise<string> {
  const { stderr } = child;
  if (stderr === null) throw new Error('the registry has no stderr');
  return new Promise((resolve, reject) => {
    let log = '';
    child.once('error', reject);
    const lines = createInterface({ input: stderr });
    lines.on('line', (line) => {
      const address = /listening on (127\.0\.0\.1:\d+)/.exec(line)?.[1];
      if (address !== undefined) resolve(address);
      log = `${log}${line}\n`.slice(-4096);
    });
    lines.once('close', () => reject(new Error(`docker-registry did not start: ${log.trim()}`)));
  });
}
