// Decides, for CI and admission, whether an image is encrypted as it should be; what is only claimed is called a claim.

import { parseAwsArn } from '../base/aws-arn.ts';
import { OcicryptError } from '../base/errors.ts';
import { asKeyUri } from '../base/key-uri.ts';
import type { LayerKeyUnwrapper } from '../client/layer-keys.ts';
import { type AllowRule, parseAllowRule, selectForPacket } from '../provider/policy.ts';
import { type ImageReport, type InspectedLayer, reportOf } from './inspect.ts';
import { decryptedType, isLayerType } from './model/annotations.ts';
import { isDigest } from './model/descriptor.ts';
import { formatDigestTag, noDigestTags } from './model/digest-tag.ts';
import { MEDIA_TYPES } from './model/manifest.ts';
import type { PacketRecipient } from './model/packets.ts';
import { findClassic } from './post-quantum.ts';
import { type ImageSource, isTagSource } from './transports/store.ts';
import { imagesOf, type PlatformImage, platformName, readImageTree } from './tree.ts';
import { proveLayers } from './verify-keys.ts';
import type { VerifyReason } from './verify-reason.ts';

/** What an image must be, and how much of it is to be proved. */
export type VerifyOptions = {
  /** Key URIs; every layer must be wrapped for each. Key files by thumbprint, AWS keys by ARN. */
  readonly require?: readonly string[];
  /** Key URIs, or prefixes ending in `/*`: no layer may be wrapped for anybody else. */
  readonly only?: readonly string[] | undefined;
  /**
   * Gives what opens layer keys with the required key, or with any if none is required. Without it nothing is
   * opened, and the verdict is about what the metadata claims.
   */
  readonly unwrapper?: ((key: string | undefined) => LayerKeyUnwrapper) | undefined;
  /**
   * Whether to read every layer too, with an `unwrapper` only: that it is encrypted at all, under the key that was opened,
   * and decrypts to what the config says. Clients without a key run a plain layer that is only called encrypted.
   */
  readonly content?: boolean;
  /** Whether no layer may be wrapped for anybody whom a quantum computer of the future could stand in for. */
  readonly postQuantum?: boolean;
  /** Whether a sparse index passes, of which some manifests are not here: nothing is known of them. */
  readonly allowAbsent?: boolean;
  /** Whether the image must have its digest tag, and that tag stand for it. */
  readonly digestTag?: boolean;
  readonly signal?: AbortSignal;
  /** Told how many bytes of memory the packets of the image take at the most until the verdict; ends the work by throwing. */
  readonly hold?: ((bytes: number) => void) | undefined;
};

/** The verdict about an image, and what it rests on. */
export type Verification = {
  readonly ok: boolean;
  /** Why not, in the order of the image; empty when all is well. */
  readonly reasons: readonly VerifyReason[];
  /** Whether the keys have really been used. */
  readonly proven: boolean;
  /** What stays a claim: that keys open the layers, and that the layers are encrypted under them. */
  readonly notProved: readonly ('keys' | 'content')[];
  /** What the image's digest tag was found to be, if that was asked. */
  readonly digestTag: 'missing' | 'moved' | 'ok' | undefined;
  readonly report: ImageReport;
  /** What of the image anybody can read, encrypted or not. */
  readonly inClear: readonly string[];
};

/**
 * Visits every layer of every platform. Keys and layers are tried only if the metadata is as it should be.
 *
 * @param source where the image is
 * @throws OcicryptError `usage` for a key that packets cannot be compared with; `not-found`, `bad-input`, `integrity`
 *   if the manifests cannot be read
 * @example
 * const { ok, reasons } = await verifyImage(source, { require: [key], only: [key] });
 */
