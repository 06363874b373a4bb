// The shape of a vector (test/vectors/README.md), and the requests that most of them are made of.

import type { ErrorCode } from '../src/base/errors.ts';
import {
  canonicalJson,
  type Entry,
  GOOGLE,
  KEYFILES,
  keyfileEntry,
  OPTSDATA,
  sealMembers,
  thumbprint,
} from '../test/fixtures/packets.ts';

/** How the provider is set up; the key files and Google keys are those of test/vectors/README.md. */
export type Setup = {
  readonly command?: 'kms_oci_crypt';
  readonly keys?: readonly string[];
  readonly allow?: readonly string[];
  readonly kmsURI?: string;
  readonly provider?: string;
  readonly packet?: 'v1' | 'v2';
  readonly context?: Readonly<Record<string, string>>;
  /** Key files by the broker's names of their keys (`--kbs-key`). */
  readonly 'kbs-key'?: Readonly<Record<string, string>>;
};

export type RequestPart = string | { readonly hex: string } | { readonly repeat: string; readonly times: number };

export type Vector = {
  readonly comment: string;
  readonly expect: 'ok' | ErrorCode;
  readonly setup: Setup;
  /** Text, or parts that are joined. */
  readonly request: string | readonly RequestPart[];
  /** The whole reply, where it is the same each time (unwrap). */
  readonly reply?: string;
  /** What the packet of the reply must be (wrap). */
  readonly packet?: { readonly format: 'v1' | 'v2'; readonly keys: readonly string[] };
};

export type Named = readonly [name: string, vector: Vector];

export const FIRST: Setup = { keys: ['first'] };
export const FIRST_KEY = thumbprint(KEYFILES.first);
export const GCP = `gcpkms://${GOOGLE.first.name}`;
export const GCP_SECOND = `gcpkms://${GOOGLE.second.name}`;
export const SECOND_KEY = thumbprint(KEYFILES.second);

export function base64(bytes: Uint8Array | string): string {
  return Buffer.from(bytes).toString('base64');
}

/** A wrap request as Go writes it; values under `kmscrypt` are given as text. */
export function wrapRequest(keys: readonly string[], optsdata: Uint8Array | string = OPTSDATA): string {
  return JSON.stringify({
    op: 'keywrap',
    keywrapparams: {
      ec: { Parameters: { kmscrypt: keys.map(base64) }, DecryptConfig: { Parameters: {} } },
      optsdata: base64(optsdata),
    },
    keyunwrapparams: { dc: null, annotation: null },
  });
}

/** An unwrap request as Go writes it, without parameters where no keys are given. */
export function unwrapRequest(packet: Uint8Array | string, keys?: readonly string[]): string {
  return unwrapText(JSON.stringify(base64(packet)), keys);
}

/** The same, with `annotation` as the JSON that stands there. */
export function unwrapText(annotation: string, keys?: readonly string[]): string {
  const parameters = keys === undefined ? 'null' : JSON.stringify({ kmscrypt: keys.map(base64) });
  return `{"op":"keyunwrap","keywrapparams":{"ec":null,"optsdata":null},"keyunwrapparams":{"dc":{"Parameters":${parameters}},"annotation":${annotation}}}`;
}

export function replyOf(record: Uint8Array): string {
  return JSON.stringify({ keyunwrapresults: { optsdata: base64(record) } });
}

export const REPLY = replyOf(OPTSDATA);

/** The members of a packet for the first key file. */
export const MEMBERS: Entry = sealMembers({ recipients: [keyfileEntry(KEYFILES.first)] });
export const PACKET = canonicalJson(MEMBERS);
