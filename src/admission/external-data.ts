// The codec of external data (externaldata.gatekeeper.sh/v1beta1): what Gatekeeper asks about names of images, and is answered.
// https://open-policy-agent.github.io/gatekeeper/website/docs/externaldata/

import { OcicryptError } from '../base/errors.ts';
import { isRecord } from '../base/yaml-file.ts';
import type { Finding } from './finding.ts';
import { formatImageName, showImage } from './image-name.ts';
import { cut, parseObject } from './review.ts';

const VERSION = 'externaldata.gatekeeper.sh/v1beta1';
/** Gatekeeper asks about the images of one pod, or of many objects in an audit. */
const MAXIMUM_KEYS = 1000;
const MAXIMUM_ERROR = 500;

/** The names that are asked about. @throws OcicryptError `bad-input` */
export function parseProviderRequest(body: Uint8Array): readonly string[] {
  const { apiVersion, kind, request } = parseObject(body);
  const keys = isRecord(request) ? request.keys : undefined;
  if (apiVersion !== VERSION || kind !== 'ProviderRequest' || !Array.isArray(keys)) {
    throw new OcicryptError('bad-input', `not a ProviderRequest of ${VERSION}`);
  }
  if (keys.length > MAXIMUM_KEYS) throw new OcicryptError('bad-input', `more than ${MAXIMUM_KEYS} keys`);
  return keys.map((key) => (typeof key === 'string' ? key : ''));
}

/** For each name the one with the image's digest, or what is wrong with the image. */
export function formatProviderResponse(findings: readonly Finding[]): string {
  const items = findings.map(({ image, problem, reference, digest }) => {
    const isGood = reference !== undefined && digest !== undefined;
    const value = isGood ? formatImageName({ ...reference, tag: undefined, digest }) : '';
    return { key: image.name, value, error: isGood ? '' : cut(`${showImage(image.name)} ${problem}`, MAXIMUM_ERROR) };
  });
  return response({ idempotent: true, items });
}

/** That nothing can be said of any of them. */
export function formatSystemError(problem: string): string {
  return response({ idempotent: false, items: [], systemError: cut(problem, MAXIMUM_ERROR) });
}

function response(content: object): string {
  return JSON.stringify({ apiVersion: VERSION, kind: 'ProviderResponse', response: content });
}
