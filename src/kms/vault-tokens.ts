// Who we are to Vault: a token that is there already, or a login that gives one.
// https://developer.hashicorp.com/vault/docs/auth

import { join } from 'node:path';
import { wipe } from '../base/bytes.ts';
import { OcicryptError } from '../base/errors.ts';
import { type HttpResponse, parseRetryAfter } from '../base/http.ts';
import { asNumber, asObject, asText, type JsonObject, parseJson } from '../base/json.ts';
import { writeJson } from '../base/json-writer.ts';
import { readSecretFile } from '../base/secret-file.ts';
import { share } from '../base/share.ts';
import { showPath } from '../base/shown.ts';
import { type VaultConnection, vaultVariable } from './vault-connection.ts';

/** The ways to a token: one that is there, or a login of that name. */
export type VaultLogin = 'approle' | 'cert' | 'jwt' | 'kubernetes' | 'token';

export type VaultTokenSettings = {
  readonly login?: VaultLogin | undefined;
  readonly role?: string | undefined;
  readonly loginPath?: string | undefined;
  readonly credentialsFile?: string | undefined;
  /** The namespace that the login is in. */
  readonly namespace?: string | undefined;
  readonly environment: NodeJS.ProcessEnv;
};

/** Tokens are text: they go into a header, and the service says nothing else of their form. */
export interface VaultTokens {
  /**
   * The token to use; undefined where an agent adds its own.
   *
   * @throws OcicryptError `unauthenticated`, `configuration`, and those of a connection
   */
  current(signal: AbortSignal): Promise<string | undefined>;
  /** Another token than the one that was refused, or undefined where asking for one is of no use. */
  renewed(refused: string | undefined, signal: AbortSignal): Promise<string | undefined>;
}

const KUBERNETES_TOKEN = '/var/run/secrets/kubernetes.io/serviceaccount/token';
const MAXIMUM_CREDENTIAL_BYTES = 16 * 1024;
/** A new token that is refused has too few rights: another one would not have more. */
const NEW = 30_000;
/** The part of its life after which a token is not used any more. */
const USABLE = 0.9;
const MOUNT = /^[A-Za-z0-9_][A-Za-z0-9_.-]*(?:\/[A-Za-z0-9_][A-Za-z0-9_.-]*)*$/;

/** @throws OcicryptError `configuration` for a login that lacks something */
export function openVaultTokens(
  connection: VaultConnection,
  settings: VaultTokenSettings,
  now: () => number,
): VaultTokens {
  const { login = 'token' } = settings;
  return login === 'token' ? openFoundToken(connection, settings) : openLogin(connection, login, settings, now);
}

/** Read for each call: an agent's sink, or a person, may have renewed it. */
function openFoundToken({ viaAgent }: VaultConnection, settings: VaultTokenSettings): VaultTokens {
  const find = () => {
    const token = findToken(settings);
    if (token === undefined && !viaAgent) {
      throw new OcicryptError('unauthenticated', 'there is no token for Vault', {
        hint: 'log in with: vault login (or bao login), set VAULT_TOKEN, or choose another --vault-login',
      });
    }
    return token;
  };
  return {
    current: async () => find(),
    async renewed(refused) {
      const token = find();
      return token === refused ? undefined : token;
    },
  };
}

function findToken({ credentialsFile, environment }: VaultTokenSettings): string | undefined {
  if (credentialsFile !== undefined) return readCredential(credentialsFile, 'the token file');
  const token = vaultVariable(environment, 'TOKEN');
  if (token !== undefined) return checkToken(token.trim(), 'VAULT_TOKEN');
  const { BAO_TOKEN_PATH: path, HOME: home } = environment;
  const file = path || (home && join(home, '.vault-token'));
  if (!file) return undefined;
  try {
    return readCredential(file, 'the token file');
  } catch (error) {
    if (error instanceof OcicryptError && error.code === 'not-found') return undefined;
    throw error;
  }
}

