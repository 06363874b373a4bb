// Reads the bodies of a registry's answers, within bounds.

import { concatBytes } from '../base/bytes.ts';
import { OcicryptError } from '../base/errors.ts';
import type { StreamResponse } from '../base/http-stream.ts';

/** Reads an answer that says nothing, so that its connection can be used again. */
export async function drain(response: StreamResponse): Promise<void> {
  let length = 0;
  for await (const chunk of response.body) {
    length += chunk.length;
    if (length <= 65_536) continue;
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
    chunks.push(chunk);
  }
  return concatBytes(...chunks);
}
