// The audit log of a server: the lines of many callers, written together while the disk is busy, in nobody's way.

import { fdatasync, fstatSync, write } from 'node:fs';
import { promisify } from 'node:util';
import type { OcicryptError } from '../../base/errors.ts';
import type { AuditSink } from '../../provider/audit.ts';
import { LineEnd, lineFile, notWritten, openForAppending } from './append-file.ts';
import { formatAuditEvent } from './audit-log.ts';

/**
 * As `openAuditLog`, for a process with many callers at once. Only a file takes any number of bytes as one: a
 * pipe may take a part of them, and the lines of other writers would follow that.
 *
 * @throws OcicryptError `not-written`
 */
export function openSharedAuditLog(file: string): AuditSink {
  const descriptor = openForAppending(file);
  const isFile = fstatSync(descriptor).isFile();
  const lines = isFile ? new SharedLines(file, descriptor) : lineFile(file, descriptor);
  return { record: async (event) => lines.append(formatAuditEvent(event)) };
}

type Waiting = {
  readonly line: string;
  readonly resolve: () => void;
  readonly reject: (error: OcicryptError) => void;
};

/** Writes as long as lines wait, each time all that have come in the meantime. */
class SharedLines {
  readonly #file: string;
  readonly #descriptor: number;
  readonly #end: LineEnd;
  #waiting: Waiting[] = [];
  #isWriting = false;

  constructor(file: string, descriptor: number) {
    this.#file = file;
    this.#descriptor = descriptor;
    this.#end = new LineEnd(file, descriptor);
  }

  append(line: string): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    this.#waiting.push({ line, resolve, reject });
    if (!this.#isWriting) void this.#writeAll();
    return promise;
  }

  async #writeAll(): Promise<void> {
    this.#isWriting = true;
    while (this.#waiting.length > 0) {
      const batch = this.#waiting;
      this.#waiting = [];
      try {
        const bytes = this.#end.encode(batch.map(({ line }) => line));
        const { bytesWritten } = await promisify(write)(this.#descriptor, bytes);
        this.#end.check(bytes, bytesWritten);
        await promisify(fdatasync)(this.#descriptor);
        for (const { resolve } of batch) resolve();
      } catch (cause) {
        const error = notWritten(this.#file, cause);
        for (const { reject } of batch) reject(error);
      }
    }
    this.#isWriting = false;
  }
}