function openLogin(
  connection: VaultConnection,
  login: Exclude<VaultLogin, 'token'>,
  settings: VaultTokenSettings,
  now: () => number,
): VaultTokens {
  const mount = settings.loginPath ?? login;
  if (!MOUNT.test(mount)) {
    throw new OcicryptError('configuration', '--vault-login-path is not a path', { hint: 'it looks like kubernetes' });
  }
  checkComplete(login, settings);
  let token: Token | undefined;

  const logIn = share(async (signal) => {
    const body = writeJson(loginMessage(login, settings));
    try {
      const path = ['auth', ...mount.split('/'), 'login'];
      const answer = await connection.send({
        path,
        namespace: settings.namespace,
        body,
        signal,
        role: 'token service',
      });
      if (answer.status !== 200) throw explainRefusal(answer, login, mount);
      token = readLogin(answer.body, login, now());
      wipe(answer.body);
      return token.text;
    } finally {
      wipe(body);
    }
  });

  return {
    async current(signal) {
      return token !== undefined && now() < token.end ? token.text : logIn(signal);
    },
    async renewed(refused, signal) {
      if (token !== undefined && token.text !== refused) return token.text;
      return token !== undefined && now() - token.start < NEW ? undefined : logIn(signal);
    },
  };
}

type Token = { readonly text: string; readonly start: number; readonly end: number };

function checkComplete(login: VaultLogin, { role, credentialsFile }: VaultTokenSettings): void {
  const fail = (option: string) => {
    throw new OcicryptError('configuration', `the ${login} login to Vault lacks ${option}`, { hint: `add ${option}` });
  };
  if (role === undefined && login !== 'cert') fail(login === 'approle' ? '--vault-role=ROLE_ID' : '--vault-role=ROLE');
  if (credentialsFile === undefined && login === 'jwt') fail('--vault-credentials=JWT_FILE');
  if (credentialsFile === undefined && login === 'approle') fail('--vault-credentials=SECRET_ID_FILE');
}

/** Files are read for each login: a service account's token is replaced every hour. */
function loginMessage(login: VaultLogin, { role, credentialsFile }: VaultTokenSettings): Record<string, string> {
  const named: Record<string, string> = role === undefined ? {} : { role };
  switch (login) {
    case 'kubernetes':
      // Kubernetes mounts it for every user of the pod to read.
      return { ...named, jwt: readCredential(credentialsFile ?? KUBERNETES_TOKEN, 'the service account token', false) };
    case 'jwt':
      return { ...named, jwt: readCredential(credentialsFile ?? '', 'the JWT file', false) };
    case 'approle':
      return { role_id: role ?? '', secret_id: readCredential(credentialsFile ?? '', 'the secret id file') };
    default:
      return role === undefined ? {} : { name: role };
  }
}

function readCredential(path: string, what: string, secret = true): string {
  const file = readSecretFile(path, what, MAXIMUM_CREDENTIAL_BYTES, { isSecret: () => secret, ofAgent: true });
  try {
    return checkToken(new TextDecoder('latin1').decode(file).trim(), `${what} ${showPath(path)}`);
  } finally {
    wipe(file);
  }
}

/** Whatever else it were would end up in a header, or in the runtime's error about that header. */
function checkToken(token: string, what: string): string {
  if (/^[!-~]{1,16384}$/.test(token)) return token;
  throw new OcicryptError('configuration', `${what} does not hold a credential for Vault`, {
    hint: 'it must be one line of text',
  });
}

function readLogin(body: Uint8Array, login: VaultLogin, start: number): Token {
  let auth: JsonObject | undefined;
  try {
    auth = asObject(asObject(parseJson(body, 'the answer'))?.get('auth'));
  } catch {}
  const text = asText(auth?.get('client_token'));
  const lease = asNumber(auth?.get('lease_duration'));
  if (text === undefined || !/^[!-~]+$/.test(text)) {
    throw new OcicryptError('unauthenticated', `the ${login} login to Vault gave no token`, {
      hint: 'a login that asks for a second factor cannot be used here',
    });
  }
  // A lease of no seconds is one without end.
  const seconds = lease !== undefined && lease > 0 ? lease : Number.POSITIVE_INFINITY;
  return { text, start, end: start + seconds * 1000 * USABLE };
}

function explainRefusal(answer: HttpResponse, login: VaultLogin, mount: string): OcicryptError {
  const retryAfter = parseRetryAfter(answer.headers);
  if (answer.status === 412 || answer.status === 429 || answer.status >= 470) {
    return new OcicryptError('unavailable', `Vault takes no ${login} login now (${answer.status})`, {
      hint: 'try again later; vault status shows whether it is sealed',
      retryable: true,
      ...(retryAfter === undefined ? {} : { retryAfter }),
    });
  }
  return new OcicryptError('unauthenticated', `Vault refuses the ${login} login (${answer.status})`, {
    hint: `compare role and credentials with: vault read auth/${mount}/role/ROLE; where it is mounted elsewhere, say --vault-login-path`,
  });
}
