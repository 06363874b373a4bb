// Whether a machine has a metadata server: if there is none packets vanish, and that is not waited for as long.

import { readFileSync } from 'node:fs';
import { eitherSignal } from '../base/deadline.ts';
import { OcicryptError } from '../base/errors.ts';
import type { HttpResponse } from '../base/http/contract.ts';

/** A metadata server that may be there. */
export type MetadataServer = {
  readonly host: string;
  /** Whether the configuration or the firmware says that there is one. */
  readonly isExpected: boolean;
  /** What it means if there is none: `there are no AWS credentials in the environment or in a profile`. */
  readonly none: string;
  readonly hint: string;
};

/** If there is a server it answers within milliseconds. */
const PRESENCE_MILLISECONDS = 1000;

/**
 * The first request to a metadata server, which tells whether there is one.
 *
 * @throws OcicryptError those of the request if a server is expected, else `unauthenticated`
 */
export async function askMetadataServer<Answer = HttpResponse>(
  { host, isExpected, none, hint }: MetadataServer,
  signal: AbortSignal,
  ask: (signal: AbortSignal) => Promise<Answer>,
): Promise<Answer> {
  const patience = AbortSignal.timeout(PRESENCE_MILLISECONDS);
  try {
    return await ask(isExpected ? signal : eitherSignal(signal, patience));
  } catch (error) {
    if (isExpected || signal.aborted) throw error;
    const isSlow = patience.aborted;
    const why = isSlow ? `does not answer within ${PRESENCE_MILLISECONDS} ms` : 'cannot be reached';
    throw new OcicryptError('unauthenticated', `${none}, and the metadata server ${host} ${why}`, {
      cause: error,
      hint,
      // A server that is there may be slow once.
      retryable: isSlow,
      unreached: true,
    });
  }
}

/** What kind of machine this is by its firmware, which containers see too. @param file of /sys/class/dmi/id */
export function firmwareSays(file: string, pattern: RegExp): boolean {
  try {
    return pattern.test(readFileSync(file, 'latin1'));
  } catch {
    return false;
  }
}