export async function verifyImage(source: ImageSource, options: VerifyOptions = {}): Promise<Verification> {
  const required = (options.require ?? []).map((key) => ({ key, rule: comparableRule(key) }));
  const only = options.only?.map(comparableRule);
  if (options.digestTag === true && !isTagSource(source)) throw noDigestTags(source.name);
  const { unwrapper, content = false, signal } = options;
  const tree = await readImageTree(source, signal);
  const report = reportOf(source.name, tree, options.hold);
  const images = imagesOf(tree);
  const reasons: VerifyReason[] = [
    ...judgeReport(report, { required, only, postQuantum: options.postQuantum === true }),
    ...judgeManifests(images),
    ...(options.allowAbsent === true ? [] : judgeAbsent(report)),
  ];
  const named: VerifyReason[] = [];
  const digestTag = await judgeDigestTag(source, report.digest, options, named);
  const proven = unwrapper !== undefined && reasons.length === 0;
  if (proven) {
    const keys = required.length === 0 ? [undefined] : required.map(({ key }) => key);
    const isFaulty = named.length > 0;
    reasons.push(...(await proveLayers(source, images, { keys, unwrapper, content, isFaulty, signal })));
  }
  reasons.push(...named);
  const notProved = [...(proven ? [] : ['keys' as const]), ...(proven && content ? [] : ['content' as const])];
  return { ok: reasons.length === 0, reasons, proven, notProved, digestTag, report, inClear: IN_CLEAR };
}

/** The error for an image that is not as it should be. @param hint what to do, if not to look at the image */
export function notVerified(
  { reasons, report }: Verification,
  hint = `see ocicrypt-kms inspect ${report.name}`,
): OcicryptError {
  const [first, ...others] = reasons;
  const more = others.length === 0 ? '' : ` (and ${others.length} further reason${others.length === 1 ? '' : 's'})`;
  return new OcicryptError(
    'integrity',
    `${report.name} is not encrypted as it should be: ${first?.message ?? ''}${more}`,
    { hint },
  );
}

/**
 * Whether a recipient is the key, as far as its packet tells.
 *
 * @param key a key URI, or a prefix ending in `/*`; key files by thumbprint, AWS keys by ARN
 * @throws OcicryptError `usage` for a key that packets cannot be compared with
 */
export function createRecipientMatcher(key: string): (recipient: PacketRecipient) => boolean {
  const rule = comparableRule(key);
  return (recipient) => isCovered(recipient, rule);
}

const IN_CLEAR = [
  'config (environment, entry point, labels)',
  'history (the commands that built the image)',
  'diff ids (digests of the plain layers)',
  'sizes and number of layers',
];

type Required = { readonly key: string; readonly rule: AllowRule };

/** What is asked of every layer. */
type Wishes = {
  readonly required: readonly Required[];
  readonly only: readonly AllowRule[] | undefined;
  readonly postQuantum: boolean;
};

/** A hostile image has as many reasons as it has layers and keys. */
const MAXIMUM_REASONS = 1000;

function judgeReport({ name, platforms, unknown }: ImageReport, wishes: Wishes): readonly VerifyReason[] {
  const reasons = unknown.map(
    ({ digest, mediaType }): VerifyReason => ({
      code: 'unknown-entry',
      message: isDigest(digest)
        ? `${digest} is of an unknown type (${mediaType}), which some clients run`
        : `${digest} is not read, because it is no SHA-256 digest, and some clients run it`,
    }),
  );
  if (platforms.length === 0) reasons.push({ code: 'no-image', message: `${name} holds no image` });
  for (const { platform, layers } of platforms) {
    if (layers.length === 0) reasons.push({ code: 'no-layer', message: `${platform}: no layer` });
    for (const [index, layer] of layers.entries()) {
      for (const { code, message } of judgeLayer(layer, wishes))
        reasons.push({ code, message: `${platform}: layer ${index} ${message}` });
      if (reasons.length > MAXIMUM_REASONS)
        return [
          ...reasons.slice(0, MAXIMUM_REASONS),
          { code: 'more', message: 'and so on: there may be further reasons' },
        ];
    }
  }
  return reasons;
}

/** Anybody who has the manifest may put it beside the index later. */
function judgeAbsent({ absent }: ImageReport): readonly VerifyReason[] {
  return absent.map(({ platform, digest }) => ({ code: 'absent', message: `${platform}: ${digest} is not here` }));
}

