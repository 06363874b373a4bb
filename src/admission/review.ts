// The codec of AdmissionReview (admission.k8s.io/v1): what an API server asks, and what it is answered.
// https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/

import { OcicryptError } from '../base/errors.ts';
import { printable } from '../base/shown.ts';
import { isRecord, type UnknownRecord } from '../base/yaml-file.ts';

const VERSION = 'admission.k8s.io/v1';
const KIND = 'AdmissionReview';

/** What is to be decided. */
export type Review = {
  /** Comes back with the answer. */
  readonly uid: string;
  readonly operation: string;
  /** `pods`, or `pods/ephemeralcontainers`; with its group if it has one, as `apps/deployments`. */
  readonly resource: string;
  readonly namespace: string;
  readonly name: string;
  readonly user: string;
  /** Whether nothing is to come of it. */
  readonly dryRun: boolean;
  /** As it is to be, and as it was; undefined if the request has none. */
  readonly object: UnknownRecord | undefined;
  readonly oldObject: UnknownRecord | undefined;
};

/** What is decided. */
export type Answer = {
  readonly allowed: boolean;
  /** Why not, in one sentence. */
  readonly message?: string | undefined;
  readonly warnings?: readonly string[];
  readonly patch?: readonly PatchStep[];
};

/** RFC 6902. */
export type PatchStep = { readonly op: 'replace'; readonly path: string; readonly value: string };

/**
 * Reads a review. The API server that writes it has parsed and checked the objects in it, so that there is one reading of them.
 *
 * @throws OcicryptError `bad-input` if it cannot even be answered: its caller refuses then
 */
export function parseReview(body: Uint8Array): Review {
  const review = parseObject(body);
  const { request } = review;
  if (review.apiVersion !== VERSION || review.kind !== KIND) {
    throw new OcicryptError('bad-input', `not an ${KIND} of ${VERSION}`, {
      hint: 'the configuration of the webhook must say admissionReviewVersions: ["v1"]',
    });
  }
  const uid = isRecord(request) ? textOf(request.uid) : '';
  if (!isRecord(request) || uid === '')
    throw new OcicryptError('bad-input', `an ${KIND} without a request that has a uid`);
  const resource = isRecord(request.resource) ? request.resource : {};
  const [group, plural, part] = [textOf(resource.group), textOf(resource.resource), textOf(request.subResource)];
  const { object, oldObject } = request;
  return {
    uid,
    operation: textOf(request.operation),
    resource: `${group === '' ? '' : `${group}/`}${plural}${part === '' ? '' : `/${part}`}`,
    namespace: textOf(request.namespace),
    name: textOf(request.name),
    user: isRecord(request.userInfo) ? textOf(request.userInfo.username) : '',
    dryRun: request.dryRun === true,
    object: isRecord(object) ? object : undefined,
    oldObject: isRecord(oldObject) ? oldObject : undefined,
  };
}

/** Characters of a message: more is not shown in an event. */
const MAXIMUM_MESSAGE = 900;
/** API servers cut each warning after 256 bytes, and all of them after 4096. */
const MAXIMUM_WARNING = 250;
const MAXIMUM_WARNINGS = 12;

/** The answer as JSON. */
export function formatAnswer(uid: string, { allowed, message, warnings = [], patch = [] }: Answer): string {
  const said = warnings.slice(0, MAXIMUM_WARNINGS).map((warning) => cut(warning, MAXIMUM_WARNING));
  const more = warnings.length - said.length;
  return JSON.stringify({
    apiVersion: VERSION,
    kind: KIND,
    response: {
      uid,
      allowed,
      ...(allowed ? {} : { status: { code: 403, reason: 'Forbidden', message: cut(message ?? '', MAXIMUM_MESSAGE) } }),
      ...(said.length === 0 ? {} : { warnings: more > 0 ? [...said, `and ${more} further warnings`] : said }),
      ...(patch.length === 0
        ? {}
        : { patchType: 'JSONPatch', patch: Buffer.from(JSON.stringify(patch)).toString('base64') }),
    },
  });
}

/** On one line, without what drives a terminal, and no longer than so many characters. */
export function cut(text: string, maximum: number): string {
  const line = printable(text);
  return line.length <= maximum ? line : `${line.slice(0, maximum - 1).toWellFormed()}…`;
}

/** A JSON object. @throws OcicryptError `bad-input` */
export function parseObject(body: Uint8Array): UnknownRecord {
  try {
    const value: unknown = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(body));
    if (isRecord(value)) return value;
  } catch {
    // Of its text nothing is said.
  }
  throw new OcicryptError('bad-input', 'not a JSON object');
}

/** The text, or an empty one. */
export function textOf(value: unknown): string {
  return typeof value === 'string' ? value : '';
}
