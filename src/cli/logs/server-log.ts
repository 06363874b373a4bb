// What a server says while it runs: JSON lines on standard error, as systemd and containers collect them.

import type { ServerLog } from '../../server/upkeep.ts';
import type { Terminal } from '../terminal.ts';
import { formatLogLine } from './log-line.ts';

export function createServerLog(terminal: Terminal): ServerLog {
  return {
    info: (fields, message) => terminal.say(formatLogLine('info', fields, message)),
    warn: (fields, message) => terminal.say(formatLogLine('warn', fields, message)),
  };
}