/**
 * What is called a layer in the place of the config, containerd unpacks first. In Docker's manifests encrypted layers have
 * no place: containerd reads them and containers/image refuses them.
 */
function judgeManifests(images: readonly PlatformImage[]): readonly VerifyReason[] {
  return images.flatMap((image) => {
    const reasons: VerifyReason[] = [];
    const name = platformName(image);
    const { mediaType } = image.manifest.config;
    if (isLayerType(mediaType))
      reasons.push({
        code: 'config-is-layer',
        message: `${name}: the config is of the type of a layer (${mediaType})`,
      });
    if (image.stored.mediaType !== MEDIA_TYPES.manifest)
      reasons.push({
        code: 'manifest-type',
        message: `${name}: encrypted layers need an OCI manifest (${image.stored.mediaType})`,
      });
    return reasons;
  });
}

function* judgeLayer(layer: InspectedLayer, { required, only, postQuantum }: Wishes): Generator<VerifyReason> {
  if (!layer.encrypted) return yield { code: 'plain', message: `is plain (${layer.mediaType})` };
  if (decryptedType(layer.mediaType) === undefined)
    return yield { code: 'unknown-type', message: `is of an unknown type (${layer.mediaType})` };
  if (layer.problem !== undefined) return yield { code: 'senseless', message: `makes no sense: ${layer.problem}` };
  if (layer.shortcut !== undefined)
    yield {
      code: 'shortcut',
      message: `has the annotation ${layer.shortcut}, by which some clients run other content than its own`,
    };
  const recipients = layer.keys.flatMap((packet) => packet.recipients);
  for (const { key, rule } of required) {
    if (!recipients.some((recipient) => isCovered(recipient, rule)))
      yield { code: 'missing-recipient', message: `is not wrapped for ${key}` };
  }
  if (postQuantum)
    for (const name of findClassic(layer.keys))
      yield { code: 'not-post-quantum', message: `is wrapped for ${name}, which is not post-quantum` };
  if (only === undefined) return;
  for (const packet of layer.keys) {
    if (packet.recipients.length === 0)
      yield { code: 'unnamed-recipient', message: `has a key of ${packet.scheme} that names no recipient` };
  }
  for (const recipient of recipients) {
    if (!only.some((rule) => isCovered(recipient, rule)))
      yield { code: 'excess-recipient', message: `is wrapped for ${recipient.key ?? 'an unnamed recipient'}` };
  }
}

async function judgeDigestTag(
  source: ImageSource,
  digest: string,
  { digestTag: isAsked, signal }: VerifyOptions,
  reasons: VerifyReason[],
): Promise<Verification['digestTag']> {
  if (isAsked !== true || !isTagSource(source)) return undefined;
  const tag = formatDigestTag(digest);
  const found = await source.resolveTag(tag, signal);
  if (found === digest) return 'ok';
  const message = found === undefined ? `it has no tag ${tag}` : `its tag ${tag} stands for another image, ${found}`;
  reasons.push({ code: 'digest-tag', message });
  return found === undefined ? 'missing' : 'moved';
}

function isCovered({ key, version }: PacketRecipient, rule: AllowRule): boolean {
  const uri = asKeyUri(key ?? '');
  return uri !== undefined && selectForPacket(rule, uri, version, 'exact') !== undefined;
}

/** Names that only their service can resolve would be found in any packet of that service. */
function comparableRule(key: string): AllowRule {
  const rule = parseAllowRule(key);
  if (rule.kind === 'prefix') return rule;
  const { uri } = rule;
  if (uri.scheme === 'awskms' && !parseAwsArn(uri.key)?.resource.startsWith('key/')) {
    throw new OcicryptError('usage', `${key} cannot be compared with what a packet says`, {
      hint: 'name the key by its ARN',
    });
  }
  if (uri.scheme === 'keyfile' && 'path' in uri) {
    throw new OcicryptError('usage', `${key} cannot be compared with what a packet says`, {
      hint: 'name the key file by its thumbprint, keyfile:sha256:…',
    });
  }
  return rule;
}
