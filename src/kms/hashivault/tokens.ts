// Who we are to Vault: a token that is there already, or a login that gives one.
// https://developer.hashicorp.com/vault/docs/auth

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { wipe } from '../../base/bytes.ts';
import { OcicryptError } from '../../base/errors.ts';
import type { HttpResponse } from '../../base/http/contract.ts';
import { asNumber, asObject, asText, readObject } from '../../base/json.ts';
import { type JsonInput, writeJson } from '../../base/json-writer.ts';
import { readSecretFile } from '../../base/secret-file.ts';
import { setting } from '../../base/setting.ts';
import { showPath } from '../../base/shown.ts';
import { notNow } from '../answers.ts';
import { type NewToken, TokenCache } from '../token-cache.ts';
import { type VaultConnection, vaultVariable } from './connection.ts';
import { readErrors } from './errors.ts';

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
   * The token to use; undefined if an agent adds its own.
   *
   * @throws OcicryptError `unauthenticated`, `configuration`, and those of a connection
   */
  current(signal: AbortSignal): Promise<string | undefined>;
  /** Another token than the one that was refused, or undefined if asking for one is of no use. */
  renewed(refused: string | undefined, signal: AbortSignal): Promise<string | undefined>;
}

const KUBERNETES_TOKEN = '/var/run/secrets/kubernetes.io/serviceaccount/token';
const MAXIMUM_CREDENTIAL_BYTES = 16 * 1024;
/** A new token that is refused has too few rights: another one would not have more. */
const NEW_MILLISECONDS = 30_000;
/** The part of its life before whose end a token is renewed. */
const RESERVE = 0.1;
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
        hint: `log in with: vault login (or bao login), set VAULT_TOKEN, or choose another ${setting('hashivault.login')}`,
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
  return file && existsSync(file) ? readCredential(file, 'the token file') : undefined;
}

function openLogin(
  connection: VaultConnection,
  login: Exclude<VaultLogin, 'token'>,
  settings: VaultTokenSettings,
  now: () => number,
): VaultTokens {
  const mount = settings.loginPath ?? login;
  if (!MOUNT.test(mount)) {
    throw new OcicryptError('configuration', `${setting('hashivault.loginPath')} is not a path`, {
      hint: 'it looks like kubernetes',
    });
  }
  checkComplete(login, settings);
  const tokens = new TokenCache(async (signal) => {
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
      const token = readLogin(answer.body, login, now());
      wipe(answer.body);
      return token;
    } finally {
      wipe(body);
    }
  }, now);

  return {
    async current(signal) {
      return (await tokens.read(signal)).text;
    },
    async renewed(refused, signal) {
      const token = await tokens.read(signal);
      if (token.text !== refused) return token.text;
      if (now() - token.start < NEW_MILLISECONDS) return undefined;
      tokens.forget();
      return (await tokens.read(signal)).text;
    },
  };
}

type LoginToken = { readonly text: string; readonly start: number };

function checkComplete(login: VaultLogin, { role, credentialsFile }: VaultTokenSettings): void {
  const fail = (name: 'hashivault.credentialsFile' | 'hashivault.role', value: string) => {
    const missing = `${setting(name)}=${value}`;
    throw new OcicryptError('configuration', `the ${login} login to Vault lacks ${missing}`, {
      hint: `add ${missing}`,
    });
  };
  if (role === undefined && login !== 'cert') fail('hashivault.role', login === 'approle' ? 'ROLE_ID' : 'ROLE');
  if (credentialsFile === undefined && login === 'jwt') fail('hashivault.credentialsFile', 'JWT_FILE');
  if (credentialsFile === undefined && login === 'approle') fail('hashivault.credentialsFile', 'SECRET_ID_FILE');
}

/** Files are read for each login: a service account's token is replaced every hour. */
function loginMessage(login: VaultLogin, { role, credentialsFile }: VaultTokenSettings): JsonInput {
  switch (login) {
    case 'kubernetes':
      // Kubernetes mounts it for every user of the pod to read.
      return { role, jwt: readCredential(credentialsFile ?? KUBERNETES_TOKEN, 'the service account token', false) };
    case 'jwt':
      return { role, jwt: readCredential(credentialsFile ?? '', 'the JWT file', false) };
    case 'approle':
      return { role_id: role ?? '', secret_id: readCredential(credentialsFile ?? '', 'the secret id file') };
    default:
      return { name: role };
  }
}

function readCredential(path: string, what: string, secret = true): string {
  const file = readFile(path, what, secret);
  try {
    return checkToken(new TextDecoder('latin1').decode(file).trim(), `${what} ${showPath(path)}`);
  } finally {
    wipe(file);
  }
}

