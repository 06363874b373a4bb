// What a decoder leaves behind when it fails, so that containerd shows why and the system's log has it too.

import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { STANDARD_STREAMS } from './standard-streams.ts';

/** For a decoder that has failed, after its line. */
export async function leaveLastWords(line: string): Promise<void> {
  if (process.env.STREAM_PROCESSOR_MEDIATYPE === undefined) return;
  holdOutput(line);
  await spoilOutput();
}

/**
 * containerd reads standard output to its end and then looks whether the decoder has failed, without waiting for it: what
 * it has not seen by then is lost, and it complains of the hash of nothing. So a child keeps standard output open until
 * containerd has taken the exit status (only then is the process gone), and a moment more. It must not have standard
 * error or input, for whose ends containerd waits before it believes the status.
 * https://github.com/containerd/containerd core/diff/stream_unix.go, core/diff/apply/apply.go
 */
function holdOutput(line: string): void {
  try {
    const child = spawn('/bin/sh', ['-c', SCRIPT, 'ocicrypt-kms', String(process.pid), line], {
      env: { PATH: process.env.PATH ?? USUAL_PATH, LC_ALL: 'C' },
      // A signal to our group does not end it.
      detached: true,
      stdio: ['ignore', 'inherit', 'ignore'],
    });
    child.on('error', () => undefined);
    child.unref();
  } catch {
    // No shell here: the reason may be lost, and what was written is taken for no layer all the same.
  }
}

/**
 * Makes sure that what was written has a digest that no image can name, should a reader miss the status. First comes the end
 * of an archive, behind which containerd looks for the status.
 */
async function spoilOutput(): Promise<void> {
  await STANDARD_STREAMS.output
    .write(Buffer.concat([new Uint8Array(TAR_END_BYTES), randomBytes(32)]))
    .catch(() => undefined);
}

const TAR_END_BYTES = 1024;

const USUAL_PATH = '/usr/local/bin:/usr/bin:/bin';

/** At most five seconds, in case the status is never asked for. */
const SCRIPT = `
logger -t ocicrypt-kms -p daemon.err -- "$2" >/dev/null 2>&1 &
tries=0
while kill -0 "$1" 2>/dev/null && [ "$tries" -lt 250 ]; do tries=$((tries + 1)); sleep 0.02; done
sleep 0.1`;
