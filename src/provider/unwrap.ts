// Opens packets: the allowed recipients, local keys first, then key services side by side.

import { wipe } from '../base/bytes.ts';
import { combineErrors } from '../base/combine.ts';
import { withAttempt } from '../base/deadline.ts';
import { asOcicryptError, OcicryptError } from '../base/errors.ts';
import { formatEntry, formatKeyUri, type KeyUri, parseKeyUri } from '../base/key-uri.ts';
import { setting } from '../base/setting.ts';
import { cannotBeUnwrapped, type EncryptionContext, type Kek, type WrappedKey } from '../kms/kek.ts';
import { firstSuccess, type Limits, type Start, withRetries } from './attempts.ts';
import { type Labels, sameLabels, showLabels } from './labels.ts';
import { isLayerKeyRecord } from './layer-key.ts';
import { nameKey } from './name-key.ts';
import { type Packet, recipientsOf } from './packet.ts';
import { contentDigest, contextLabels, openPacketV2, packetContext } from './packet-v2.ts';
import { type AllowRule, isForWrappingOnly, isNamed, selectForPacket, type VersionMatching } from './policy.ts';

export type UnwrapOptions = {
  readonly rules: readonly AllowRule[];
  readonly versions: VersionMatching;
  /** Labels that the packet must carry, exactly; undefined accepts any. */
  readonly labels: Labels | undefined;
  readonly openKek: (uri: KeyUri) => Promise<Kek>;
  readonly limits: Limits;
};

/** `record` is the layer-key record, which the caller wipes; `key` the canonical URI of the key that opened it. */
export type Unwrapped = { readonly record: Uint8Array; readonly key: string };

/**
 * Opens a packet with the first allowed key that can.
 *
 * @throws OcicryptError `not-allowed` before any key is opened or socket made; else what every allowed key answered
 */
export async function unwrapLayerKey(packet: Packet, options: UnwrapOptions, signal: AbortSignal): Promise<Unwrapped> {
  checkPacketLabels(packet, options.labels);
  const recipients = recipientsOf(packet);
  const selected = await selectCandidates(recipients, options);
  if (selected.length === 0) throw notAllowed(recipients, options);
  const candidates = selected.map((candidate) => new Candidate(candidate.recipient, candidate.uri, packet, options));
  return tryAll(candidates, options.limits.stagger, signal);
}

type Selected = { readonly recipient: WrappedKey; readonly uri: KeyUri };

async function selectCandidates(
  recipients: readonly WrappedKey[],
  options: UnwrapOptions,
): Promise<readonly Selected[]> {
  const selected = new Map<string, Selected>();
  for (const [index, recipient] of recipients.entries()) {
    const asked = parseKeyUri(recipient.key);
    for (const rule of options.rules) {
      if (isForWrappingOnly(rule, asked, recipient.algorithm, options.versions)) continue;
      if (!isNamed(rule, asked, recipient.version, options.versions)) continue;
      const uri =
        selectForPacket(rule, asked, recipient.version, options.versions) ??
        (await selectKeyfileCandidate(rule, recipient, options));
      // Two rules may lead to one key, which is tried once.
      if (uri !== undefined) selected.set(`${index} ${formatEntry(uri)}`, { recipient, uri });
    }
  }
  return [...selected.values()];
}

/** A key file that cannot be read stays a candidate: it fails with its own error, and other keys may still open. */
async function selectKeyfileCandidate(
  rule: AllowRule,
  recipient: WrappedKey,
  options: UnwrapOptions,
): Promise<KeyUri | undefined> {
  try {
    return await selectKeyfile(rule, recipient, options);
  } catch {
    return rule.kind === 'key' ? rule.uri : undefined;
  }
}

/** Packets know key files and identity files by what they hold, the operator by where they are: only opening tells. */
export async function selectKeyfile(
  rule: AllowRule,
  asked: { readonly key: string },
  options: Pick<UnwrapOptions, 'openKek'>,
): Promise<KeyUri | undefined> {
  if (!/^(?:keyfile:sha256:|age1)/.test(asked.key)) return undefined;
  if (rule.kind !== 'key' || rule.uri.scheme !== 'keyfile' || !('path' in rule.uri)) return undefined;
  const kek = await options.openKek(rule.uri);
  return kek.key === asked.key || kek.otherKeys?.includes(asked.key) ? rule.uri : undefined;
}

/** One recipient of the packet and the operator's key for it; remembers how it failed. */
class Candidate {
  readonly local: boolean;
  readonly name: string;
  failure: OcicryptError | undefined;
  readonly #isComputed: boolean;
  readonly #recipient: WrappedKey;
  readonly #uri: KeyUri;
  readonly #packet: Packet;
  readonly #options: UnwrapOptions;

  constructor(recipient: WrappedKey, uri: KeyUri, packet: Packet, options: UnwrapOptions) {
    this.local = LOCAL_SCHEMES.has(uri.scheme);
    this.#isComputed = COMPUTED_KEY.test(recipient.key);
    this.name = recipient.key;
    this.#recipient = recipient;
    this.#uri = uri;
    this.#packet = packet;
    this.#options = options;
  }

  /** {@link openOnce}, again as long as that is worthwhile; other candidates need not wait for it. */
  async open(signal: AbortSignal, makeWay: () => void): Promise<Unwrapped> {
    try {
      return await withRetries(this.#options.limits, signal, () =>
        this.openOnce(signal).catch((error: unknown) => {
          makeWay();
          throw error;
        }),
      );
    } catch (error) {
      this.failure = asOcicryptError(error);
      throw this.failure;
    }
  }

