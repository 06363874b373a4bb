// Tries a key on purpose: a random probe is wrapped and unwrapped, and each phase is timed.

import { randomBytes } from 'node:crypto';
import { equalBytes, wipe } from '../base/bytes.ts';
import { withDeadline } from '../base/deadline.ts';
import { asOcicryptError, OcicryptError } from '../base/errors.ts';
import { formatKeyUri, type KeyUri } from '../base/key-uri.ts';
import type { Kek, WrappedKey } from '../kms/kek.ts';
import { type Limits, withAttempts } from './attempts.ts';
import type { Labels } from './labels.ts';
import { contentDigest, packetContext } from './packet-v2.ts';
import { isForWrappingOnly } from './policy.ts';

export type ProbePhase = 'open' | 'wrap' | 'unwrap';

/** What a probe found out; `failure` is that of the last one in `phases`. */
export type ProbeResult = {
  /** The operator's own URI in canonical form. */
  readonly key: string;
  readonly backend: string;
  /** What the service said of the key that wrapped. */
  readonly wrapped?: Pick<WrappedKey, 'algorithm' | 'key' | 'version'> | undefined;
  /** That an entry of the operator's with this URI allows wrapping only, although the probe was unwrapped. */
  readonly wrapsOnly?: true | undefined;
  readonly phases: readonly { readonly phase: ProbePhase; readonly milliseconds: number }[];
  readonly failure?: OcicryptError;
};

export type ProbeOptions = {
  readonly openKek: (uri: KeyUri) => Promise<Kek>;
  readonly labels: Labels;
  /** The provider's own, for each phase. */
  readonly limits: Limits;
};

/** As many bytes as a v2 packet wraps. */
const PROBE_BYTES = 32;

/** Wraps and unwraps as a v2 packet would, under the provider's limits and with its retries. Never throws. */
export async function probeKey(uri: KeyUri, options: ProbeOptions): Promise<ProbeResult> {
  const key = formatKeyUri(uri);
  const content = contentDigest({ nonce: randomBytes(PROBE_BYTES), ciphertext: new Uint8Array(0) });
  const context = packetContext(options.labels, content);
  const phases: { phase: ProbePhase; milliseconds: number }[] = [];
  const probe = randomBytes(PROBE_BYTES);
  let wrapped: WrappedKey | undefined;
  let unwrapped: Uint8Array | undefined;

  async function timed<Result>(phase: ProbePhase, run: (signal: AbortSignal) => Promise<Result>): Promise<Result> {
    const started = performance.now();
    try {
      return await withDeadline(options.limits.total, undefined, `key ${key}`, (signal) =>
        withAttempts(options.limits, signal, `key ${key}`, run),
      );
    } finally {
      phases.push({ phase, milliseconds: Math.round((performance.now() - started) * 100) / 100 });
    }
  }
  const found = () => ({
    key,
    backend: uri.scheme,
    phases,
    wrapsOnly: isForWrappingOnly({ kind: 'key', uri }, uri, wrapped?.algorithm ?? '', 'exact') || undefined,
    wrapped: wrapped && { key: wrapped.key, algorithm: wrapped.algorithm, version: wrapped.version },
  });

  try {
    const kek = await timed('open', () => options.openKek(uri));
    const sealed = await timed('wrap', (signal) => kek.wrap(probe, context, signal));
    wrapped = sealed;
    unwrapped = await timed('unwrap', (signal) => kek.unwrap(sealed, context, signal));
    if (equalBytes(unwrapped, probe)) return found();
    throw new OcicryptError('integrity', `${key} unwrapped something else than it had wrapped`);
  } catch (error) {
    return { ...found(), failure: asOcicryptError(error) };
  } finally {
    wipe(probe, unwrapped);
  }
}
