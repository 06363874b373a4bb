// The only code that looks for registry credentials: the auth files of podman and docker, and their helpers.
// containers-auth.json(5); https://docs.docker.com/reference/cli/docker/login/#credential-helper-protocol

import { homedir } from 'node:os';
import { join } from 'node:path';
import { decodeBase64, wipe } from '../../../base/bytes.ts';
import { asOcicryptError, OcicryptError, systemCode } from '../../../base/errors.ts';
import { type Helper, runHelper } from '../../../base/helper.ts';
import { asObject, asText, type JsonObject, type JsonValue, parseJson, readObject } from '../../../base/json.ts';
import { findMember } from '../../../base/json-members.ts';
import { readPublicFile } from '../../../base/secret-file.ts';
import { setting } from '../../../base/setting.ts';
import { showPath } from '../../../base/shown.ts';
import { DOCKER_HUB, normalizeHost } from '../../model/reference.ts';

/** A name and password, a token that is exchanged for others (OAuth 2 refresh token), or one for the registry itself. */
export type RegistryCredentials =
  | { readonly kind: 'password'; readonly username: string; readonly password: string }
  | { readonly kind: 'identity-token' | 'registry-token'; readonly token: string };

/** An auth file that is none. Its rows count; a helper that it names is not run. */
export type AuthDocument = {
  /** For errors. */
  readonly name: string;
  readonly content: Uint8Array;
};

/** Where the logins of registries are found. */
export type CredentialSettings = {
  /** The one file to look at (`--authfile`); it must be there. */
  readonly authFile?: string | undefined;
  /** What is looked at before any file: the content of such files, from others than the operator. */
  readonly authDocuments?: readonly AuthDocument[] | undefined;
  readonly environment?: NodeJS.ProcessEnv | undefined;
};

/**
 * The credentials for exactly this host, or for a part of it that holds `name`: `HOST/a/b` before `HOST/a` before `HOST`,
 * in any of the spellings that skopeo, podman and docker take for it. Never those of another host that looks alike.
 *
 * @param host as in the image's name (`HOST` or `HOST:PORT`)
 * @param signal ends a helper
 * @throws OcicryptError `configuration` for a file that cannot be read or a helper that fails, `deadline-exceeded` for one
 * that does not end, `unauthenticated` for one that writes too much, `unavailable` for one that cannot be started now
 */
export async function findCredentials(
  host: string,
  name: string,
  settings: CredentialSettings = {},
  signal: AbortSignal = new AbortController().signal,
): Promise<RegistryCredentials | undefined> {
  for (const document of settings.authDocuments ?? []) {
    const rows = rowsOf(parseAuthFile(document.content, document.name), document.name);
    const found = lookUpRow(rows, host, name, document.name);
    if (found !== undefined) return found;
  }
  const environment = settings.environment ?? process.env;
  const named = settings.authFile ?? environment.REGISTRY_AUTH_FILE;
  for (const path of named ? [named] : defaultFiles(environment)) {
    const file = await readAuthFile(path, Boolean(named));
    if (file === undefined) continue;
    const found = await lookUp(file, host, name, path, signal);
    if (found !== undefined) return found;
  }
  // What docker wrote before it had config.json, which skopeo and podman read last: the rows alone.
  const old = join(homeOf(environment), '.dockercfg');
  const rows = named ? undefined : await readAuthFile(old, false);
  return rows && lookUpRow(rows, host, name, showPath(old));
}

const MAXIMUM_AUTH_FILE_BYTES = 4 * 1024 * 1024;
const HELPER_MILLISECONDS = 30_000;

function defaultFiles(environment: NodeJS.ProcessEnv): readonly string[] {
  const home = homeOf(environment);
  const runtime = environment.XDG_RUNTIME_DIR;
  return [
    runtime ? join(runtime, 'containers/auth.json') : `/run/containers/${process.getuid?.() ?? 0}/auth.json`,
    join(environment.XDG_CONFIG_HOME || join(home, '.config'), 'containers/auth.json'),
    join(environment.DOCKER_CONFIG || join(home, '.docker'), 'config.json'),
  ];
}

function homeOf(environment: NodeJS.ProcessEnv): string {
  return environment.HOME || homedir();
}

async function readAuthFile(path: string, mustExist: boolean): Promise<JsonObject | undefined> {
  let bytes: Uint8Array;
  try {
    bytes = readPublicFile(path, 'the auth file', MAXIMUM_AUTH_FILE_BYTES);
  } catch (cause) {
    if (!(cause instanceof OcicryptError)) throw cause;
    const isAbsent = cause.code === 'not-found' || systemCode(cause.cause) === 'EACCES';
    if (isAbsent && !mustExist) return undefined;
    throw cause.with({ code: 'configuration', hint: `check ${setting('authFile')} and REGISTRY_AUTH_FILE` });
  }
  return parseAuthFile(bytes, showPath(path));
}

function parseAuthFile(bytes: Uint8Array, what: string): JsonObject | undefined {
  try {
    return asObject(parseJson(bytes, 'the auth file'));
  } catch (cause) {
    throw new OcicryptError('configuration', `${what} is no auth file`, {
      cause,
      hint: 'podman login or docker login writes one',
    });
  }
}

