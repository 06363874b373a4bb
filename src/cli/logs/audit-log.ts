// The audit log as a file of JSON lines (docs/audit.md).

import type { AuditSink } from '../../provider/audit.ts';
import { asciiJson } from '../text.ts';
import { LineFile } from './append-file.ts';

/** An audit log that can be rotated. */
export interface AuditLog extends AuditSink {
  /** Takes events of every kind: a provider's, and those of a webhook. */
  record(event: object): Promise<void>;
  /** Goes on in the file that has the name now. @throws OcicryptError `not-written` */
  reopen(): void;
}

/** Opens the file of `--audit-log`. A line is on disk before the provider answers. @throws OcicryptError `not-written` */
export function openAuditLog(file: string): AuditLog {
  const lines = new LineFile(file, 'evidence');
  return { record: async (event) => lines.append(formatAuditEvent(event)), reopen: () => lines.reopen() };
}

/** The line of an event, of whatever kind. */
export function formatAuditEvent(event: object): string {
  return asciiJson({ time: new Date().toISOString(), ...event });
}
