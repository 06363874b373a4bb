// Changes that no test can notice, because the program does the same with them, or says the same in other words.

import { type Change, changedSource, sourceOf } from './changes.ts';

type Equivalent = {
  readonly file: string;
  /** A piece of the file that is there once. */
  readonly code: string;
  readonly changed: string;
  readonly why: string;
};

const UNSEEN = 'what is made has no reader';
const IN_PIECES = 'the same bytes in parts of another size';
const IN_MEMORY = 'no test has it in its hands: the memory of the process alone shows it';

export const EQUIVALENT: readonly Equivalent[] = [
  ...['  if ((mode', '  if (uid !='].map((next) => ({
    file: 'src/base/secret-file.ts',
    code: `if (us === undefined) return;\n${next}`,
    changed: `if (false) return;\n${next}`,
    why: 'the systems that tests run on have users',
  })),
  ...['65 * 1024', '64 * 1025'].map((changed) => ({
    file: 'src/base/secret-file.ts',
    code: '64 * 1024',
    changed,
    why: 'the file is read in fewer or more pieces',
  })),
  {
    file: 'src/base/aes-gcm.ts',
    code: 'wipe(plaintext);',
    changed: ';',
    why: IN_MEMORY,
  },
  ...['at <= bytes.length && !READS_ONE_FRAME', 'false'].map((changed) => ({
    file: 'src/image/cipher/inflate.ts',
    code: 'at < bytes.length && !READS_ONE_FRAME',
    changed,
    why: 'for Bun, on which test:bun runs',
  })),
  {
    file: 'src/image/cipher/lane.ts',
    code: 'wipe(secrets);',
    changed: ';',
    why: IN_MEMORY,
  },
  {
    file: 'src/image/cipher/layer.ts',
    code: 'if (sum === undefined)',
    changed: 'if (false)',
    why: 'each of its passes has given its sum by then',
  },
  {
    file: 'src/image/cipher/passes.ts',
    code: '128 * 1024',
    changed: '128 * 1025',
    why: IN_PIECES,
  },
  {
    file: 'src/image/cipher/passes.ts',
    code: '128 * 1024',
    changed: '129 * 1024',
    why: IN_PIECES,
  },
  {
    file: 'src/image/cipher/passes.ts',
    code: 'from < chunk.length',
    changed: 'from <= chunk.length',
    why: 'a part without bytes changes no sum',
  },
  {
    file: 'src/image/cipher/pipeline.ts',
    code: 'options.size + 1',
    changed: 'options.size + 2',
    why: 'one byte of memory more',
  },
  {
    file: 'src/image/cipher/ring.ts',
    code: 'const STOPPED = -1',
    changed: 'const STOPPED = -2',
    why: 'another number that no party counts to',
  },
  {
    file: 'src/image/cipher/ring.ts',
    code: 'const COUNTERS = 8',
    changed: 'const COUNTERS = 9',
    why: 'a counter that no party has',
  },
  ...(
    [
      ['2 * CHUNK_BYTES', '3 * CHUNK_BYTES'],
      ['toldSize(bytes) + 1', 'toldSize(bytes) - 1'],
      ['toldSize(bytes) + 1', 'toldSize(bytes) + 2'],
      ['bytes.length < 4 ? 0', 'true ? 0'],
      ['bytes.length < 4 ? 0', 'false ? 0'],
      ['bytes.length < 4 ? 0', 'bytes.length <= 4 ? 0'],
      ['bytes.length < 4 ? 0', 'bytes.length < 5 ? 0'],
      ['bytes.length < 4 ? 0', 'bytes.length < 4 ? 1'],
      ['bytes.length - 4)', 'bytes.length - 5)'],
      ['getUint32(0, true)', 'getUint32(0, false)'],
    ] as const
  ).map(([code, changed]) => ({ file: 'src/image/cipher/uncompress.ts', code, changed, why: IN_PIECES })),
  {
    file: 'src/image/cipher/uncompress.ts',
    code: 'running.discard();',
    changed: ';',
    why: IN_MEMORY,
  },
  {
    file: 'src/image/cipher/zstd-frames.ts',
    code: '#checksum = 0',
    changed: '#checksum = 1',
    why: 'a descriptor comes before each checksum',
  },
  {
    file: 'src/image/cipher/zstd-frames.ts',
    code: 'bytes[at++] ?? 0',
    changed: 'bytes[at++] ?? 1',
    why: 'there is a byte',
  },
  {
    file: 'src/kms/store.ts',
    code: 'if (outdated !== undefined) throw',
    changed: 'if (false) throw',
    why: 'no test runs on a Node that is too old',
  },
  ...(
    [
      ['if (!isObserved(options)) return;', 'if (false) return;'],
      ['if (isObserved(options)) {', 'if (true) {'],
      ['if (isObserved(options)) draft.packetDigest', 'if (true) draft.packetDigest'],
      ['if (isObserved(options)) describeContent', 'if (true) describeContent'],
    ] as const
  ).map(([code, changed]) => ({ file: 'src/provider/handle.ts', code, changed, why: UNSEEN })),
  {
    file: 'src/provider/handle.ts',
    code: 'wipe(reply);',
    changed: ';',
    why: IN_MEMORY,
  },
  {
    file: 'src/image/verify-keys.ts',
    code: 'wipe(other.key);',
    changed: ';',
    why: IN_MEMORY,
  },
  {
    file: 'src/provider/policy.ts',
    code: "rule.uri.scheme !== 'gcpkms' || recipient.scheme",
    changed: "rule.uri.scheme !== 'gcpkms' && recipient.scheme",
    why: 'keys of two services are never the same text',
  },
  {
    file: 'src/provider/policy.ts',
    code: "uri.scheme === 'gcpkms' || uri.scheme === 'azurekms' ? uri.version",
    changed: 'true ? uri.version',
    why: 'URIs of other services have no version',
  },
  ...(
    [
      [
        "if (wrapped === undefined) throw new OcicryptError('internal', 'no key to wrap with');\n    if",
        "if (false) throw new OcicryptError('internal', 'no key to wrap with');\n    if",
      ],
      [
        "if (wrapped === undefined) throw new OcicryptError('internal', 'no key to wrap with');\n  return",
        "if (false) throw new OcicryptError('internal', 'no key to wrap with');\n  return",
      ],
    ] as const
  ).map(([code, changed]) => ({
    file: 'src/provider/wrap.ts',
    code,
    changed,
    why: 'one key was given, and it has wrapped',
  })),
  {
    file: 'src/provider/probe.ts',
    code: 'ciphertext: new Uint8Array(0)',
    changed: 'ciphertext: new Uint8Array(1)',
    why: 'a probe has no content, and any digest serves',
  },
  {
    file: 'src/provider/probe.ts',
    code: 'started) * 100)',
    changed: 'started) * 101)',
    why: 'times of a probe are for people, who do not see one part of a hundred',
  },
  {
    file: 'src/provider/unwrap.ts',
    code: "return rule.kind === 'key' ? rule.uri",
    changed: 'return true ? rule.uri',
    why: 'no prefix opens a file that could fail',
  },
  {
    file: 'src/provider/unwrap.ts',
    code: 'failure === undefined ? []',
    changed: 'false ? []',
    why: 'each candidate has failed by then',
  },
];

/** Whether the change is one of those. @throws Error if the file has the piece of one of them no more, or twice */
export function isEquivalent(change: Change): boolean {
  const text = sourceOf(change.file);
  return EQUIVALENT.filter(({ file }) => file === change.file).some(({ code, changed }) => {
    const [before = '', after, ...more] = text.split(code);
    if (after === undefined || more.length > 0) throw new Error(`${change.file} has not once: ${code}`);
    return before + changed + after === changedSource(change);
  });
}