function readFile(path: string, what: string, secret: boolean): Uint8Array {
  try {
    return readSecretFile(path, what, MAXIMUM_CREDENTIAL_BYTES, { isSecret: () => secret, ofAgent: true });
  } catch (error) {
    if (!(error instanceof OcicryptError) || error.code !== 'not-found') throw error;
    throw error.with({
      code: 'configuration',
      hint: `an agent or Kubernetes writes it: check the volume, and ${setting('hashivault.credentialsFile')}`,
    });
  }
}

/** Whatever else it were would end up in a header, or in the runtime's error about that header. */
function checkToken(token: string, what: string): string {
  if (/^[!-~]{1,16384}$/.test(token)) return token;
  throw new OcicryptError('configuration', `${what} does not hold a credential for Vault`, {
    hint: 'it must be one line of text',
  });
}

function readLogin(body: Uint8Array, login: VaultLogin, start: number): NewToken<LoginToken> {
  const auth = asObject(readObject(body)?.get('auth'));
  const text = asText(auth?.get('client_token'));
  const lease = asNumber(auth?.get('lease_duration'));
  if (text === undefined || !/^[!-~]+$/.test(text)) {
    throw new OcicryptError('unauthenticated', `the ${login} login to Vault gave no token`, {
      hint: 'a login that asks for a second factor cannot be used here',
    });
  }
  // A lease of no seconds is one without end.
  const lifetime = lease !== undefined && lease > 0 ? lease * 1000 : Number.POSITIVE_INFINITY;
  return { token: { text, start }, lifetime, reserve: (lease ?? 0) * 1000 * RESERVE };
}

/** What the login says of itself, and what is wrong then. */
const REASONS: readonly (readonly [
  said: RegExp,
  code: 'configuration' | 'unauthenticated',
  what: string,
  hint: string,
])[] = [
  [
    /invalid role or secret ID|invalid secret_id|invalid role_id|role_id/,
    'unauthenticated',
    'role id or secret id is not known, or has ended',
    'make another: vault write -f auth/MOUNT/role/NAME/secret-id',
  ],
  [
    /invalid role name|role "[^"]*" could not be found|missing role/,
    'configuration',
    'there is no such role',
    'see those that there are with: vault list auth/MOUNT/role',
  ],
  [
    /aud(?:ience)?\b.*(?:claim|bound)|invalid audience/,
    'unauthenticated',
    'the token is for another audience',
    'compare with bound_audiences of: vault read auth/MOUNT/role/ROLE',
  ],
  [
    /(?:service ?account name|namespace) not authorized|sub(?:ject)?\b.*claim|bound_?claims?/i,
    'unauthenticated',
    'the role is not for this service account or subject',
    'see: vault read auth/MOUNT/role/ROLE',
  ],
  [
    /expired|token is not yet valid|exp\b/i,
    'unauthenticated',
    'the token is out of its time',
    'check the clock, and that the token is renewed',
  ],
  [
    /no client certificate|no certificate was matched|no chain matching/,
    'unauthenticated',
    'the certificate is not one that it knows',
    'VAULT_CLIENT_CERT names it; see: vault list auth/MOUNT/certs',
  ],
  [
    /error validating token|verify|signature/i,
    'unauthenticated',
    'the token is not of its issuer',
    'see: vault read auth/MOUNT/config',
  ],
];

/** Its own reason by an allow-list; its text is never repeated. */
function explainRefusal(answer: HttpResponse, login: VaultLogin, mount: string): OcicryptError {
  const source = `the ${login} login to Vault`;
  const passing = notNow(source, 'token', answer, [412, 472, 473]);
  if (passing !== undefined) return passing;
  const text = readErrors(answer.body);
  if (text === undefined) {
    return new OcicryptError(
      'unavailable',
      `something that is not Vault answered the ${login} login (${answer.status})`,
      {
        hint: 'check VAULT_ADDR and the proxy',
      },
    );
  }
  const named = (hint: string) => hint.replace('MOUNT', mount);
  const reason = REASONS.find(([said]) => said.test(text));
  if (reason !== undefined) {
    const [, code, what, hint] = reason;
    return new OcicryptError(code, `Vault refuses the ${login} login: ${what}`, { hint: named(hint) });
  }
  if (answer.status === 404 || /no handler for route|unsupported path/.test(text)) {
    return new OcicryptError('configuration', `Vault has no ${login} login at auth/${mount}`, {
      hint: `it may be mounted elsewhere (${setting('hashivault.loginPath')}), or in another namespace (VAULT_NAMESPACE); see: vault auth list`,
    });
  }
  return new OcicryptError('unauthenticated', `Vault refuses the ${login} login (${answer.status})`, {
    hint: named(
      `compare role and credentials with: vault read auth/MOUNT/role/ROLE; Vault answers the same if no login is mounted there: see ${setting('hashivault.loginPath')}`,
    ),
  });
}
