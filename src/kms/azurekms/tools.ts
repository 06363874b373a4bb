// Tokens of the user who is logged in with a developer's tool: az, PowerShell, azd. Each is asked once, and ends with its call.
// https://learn.microsoft.com/cli/azure/account#az-account-get-access-token

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { wipe } from '../../base/bytes.ts';
import { OcicryptError } from '../../base/errors.ts';
import { type HelperResult, runHelper } from '../../base/helper.ts';
import { asArray, asText, readObject } from '../../base/json.ts';
import { type AzureToken, readEnd } from './token.ts';

/** A tool, what it is asked, and where its answer has the token and its end. */
type Tool = {
  readonly words: (audience: string) => readonly [program: string, ...words: string[]];
  readonly token: string;
  readonly end: readonly string[];
  readonly login: string;
  /** Whether its own files say that no user has logged in, which it does not tell by its status. */
  readonly isUnused?: (environment: NodeJS.ProcessEnv) => boolean;
};

const TOOLS = {
  az: {
    words: (audience) => ['az', 'account', 'get-access-token', '--output', 'json', '--resource', audience],
    token: 'accessToken',
    end: ['expires_on', 'expiresOn'],
    login: 'az login',
    isUnused: hasNoSubscription,
  },
  pwsh: {
    words: (audience) => ['pwsh', '-NoProfile', '-NonInteractive', '-Command', powerShell(audience)],
    token: 'accessToken',
    end: ['expires_on'],
    login: 'Connect-AzAccount',
  },
  azd: {
    words: (audience) => ['azd', 'auth', 'token', '--output', 'json', '--no-prompt', '--scope', `${audience}/.default`],
    token: 'token',
    end: ['expiresOn'],
    login: 'azd auth login',
  },
} as const satisfies Readonly<Record<string, Tool>>;

export type AzureTool = keyof typeof TOOLS;

/** `az` keeps the subscriptions of those who are logged in beside their tokens. */
function hasNoSubscription({ AZURE_CONFIG_DIR: directory, HOME = '' }: NodeJS.ProcessEnv): boolean {
  try {
    const file = readFileSync(join(directory || join(HOME, '.azure'), 'azureProfile.json'));
    // It begins with a byte order mark.
    const profile = readObject(file.subarray(file.indexOf('{')));
    return (asArray(profile?.get('subscriptions')) ?? []).length === 0;
  } catch {
    return true;
  }
}

/** The audience is one of a fixed list, or the operator's own domain: no quote is in it. */
function powerShell(audience: string): string {
  return [
    `$found = Get-AzAccessToken -ResourceUrl '${audience}' -ErrorAction Stop`,
    '$token = $found.Token',
    'if ($token -is [System.Security.SecureString]) { $token = ConvertFrom-SecureString -AsPlainText $token }',
    '@{ accessToken = $token; expires_on = $found.ExpiresOn.ToUnixTimeSeconds() } | ConvertTo-Json -Compress',
  ].join('; ');
}

/**
 * The token of the first tool that gives one; a tool that is not there, or with which no user is logged in, is passed over.
 *
 * @throws OcicryptError `unauthenticated` which names each and how to log in
 */
export async function requestToolToken(
  tools: readonly AzureTool[],
  audience: string,
  environment: NodeJS.ProcessEnv,
  signal: AbortSignal,
): Promise<AzureToken> {
  const faults: string[] = [];
  const hints: string[] = [];
  for (const name of tools) {
    const { words, token, end, login, isUnused }: Tool = TOOLS[name];
    const variables = environment.PATH === undefined ? {} : { PATH: environment.PATH };
    const result = await runHelper({ name, command: words(audience), variables }, signal);
    const { status, isStarted, output } = result;
    try {
      const message = status === 0 ? readObject(output) : undefined;
      const access = asText(message?.get(token)) ?? '';
      const [ends = Number.NaN] = end
        .map((member) => readEnd(message?.get(member)))
        .filter((one) => !Number.isNaN(one));
      if (/^[!-~]{1,16384}$/.test(access) && !Number.isNaN(ends)) return { access, lifetime: ends - Date.now() };
      faults.push(`${name} ${faultOf(result, isUnused?.(environment) ?? false)}`);
      if (isStarted) hints.push(login);
    } finally {
      wipe(output);
    }
  }
  const none = 'install one of them, or unset AZURE_TOKEN_CREDENTIALS and configure another identity';
  throw new OcicryptError('unauthenticated', `no developer's tool gives a token for Azure: ${faults.join(', ')}`, {
    hint: hints.length === 0 ? none : `log in with: ${hints.join(', or ')}`,
  });
}

function faultOf({ status, isStarted }: HelperResult, isUnused: boolean): string {
  if (!isStarted) return 'is not installed';
  if (status === 0) return 'writes something else';
  return isUnused ? 'has no user logged in' : `failed (exit status ${status}): its login may have expired`;
}
