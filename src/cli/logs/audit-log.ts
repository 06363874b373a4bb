// The audit log as a file of JSON lines (docs/audit.md).

import type { AuditEvent, AuditSink } from '../../provider/audit.ts';
import { openLineFile } from './append-file.ts';

/** Opens the file of `--audit-log`. A line is on disk before the provider answers. @throws OcicryptError `not-written` */
export function openAuditLog(file: string): AuditSink {
  const lines = openLineFile(file);
  return {
    async record(event) {
      lines.append(formatAuditEvent(event));
    },
  };
}

/** The line of an event. */
export function formatAuditEvent(event: AuditEvent): string {
  return JSON.stringify({ time: new Date().toISOString(), ...event });
}