/** Helpers know hosts alone, and come first, as in skopeo. */
async function lookUp(
  file: JsonObject,
  host: string,
  name: string,
  path: string,
  signal: AbortSignal,
): Promise<RegistryCredentials | undefined> {
  const spellings = host === DOCKER_HUB ? DOCKER_HUB_SPELLINGS : [host, `https://${host}`];
  const helpers = asObject(member(file, 'credHelpers', path));
  for (const spelling of spellings) {
    const helper = asText(helpers?.get(spelling));
    const found = helper === undefined ? undefined : await askHelper(helper, spelling, signal);
    if (found !== undefined) return found;
  }
  const found = lookUpRow(rowsOf(file, path), host, name, showPath(path));
  if (found !== undefined) return found;
  const store = asText(member(file, 'credsStore', path));
  return store === undefined || store === ''
    ? undefined
    : askHelper(store, host === DOCKER_HUB ? DOCKER_HUB_SERVER : host, signal);
}

function rowsOf(file: JsonObject | undefined, what: string): JsonObject {
  return asObject(member(file, 'auths', what)) ?? new Map<string, JsonValue>();
}

function lookUpRow(rows: JsonObject, host: string, name: string, what: string): RegistryCredentials | undefined {
  for (const place of placesOf(host, name)) {
    // The row of exactly this spelling before others that mean the same.
    const others = [...rows.keys()].filter((row) => row !== place && normalizeRow(row) === place);
    for (const row of [place, ...others]) {
      const found = fromEntry(asObject(rows.get(row)), what);
      if (found !== undefined) return found;
    }
  }
  return undefined;
}

const DOCKER_HUB_SERVER = 'https://index.docker.io/v1/';
const DOCKER_HUB_SPELLINGS = [DOCKER_HUB, DOCKER_HUB_SERVER, 'index.docker.io', 'registry-1.docker.io'];

/** `HOST/a/b`, `HOST/a`, `HOST`. */
function placesOf(host: string, name: string): readonly string[] {
  const parts = [host, ...name.split('/')];
  return parts.map((_, index) => parts.slice(0, parts.length - index).join('/'));
}

/**
 * The place that a row is for, as docker and podman have written it over the years. An address is of its host, whatever
 * its path; `HOST/v1/` and `HOST/v2/` are where registries answer; any other path is a part of the registry.
 */
function normalizeRow(row: string): string {
  const address = /^https?:\/\/([^/]*)/.exec(row)?.[1];
  const place = address ?? row.replace(/\/v[12]\/?$/, '');
  const slash = place.indexOf('/');
  const host = slash < 0 ? place : place.slice(0, slash);
  return normalizeHost(host) + place.slice(host.length);
}

/** A token for the registry comes first, as with docker. Go's decoder passes over line breaks. */
function fromEntry(entry: JsonObject | undefined, what: string): RegistryCredentials | undefined {
  const own = asText(member(entry, 'registrytoken', what));
  if (own !== undefined && own !== '') return { kind: 'registry-token', token: own };
  const token = asText(member(entry, 'identitytoken', what));
  if (token !== undefined && token !== '') return { kind: 'identity-token', token };
  const auth = asText(member(entry, 'auth', what))?.replace(/[\r\n]/g, '');
  if (auth === undefined || auth === '') {
    const [username = '', password = ''] = [
      asText(member(entry, 'username', what)),
      asText(member(entry, 'password', what)),
    ];
    return username === '' || password === '' ? undefined : { kind: 'password', username, password };
  }
  const decoded = decodeBase64(new TextEncoder().encode(auth));
  const text = decoded === undefined ? '' : new TextDecoder().decode(decoded);
  const colon = text.indexOf(':');
  if (colon < 1)
    throw new OcicryptError('configuration', `${what} holds credentials that are no USER:PASSWORD in base64`, {
      hint: 'podman login or docker login writes them anew',
    });
  return { kind: 'password', username: text.slice(0, colon), password: text.slice(colon + 1).replace(/\0+$/, '') };
}

/** As podman, docker and their helpers find it. @param what names the whole in an error */
function member(object: JsonObject | undefined, name: string, what: string): JsonValue | undefined {
  try {
    return object && findMember(object, name);
  } catch (cause) {
    throw new OcicryptError('configuration', `${what} has ${name} in two spellings`, {
      cause,
      hint: 'keep one of them',
    });
  }
}

/** The helper is the user's own program: found in PATH, never named by a registry or an image. */
async function askHelper(name: string, host: string, signal: AbortSignal): Promise<RegistryCredentials | undefined> {
  const program = `docker-credential-${name}`;
  if (!/^[A-Za-z0-9._-]+$/.test(name))
    throw new OcicryptError('configuration', 'a credential helper has a name that is not allowed');
  const helper: Helper = {
    name: program,
    command: [program, 'get'],
    input: `${host}\n`,
    limit: HELPER_MILLISECONDS,
  };
  const { status, isStarted, output } = await runHelper(helper, signal).catch((error: unknown) => {
    const known = asOcicryptError(error);
    // What has taken all of this time does so again.
    throw known.code === 'deadline-exceeded' ? known.with({ retryable: false }) : known;
  });
  try {
    if (!isStarted)
      throw new OcicryptError('configuration', `cannot run ${program}`, { hint: 'install it or run podman login' });
    const hint = `run: echo ${host} | ${program} get`;
    if (status !== 0) {
      if (/credentials not found/i.test(new TextDecoder().decode(output))) return undefined;
      throw new OcicryptError('configuration', `${program} has no credentials for ${host} (exit ${status})`, { hint });
    }
    const answer = readObject(output);
    if (answer === undefined)
      throw new OcicryptError('configuration', `${program} does not answer with credentials for ${host}`, { hint });
    const username = asText(member(answer, 'Username', `answer of ${program}`));
    const secret = asText(member(answer, 'Secret', `answer of ${program}`));
    if (username === undefined || secret === undefined || secret === '') return undefined;
    if (username === '<token>') return { kind: 'identity-token', token: secret };
    return { kind: 'password', username, password: secret };
  } finally {
    wipe(output);
  }
}
