// Tokens of whoever is logged in with a developer's tool: az, PowerShell, azd. Each is asked for one, and ends with its call.
// https://learn.microsoft.com/cli/azure/account#az-account-get-access-token

import { wipe } from '../base/bytes.ts';
import { OcicryptError } from '../base/errors.ts';
import { NOT_FOUND, runHelper } from '../base/helper.ts';
import { asText } from '../base/json.ts';
import { readObject } from './answers.ts';
import type { AzureToken } from './azure-credentials.ts';

/** A tool, what it is asked, and where its answer has the token and its end. */
type Tool = {
  readonly words: (audience: string) => readonly [program: string, ...words: string[]];
  readonly token: string;
  readonly end: readonly string[];
  readonly login: string;
};

const TOOLS = {
  az: {
    words: (audience) => ['az', 'account', 'get-access-token', '--output', 'json', '--resource', audience],
    token: 'accessToken',
    end: ['expires_on', 'expiresOn'],
    login: 'az login',
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
 * The token of the first tool that gives one; a tool that is not there, or with which nobody is logged in, is passed over.
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
  for (const name of tools) {
    const { words, token, end }: Tool = TOOLS[name];
    const variables = environment.PATH === undefined ? {} : { PATH: environment.PATH };
    const { status, output } = await runHelper({ name, command: words(audience), variables }, signal);
    try {
      const message = status === 0 ? readObject(output) : undefined;
      const access = asText(message?.get(token)) ?? '';
      const [ends = Number.NaN] = end
        .map((member) => readEnd(message?.get(member)))
        .filter((one) => !Number.isNaN(one));
      if (/^[!-~]{1,16384}$/.test(access) && !Number.isNaN(ends)) return { access, end: ends };
      faults.push(`${name} ${faultOf(status)}`);
    } finally {
      wipe(output);
    }
  }
  throw new OcicryptError(
    'unauthenticated',
    `no developer's tool gives a token for ${audience}: ${faults.join(', ')}`,
    {
      hint: `log in with: ${tools.map((name) => TOOLS[name].login).join(', or ')}`,
    },
  );
}

function faultOf(status: number): string {
  if (status === NOT_FOUND) return 'is not installed';
  return status === 0 ? 'writes something else' : `failed (exit status ${status})`;
}

/** Seconds since 1970 as a number or text, or a date. */
function readEnd(value: Parameters<typeof asText>[0]): number {
  if (typeof value === 'number') return value * 1000;
  const text = asText(value) ?? '';
  return /^\d+$/.test(text) ? Number(text) * 1000 : Date.parse(text);
}
