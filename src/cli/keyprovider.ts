// The command that a client runs for each layer: one request on standard input, one reply on standard output.

import { wipe } from '../base/bytes.ts';
import { markCall, withDeadline } from '../base/deadline.ts';
import { DEFAULT_LIMITS } from '../provider/attempts.ts';
import { MAXIMUM_REQUEST_BYTES } from '../provider/protocol.ts';
import type { CommandContext } from './command.ts';
import { openProvider } from './setup.ts';

/** Answers one request; the deadline holds for reading it too, since clients have none of their own. */
export async function runKeyprovider(context: CommandContext): Promise<void> {
  const { settings, terminal, personality } = context;
  const remote = settings.text('remote');
  if (remote !== undefined) return (await import('./remote.ts')).runRemote(remote, context);
  const { provider, close } = await openProvider(settings, {
    personality,
    door: 'command',
    warn: (line) => terminal.say(`warning: ${line}`),
  });
  const limit = settings.requestTime() ?? DEFAULT_LIMITS.total;
  const signal = AbortSignal.timeout(limit);
  markCall(signal, limit);
  try {
    const request = await withDeadline(limit, undefined, 'reading the request', () =>
      terminal.read(MAXIMUM_REQUEST_BYTES),
    );
    try {
      const reply = await provider.handle(request, {
        caller: `uid:${process.getuid?.()} ppid:${process.ppid}`,
        signal,
      });
      terminal.write(reply, 'reply');
      wipe(reply);
    } finally {
      wipe(request);
    }
  } finally {
    await close();
  }
}
