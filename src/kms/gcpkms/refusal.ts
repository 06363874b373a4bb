// Reads a refusal of Google Cloud KMS: what its service says of it in code, and nothing that is shown.
// https://cloud.google.com/apis/design/errors

import { asArray, asObject, asText, readObject } from '../../base/json.ts';

export type Refusal = {
  /** Whether Google said it, by its form. */
  readonly isGoogle: boolean;
  /** `google.rpc.Code`, empty if something else than Google answered. */
  readonly status: string;
  readonly message: string;
  /** `reason` of `google.rpc.ErrorInfo`. */
  readonly reason: string;
  /** Types of the violations of `google.rpc.PreconditionFailure`. */
  readonly violations: readonly string[];
  /** Milliseconds of `google.rpc.RetryInfo`. */
  readonly retryDelay: number | undefined;
};

/** `{"error": google.rpc.Status}`; anything else is an empty refusal. */
export function readRefusal(body: Uint8Array): Refusal {
  const error = asObject(readObject(body)?.get('error'));
  const details = (asArray(error?.get('details')) ?? []).map((detail) => asObject(detail));
  const find = (member: string) =>
    details.map((detail) => asText(detail?.get(member))).find((text) => text !== undefined);
  const delay = /^(\d{1,6}(?:\.\d{1,9})?)s$/.exec(find('retryDelay') ?? '');
  return {
    isGoogle: error !== undefined,
    status: asText(error?.get('status')) ?? '',
    message: asText(error?.get('message')) ?? '',
    reason: find('reason') ?? '',
    violations: details
      .flatMap((detail) => asArray(detail?.get('violations')) ?? [])
      .flatMap((violation) => asText(asObject(violation)?.get('type')) ?? []),
    retryDelay: delay === null ? undefined : Math.ceil(Number(delay[1]) * 1000),
  };
}
