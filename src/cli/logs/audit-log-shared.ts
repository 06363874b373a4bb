// The audit log of a server: the lines of many callers, written together while the disk is busy, without blocking other calls.

import { fdatasync, write } from 'node:fs';
import { promisify } from 'node:util';
import type { OcicryptError } from '../../base/errors.ts';
import { LineFile, notWritten } from './append-file.ts';
import { type AuditLog, formatAuditEvent } from './audit-log.ts';

/**
 * As `openAuditLog`, for a process with many callers at once. Only to a file are the lines of several callers written as
 * one: what a pipe takes of them may be a part, and the lines of other writers would follow that.
 *
 * @throws OcicryptError `not-written`
 */
export function openSharedAuditLog(file: string): AuditLog {
  const lines = new LineFile(file, 'evidence');
  const shared = lines.isRegular() ? new SharedLines(file, lines) : lines;
  return { record: async (event) => shared.append(formatAuditEvent(event)), reopen: () => lines.reopen() };
}

type Waiting = {
  readonly line: string;
  readonly resolve: () => void;
  readonly reject: (error: OcicryptError) => void;
};

/** Writes as long as lines wait, each time all that have come in the meantime. */
class SharedLines {
  readonly #file: string;
  readonly #lines: LineFile;
  #waiting: Waiting[] = [];
  #isWriting = false;

  constructor(file: string, lines: LineFile) {
    this.#file = file;
    this.#lines = lines;
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
      const waiting = this.#waiting;
      this.#waiting = [];
      try {
        const batch = this.#lines.begin(waiting.map(({ line }) => line));
        const { bytesWritten } = await promisify(write)(batch.descriptor, batch.bytes);
        this.#lines.written(batch, bytesWritten);
        await promisify(fdatasync)(batch.descriptor);
        this.#lines.finish(batch);
        for (const { resolve } of waiting) resolve();
      } catch (cause) {
        const error = notWritten(this.#file, cause);
        for (const { reject } of waiting) reject(error);
      } finally {
        this.#lines.end();
      }
    }
    this.#isWriting = false;
  }
}
