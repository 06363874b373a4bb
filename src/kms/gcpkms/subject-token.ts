// Who a federated workload is: the subject token that its file of credentials leads to, in a file or at a URL.
// https://google.aip.dev/auth/4117#determining-the-subject-token

import { OcicryptError } from '../../base/errors.ts';
import type { HttpClient } from '../../base/http/contract.ts';
import { asText, readObject } from '../../base/json.ts';
import { readPublicFile } from '../../base/secret-file.ts';
import { showPath } from '../../base/shown.ts';
import { askTokenService } from './token-service.ts';

/** Where the token is. The member that holds it is undefined where it is the whole content. */
export type SubjectSource = {
  readonly member: string | undefined;
} & ({ readonly file: string } | { readonly url: URL; readonly headers: Readonly<Record<string, string>> });

const MAXIMUM_BYTES = 64 * 1024;

/** @returns undefined where it is neither a file nor a URL, or not described as it should be */
export function readSubjectSource(source: unknown): SubjectSource | undefined {
  if (!isRecord(source)) return undefined;
  const format = source.format ?? { type: 'text' };
  if (!isRecord(format) || 'environment_id' in source || 'executable' in source || 'certificate' in source)
    return undefined;
  const { type = 'text', subject_token_field_name: name } = format;
  const member = type === 'json' && typeof name === 'string' && name !== '' ? name : undefined;
  if (member === undefined && type !== 'text') return undefined;
  if (typeof source.file === 'string') return { file: source.file, member };
  const { url, headers = {} } = source;
  if (typeof url !== 'string' || !URL.canParse(url) || !isRecord(headers)) return undefined;
  const fields = Object.entries(headers).map(([field, value]) => [field, String(value)] as const);
  return { url: new URL(url), headers: Object.fromEntries(fields), member };
}

/**
 * Reads it anew, since it lives for minutes.
 *
 * @returns undefined where what was read holds none
 * @throws OcicryptError `configuration` for a file that cannot be read; what the service at a URL is refused for
 */
export async function readSubject(
  source: SubjectSource,
  http: HttpClient,
  signal: AbortSignal,
): Promise<string | undefined> {
  const content =
    'file' in source
      ? readFile(source.file)
      : (await askTokenService(http, source.url, { method: 'GET', headers: source.headers, signal })).body;
  if (source.member === undefined) return new TextDecoder().decode(content).trim() || undefined;
  return asText(readObject(content)?.get(source.member)) || undefined;
}

const HINT =
  'the file of credentials names it, and Kubernetes or a CI service writes it: check the volume and its permissions';

function readFile(path: string): Uint8Array {
  try {
    const content = readPublicFile(path, 'the subject token file', MAXIMUM_BYTES);
    if (content.length > 0) return content;
  } catch (error) {
    throw error instanceof OcicryptError ? error.with({ code: 'configuration', hint: HINT }) : error;
  }
  throw new OcicryptError('configuration', `the subject token file ${showPath(path)} is empty`, { hint: HINT });
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null;
}
