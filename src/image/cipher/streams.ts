// How bytes come and go in the image layer: pulled into memory that the reader owns, pushed to a sink that commits.

import type { FileHandle } from 'node:fs/promises';

/** Bytes to be read in order. */
export interface ByteSource {
  /** Writes the next bytes to the start of `into` and resolves with their number; 0 is the end. */
  read(into: Uint8Array): Promise<number>;
}

/** Where bytes go in order. */
export interface ByteSink {
  /** Resolves when `bytes` may be used for something else: a sink that keeps them must copy them. */
  write(bytes: Uint8Array): Promise<void>;
}

/** The bytes of an open file from where it stands. Closes nothing. */
export function sourceFromFile(file: FileHandle): ByteSource {
  return { read: async (into) => (await file.read(into, 0, into.length, null)).bytesRead };
}

/** The chunks of a stream, of any size. */
export function sourceFromStream(stream: AsyncIterable<Uint8Array>): ByteSource {
  const chunks = stream[Symbol.asyncIterator]();
  let held: Uint8Array = new Uint8Array(0);
  return {
    async read(into) {
      while (held.length === 0) {
        const next = await chunks.next();
        if (next.done === true) return 0;
        held = next.value;
      }
      const part = held.subarray(0, into.length);
      into.set(part);
      held = held.subarray(part.length);
      return part.length;
    },
  };
}

/** Bytes that were read already, before those that follow them. */
export function sourceAfter(head: Uint8Array, rest: ByteSource): ByteSource {
  let left = head;
  return {
    async read(into) {
      if (left.length === 0) return rest.read(into);
      const part = left.subarray(0, into.length);
      into.set(part);
      left = left.subarray(part.length);
      return part.length;
    },
  };
}
