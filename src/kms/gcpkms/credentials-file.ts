// Reads files of Google's application default credentials, and refuses those that cannot be used.
// https://cloud.google.com/docs/authentication/application-default-credentials

import { wipe } from '../../base/bytes.ts';
import { OcicryptError } from '../../base/errors.ts';
import { readSecretFile } from '../../base/secret-file.ts';
import { setting } from '../../base/setting.ts';
import { showPath } from '../../base/shown.ts';
import type { TokenCache } from '../token-cache.ts';

/** A source of `authorization` headers, without what is common to all credentials. */
export type TokenSource = {
  readonly tokens: TokenCache<string>;
  /** Where not a file says it. */
  readonly universe?: (signal: AbortSignal) => Promise<string>;
};

/** What a file of credentials holds. */
export type CredentialsJson = { readonly type: string; readonly [member: string]: unknown };

/** The domain of Google's own cloud; sovereign ones have others. */
export const UNIVERSE = 'googleapis.com';
const MAXIMUM_FILE_BYTES = 64 * 1024;

/** Types that no call to Google KMS can use, or whose keys are not files, are refused by name and not by accident. */
const TYPES = [
  'service_account',
  'authorized_user',
  'impersonated_service_account',
  'external_account',
  'external_account_authorized_user',
];

/** Reads a file of credentials. @throws OcicryptError `configuration` or `not-found` */
export function readCredentials(path: string): CredentialsJson {
  const file = readFile(path);
  let json: unknown;
  try {
    json = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(file));
  } catch {
    // Without a cause: the parser's error quotes the file.
    throw invalidFile(path);
  } finally {
    wipe(file);
  }
  if (!isCredentialsJson(json)) throw invalidFile(path);
  if (TYPES.includes(json.type)) return json;
  throw new OcicryptError(
    'configuration',
    `the credentials file ${showPath(path)} is of a type that is not supported`,
    {
      hint: `it must be one of ${TYPES.join(', ')}`,
    },
  );
}

function readFile(path: string): Uint8Array {
  try {
    return readSecretFile(path, 'the credentials file', MAXIMUM_FILE_BYTES, { isSecret: holdsSecret });
  } catch (error) {
    if (!(error instanceof OcicryptError) || error.code !== 'not-found') throw error;
    throw error.with({
      hint: `name the file with ${setting('gcpkms.credentialsFile')} FILE or GOOGLE_APPLICATION_CREDENTIALS`,
    });
  }
}

/** Workload identity federation has files without a secret, which Kubernetes mounts for everybody to read. */
function holdsSecret(content: Uint8Array): boolean {
  return /"(?:private_key|refresh_token|client_secret)"/.test(new TextDecoder('latin1').decode(content));
}

/** Whether a value may be the content of such a file. */
export function isCredentialsJson(json: unknown): json is CredentialsJson {
  return typeof json === 'object' && json !== null && 'type' in json && typeof json.type === 'string';
}

/** The error for a file that is not what Google's tools write; it quotes nothing of it. */
export function invalidFile(path: string): OcicryptError {
  return new OcicryptError('configuration', `${showPath(path)} is not a file of Google credentials`, {
    hint: 'make one with: gcloud auth application-default login, or download a key of a service account',
  });
}
