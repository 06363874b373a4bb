// Subject tokens that a program of the operator's writes: the `executable` of an external_account file.
// https://google.aip.dev/auth/4117#determining-the-subject-token-in-executable-sourced-credentials
//
// Not by Google's library, which starts one for each attempt, and ends it but not what it started.

import { readFileSync } from 'node:fs';
import { wipe } from '../../base/bytes.ts';
import { OcicryptError } from '../../base/errors.ts';
import { runHelper } from '../../base/helper.ts';
import { asText, type JsonObject, readObject } from '../../base/json.ts';
import { showPath } from '../../base/shown.ts';
import type { CredentialsJson } from './credentials-file.ts';

/** The program as the file names it. */
export type GoogleExecutable = {
  readonly command: readonly [program: string, ...words: string[]];
  readonly limit: number;
  readonly outputFile: string | undefined;
  readonly variables: Readonly<Record<string, string>>;
  /** For errors. */
  readonly name: string;
};

/** As in the specification: 30 s if the file does not say, 5 s to 2 minutes. */
const LIMIT = { usual: 30_000, least: 5_000, most: 120_000 };

/**
 * @param path of the credentials file, for errors
 * @returns undefined if the file names none
 * @throws OcicryptError `configuration`
 */
export function findExecutable(path: string, json: CredentialsJson): GoogleExecutable | undefined {
  const { credential_source: source } = json;
  const executable = member(source, 'executable');
  if (executable === undefined) return undefined;
  const [program, ...words] = splitCommand(text(executable, 'command') ?? '');
  const limit = member(executable, 'timeout_millis') ?? LIMIT.usual;
  if (program === undefined || typeof limit !== 'number' || limit < LIMIT.least || limit > LIMIT.most) {
    throw new OcicryptError('configuration', `${showPath(path)} names an executable that cannot be run`, {
      hint: `it needs a command, and timeout_millis of ${LIMIT.least} to ${LIMIT.most}`,
    });
  }
  const outputFile = text(executable, 'output_file');
  const account = /serviceAccounts\/([^/:]+):/.exec(text(json, 'service_account_impersonation_url') ?? '')?.[1];
  return {
    command: [program, ...words],
    limit,
    outputFile,
    name: 'the executable of the Google credentials',
    variables: {
      GOOGLE_EXTERNAL_ACCOUNT_AUDIENCE: text(json, 'audience') ?? '',
      GOOGLE_EXTERNAL_ACCOUNT_TOKEN_TYPE: text(json, 'subject_token_type') ?? '',
      GOOGLE_EXTERNAL_ACCOUNT_INTERACTIVE: '0',
      ...(account === undefined ? {} : { GOOGLE_EXTERNAL_ACCOUNT_IMPERSONATED_EMAIL: account }),
      ...(outputFile === undefined ? {} : { GOOGLE_EXTERNAL_ACCOUNT_OUTPUT_FILE: outputFile }),
    },
  };
}

/**
 * The token that the program left in its file, while that is good, or what it writes now.
 *
 * @throws OcicryptError `unauthenticated`, `configuration`, `deadline-exceeded`
 */
export async function readSubjectToken(executable: GoogleExecutable, signal: AbortSignal): Promise<string> {
  const { name, command, limit, outputFile, variables } = executable;
  const kept = outputFile === undefined ? undefined : readKept(outputFile);
  if (kept !== undefined) return kept;
  const { status, isStarted, output } = await runHelper({ name, command, limit, variables }, signal);
  try {
    if (!isStarted) {
      throw new OcicryptError('configuration', `${name} is not there or cannot be run`, {
        hint: 'its command needs the whole path of a program',
      });
    }
    const message = readObject(output);
    const token = message?.get('success') === true ? tokenOf(message) : undefined;
    if (status === 0 && token !== undefined) return token;
    const said = asText(message?.get('code')) ?? '';
    throw new OcicryptError(
      'unauthenticated',
      `${name} gives no token (${/^\w{1,40}$/.test(said) ? said : `exit status ${status}`})`,
      { hint: 'run it by hand to see why; it must write the JSON of AIP-4117' },
    );
  } finally {
    wipe(output);
  }
}

function readKept(file: string): string | undefined {
  try {
    const message = readObject(readFileSync(file));
    const end = message?.get('expiration_time');
    const isGood = typeof end === 'number' && end * 1000 > Date.now() && message?.get('success') === true;
    return isGood && message !== undefined ? tokenOf(message) : undefined;
  } catch {
    return undefined;
  }
}

function tokenOf(message: JsonObject): string | undefined {
  const end = message.get('expiration_time');
  if (typeof end === 'number' && end * 1000 <= Date.now()) return undefined;
  const type = asText(message.get('token_type')) ?? '';
  return asText(message.get(type.endsWith(':saml2') ? 'saml_response' : 'id_token')) || undefined;
}

/** Words, of which those in double quotes may hold blanks; no shell is asked. */
function splitCommand(command: string): readonly string[] {
  return (command.match(/(?:[^\s"]+|"[^"]*")+/g) ?? []).map((word) => word.replace(/^"(.*)"$/, '$1'));
}

function member(value: unknown, name: string): unknown {
  return typeof value === 'object' && value !== null ? Reflect.get(value, name) : undefined;
}

function text(value: unknown, name: string): string | undefined {
  const found = member(value, name);
  return typeof found === 'string' && found !== '' ? found : undefined;
}