  async openOnce(signal: AbortSignal): Promise<Unwrapped> {
    try {
      const record = this.#isComputed
        ? await this.#unwrap(signal)
        : await withAttempt(this.#options.limits.attempt, signal, `key ${this.name}`, (end) => this.#unwrap(end));
      return { record, key: this.name };
    } catch (error) {
      this.failure = asOcicryptError(error);
      throw this.failure;
    }
  }

  async #unwrap(signal: AbortSignal): Promise<Uint8Array> {
    const kek = await this.#options.openKek(this.#uri);
    const packet = this.#packet;
    const context = contextOf(packet);
    let unwrapped: Uint8Array | undefined;
    try {
      unwrapped = await kek.unwrap(this.#recipient, context, signal);
      // Another key was faster, or time is up: what comes now would stay unwiped.
      signal.throwIfAborted();
      const record = packet.format === 'v2' ? openPacketV2(packet, unwrapped) : Uint8Array.from(unwrapped);
      return checkRecord(record, this.name);
    } catch (error) {
      const isNotOpened = error instanceof OcicryptError && error.reason === 'cannot-be-unwrapped';
      throw isNotOpened ? notOpened(this.name) : nameKey(error, this.name);
    } finally {
      wipe(unwrapped);
    }
  }
}

/** Keys on this machine answer at once and cost nothing. */
const LOCAL_SCHEMES: ReadonlySet<string> = new Set(['keyfile', 'age', 'pkcs11', 'kbs']);
/**
 * Of these, those whose work is done in one go: no deadline could end it before it ends by itself. By the packet's name
 * for the key, since a file that the operator names may hold identities of age, whose work is not.
 */
const COMPUTED_KEY = /^(?:keyfile|kbs):/;

/**
 * Local keys first, one after the other. Then services side by side, each of them as often as it is worthwhile, and local
 * keys that may yet open it: none of them waits for another that is out of order.
 */
async function tryAll(candidates: readonly Candidate[], stagger: number, signal: AbortSignal): Promise<Unwrapped> {
  for (const candidate of candidates.filter(({ local }) => local)) {
    try {
      return await candidate.openOnce(signal);
    } catch {
      // The candidate keeps its failure; the next one may still open the packet.
    }
  }
  const racing = [
    ...candidates.filter(({ local }) => !local),
    ...candidates.filter(({ failure }) => failure?.retryable),
  ];
  const starts = racing.map(
    (one): Start<Unwrapped> =>
      (end, makeWay) =>
        one.open(end, makeWay),
  );
  const opened = await firstSuccess(starts, stagger, signal);
  if (opened !== undefined) return opened;
  const failures = candidates.flatMap(({ failure }) => (failure === undefined ? [] : [failure]));
  throw combineErrors(failures, `none of ${failures.length} keys opened the packet`);
}

function checkRecord(record: Uint8Array, key: string): Uint8Array {
  if (isLayerKeyRecord(record)) return record;
  wipe(record);
  throw notOpened(key);
}

/** Wrong key, tag, shape and context look the same from outside, wherever the fault was found (docs/promises.md, P15). */
function notOpened(key: string): OcicryptError {
  return cannotBeUnwrapped(`key ${key}`, 'the image was encrypted to another key, or its annotation was changed');
}

function contextOf(packet: Packet): EncryptionContext {
  return packet.format === 'v2' ? packetContext(packet.labels, contentDigest(packet)) : packet.context;
}

function checkPacketLabels(packet: Packet, wanted: Labels | undefined): void {
  const present = packet.format === 'v2' ? packet.labels : contextLabels(packet.context);
  if (wanted === undefined || sameLabels(present, wanted)) return;
  throw new OcicryptError('not-allowed', `the packet's labels are ${showLabels(present)}, not ${showLabels(wanted)}`, {
    hint: `change ${setting('labels')} to those labels if this image may be opened here`,
  });
}

function notAllowed(recipients: readonly WrappedKey[], { rules, versions }: UnwrapOptions): OcicryptError {
  for (const { key, algorithm } of recipients) {
    const asked = parseKeyUri(key);
    const rule = rules.find((one) => isForWrappingOnly(one, asked, algorithm, versions));
    if (rule?.kind === 'key' && rule.uri.scheme === 'gcpkms') return versionNotAllowed(rule.uri);
  }
  const shown = recipients.slice(0, 3).map(({ key }) => key);
  const more = recipients.length > shown.length ? ` and ${recipients.length - shown.length} more` : '';
  const first = shown[0] ?? '';
  return new OcicryptError('not-allowed', `key ${shown.join(', ')}${more} is not allowed here`, {
    hint: first.startsWith('keyfile:')
      ? `give the file that holds it: ${setting('keys')}=FILE`
      : `to allow it, add ${setting('rules')}=${first}`,
  });
}

function versionNotAllowed(uri: Extract<KeyUri, { scheme: 'gcpkms' }>): OcicryptError {
  const key = formatKeyUri({ scheme: 'gcpkms', key: uri.key });
  return new OcicryptError(
    'not-allowed',
    `${formatKeyUri(uri)} is allowed for wrapping only: Google finds the version of a symmetric key in the ciphertext, whichever is named`,
    { hint: `allow the key, ${key}, and disable in Cloud KMS the versions that are to open nothing` },
  );
}
