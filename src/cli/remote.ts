// `keyprovider --remote`: the same one request and one reply, answered by a server of ours.

import { wipe } from '../base/bytes.ts';
import { withDeadline } from '../base/deadline.ts';
import { OcicryptError } from '../base/errors.ts';
import type { GrpcTls } from '../client/grpc-client.ts';
import { forwardRequest, parseRemote } from '../client/remote.ts';
import { DEFAULT_LIMITS, limitsWithin, withRetries } from '../provider/attempts.ts';
import { USUAL_NAMES } from '../provider/parameters.ts';
import { MAXIMUM_REQUEST_BYTES } from '../provider/protocol.ts';
import type { CommandContext } from './command.ts';
import type { Settings } from './options/settings.ts';

/** Forwards one request to the server at `address`. */
export async function runRemote(address: string, { settings, terminal }: CommandContext): Promise<void> {
  const timeout = settings.requestTime() ?? DEFAULT_LIMITS.total;
  const forward = openRemote(address, settings, timeout);
  const reply = await withDeadline(timeout, undefined, 'the server', async (signal) => {
    const request = await terminal.read(MAXIMUM_REQUEST_BYTES);
    try {
      return await forward(request, signal);
    } finally {
      wipe(request);
    }
  });
  terminal.write(reply, 'reply');
  wipe(reply);
}

/** A request of the key-provider protocol, and its reply to be wiped. */
type Forward = (request: Uint8Array, signal: AbortSignal) => Promise<Uint8Array>;

/**
 * The server at `address` as one who answers requests, asked again where that may help: for three seconds if no server
 * is there, which is as long as a restart takes.
 *
 * @param timeout milliseconds from now, for all that is asked
 * @throws OcicryptError `configuration`, `usage`
 */
export function openRemote(address: string, settings: Settings, timeout: number): Forward {
  const target = parseRemote(address);
  // On the command line it is refused as every option without an effect; a configuration file may be a server's too.
  if (settings.text('audit-log') !== undefined) {
    throw new OcicryptError('configuration', 'audit-log has no effect with --remote: the server writes its own', {
      hint: 'take it out of the configuration file of this command',
    });
  }
  const tls = target.kind === 'tls' ? remoteTls(settings) : undefined;
  const names = { configured: settings.text('provider'), fallback: USUAL_NAMES[0] };
  const started = performance.now();
  // For a server that is asked again, too.
  const timeLeft = () => Math.max(1, timeout - (performance.now() - started));
  let gone: OcicryptError | undefined;
  return async (request, signal) => {
    // A decoder asks for each wrapped key: a server that was waited for in vain is not waited for again.
    if (gone !== undefined) throw gone;
    try {
      return await withRetries(limitsWithin(timeout), signal, () =>
        forwardRequest(request, { target, tls, names, timeout: timeLeft() }, signal),
      );
    } catch (error) {
      if (error instanceof OcicryptError && error.unreached) gone = error;
      throw error;
    }
  };
}

/** How a server is known, and what it wants to see. @throws OcicryptError `usage` */
export function remoteTls(settings: Settings): GrpcTls {
  const authority = settings.text('tls-ca');
  const certificate = settings.text('tls-cert');
  const privateKey = settings.text('tls-key');
  if (authority === undefined) {
    throw new OcicryptError('usage', '--remote over TLS needs the authorities of the server', {
      hint: 'add --tls-ca=FILE',
    });
  }
  if ((certificate === undefined) !== (privateKey === undefined)) {
    throw new OcicryptError('usage', 'a client certificate needs its key', {
      hint: 'give both --tls-cert and --tls-key',
    });
  }
  return certificate === undefined || privateKey === undefined ? { authority } : { authority, certificate, privateKey };
}
