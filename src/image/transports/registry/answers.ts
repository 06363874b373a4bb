// What a registry's answers come to: their bodies, read within bounds, and the errors of those that are no success.

import { concatBytes } from '../../../base/bytes.ts';
import { OcicryptError } from '../../../base/errors.ts';
import { parseRetryAfter } from '../../../base/http/client.ts';
import type { StreamResponse } from '../../../base/http/stream.ts';
import { asArray, asObject, asText, parseJson } from '../../../base/json.ts';

/** An answer that is no success: its status and headers, and what its body says, ready to be shown. */
export type Refusal = Pick<StreamResponse, 'status' | 'headers'> & { readonly problem: string };

const MAXIMUM_PROBLEM_BYTES = 64 * 1024;

/** Reads an answer that says nothing, so that its connection can be used again. */
export async function drain(response: StreamResponse): Promise<void> {
  let length = 0;
  for await (const chunk of response.body) {
    length += chunk.length;
    if (length <= MAXIMUM_PROBLEM_BYTES) continue;
    response.discard();
    return;
  }
}

/** Reads the body of an answer. @throws OcicryptError `bad-input` for more than `maximum` bytes, `unavailable` */
export async function readBody(response: StreamResponse, maximum: number, name: string): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let length = 0;
  for await (const chunk of response.body) {
    length += chunk.length;
    if (length > maximum) {
      response.discard();
      throw new OcicryptError('bad-input', `${name} answered with more than ${maximum} bytes`);
    }
    // The stream takes the chunk back.
    chunks.push(Uint8Array.from(chunk));
  }
  return concatBytes(...chunks);
}

/**
 * Reads an answer that is no success. Of its body the first of `errors` is taken, as distribution-spec "Error Codes" has
 * it: bounded, in printable characters, and nothing if it repeats one of the secrets that were sent.
 */
export async function readRefusal(response: StreamResponse, secrets: readonly string[]): Promise<Refusal> {
  const { status, headers } = response;
  const said = await readProblem(response).catch(() => []);
  // As it was sent: cut, or with other white space, a secret would not be found in it.
  const isSecret = secrets.some((secret) => said.some((text) => text.includes(secret)));
  const shown = isSecret ? [] : said.map(printable).filter((text) => text !== '');
  return { status, headers, problem: shown.join(': ') };
}

async function readProblem(response: StreamResponse): Promise<readonly string[]> {
  const body = parseJson(await readBody(response, MAXIMUM_PROBLEM_BYTES, 'registry'), 'answer');
  const first = asObject(asArray(asObject(body)?.get('errors'))?.[0]);
  return ['code', 'message'].map((name) => asText(first?.get(name)) ?? '');
}

/** Everything but control, format, private and unassigned characters and separators of lines. */
function printable(text: string): string {
  const plain = text.replace(/[\p{C}\p{Zl}\p{Zp}\s]+/gu, ' ').trim();
  return plain.length > 200 ? `${plain.slice(0, 200).toWellFormed()}…` : plain;
}

/** How a message ends that tells of an answer. */
export function quote({ status, problem }: Refusal): string {
  return problem === '' ? `(${status})` : `(${status}: ${problem})`;
}

/** The hint for answers that registries do not give, as those of login pages, proxies and other servers. */
export const NO_REGISTRY = 'something that is not a registry may answer there: check the host and the proxy';

/** Statuses that another attempt may change; 501 and 505 are for ever. */
const PASSING = [408, 425, 500, 502, 503, 504];

/**
 * The error of an answer that asks for no login.
 *
 * @param name who answered
 * @param isWrite whether something was to be stored
 */
export function errorOf(refusal: Refusal, name: string, isWrite: boolean): OcicryptError {
  const { status, headers } = refusal;
  const said = quote(refusal);
  const retryAfter = parseRetryAfter(headers);
  const later = {
    retryable: true,
    hint: retryAfter === undefined ? 'try again later' : `it asks to wait for ${Math.ceil(retryAfter / 1000)} s`,
    retryAfter,
  };
  // What says why as registries do is one.
  const unlikely = refusal.problem === '' ? { hint: NO_REGISTRY } : {};
  if (status === 429) return new OcicryptError('throttled', `${name} is being asked too often ${said}`, later);
  if (PASSING.includes(status)) return new OcicryptError('unavailable', `${name} fails ${said}`, later);
  if (status < 400 || status >= 500)
    return new OcicryptError('unavailable', `${name} cannot do this ${said}`, unlikely);
  if (status === 403) {
    return new OcicryptError('refused', `${name} refuses access ${said}`, {
      hint: 'check the rights and the quota of the account in the registry',
    });
  }
  if (status === 404 || status === 410) {
    return new OcicryptError('not-found', `${name} is not there ${said}`, {
      hint: isWrite ? 'create the repository first, or check its name and the rights of the account' : 'check the name',
    });
  }
  if (!isWrite) return new OcicryptError('refused', `${name} does not answer this ${said}`, unlikely);
  return new OcicryptError('refused', `${name} does not take this ${said}`, { hint: hintFor(status) });
}

function hintFor(status: number): string {
  if (status === 413) return 'the registry or the proxy before it limits the size of a request: raise that limit';
  return 'the tag may be immutable, or the registry may not know layers of a type that ends in +encrypted';
}
