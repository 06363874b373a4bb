// The command that a probe runs: asks a server over gRPC whether it can do what it is there for.
// https://github.com/grpc/grpc/blob/master/doc/health-checking.md

import { type Address, parseHostPort } from '../base/address.ts';
import { withDeadline } from '../base/deadline.ts';
import { OcicryptError } from '../base/errors.ts';
import { decodeHealth, encodeBytesField, HEALTH_METHOD } from '../base/grpc.ts';
import { callOnce, describeTarget } from '../client/grpc-client.ts';
import { parseRemote } from '../client/remote.ts';
import { DEFAULT_LIMITS } from '../provider/attempts.ts';
import { KEY_PROVIDER_SERVICE } from '../server/service.ts';
import { defaultSocketPath } from '../server/unix-socket.ts';
import type { CommandContext } from './command.ts';
import { remoteTls } from './remote.ts';

const MAXIMUM_REPLY_BYTES = 100;

/** Asks once; a server that is not there or not ready is `unavailable`, exit status 69. */
export async function runHealth({ settings, terminal }: CommandContext): Promise<void> {
  const named = settings.text('remote');
  const target: Address =
    named === undefined ? { kind: 'unix', path: defaultSocketPath(process.env) } : parseTarget(named);
  const tls = target.kind === 'tls' ? remoteTls(settings) : undefined;
  const timeout = settings.requestTime() ?? DEFAULT_LIMITS.total;
  const isLive = settings.switch('live');
  const shown = describeTarget(target);
  const reply = await withDeadline(timeout, undefined, `the server at ${shown}`, (signal) =>
    callOnce(target, tls, {
      method: HEALTH_METHOD,
      message: encodeBytesField(new TextEncoder().encode(isLive ? '' : KEY_PROVIDER_SERVICE)),
      timeout,
      maximumReply: MAXIMUM_REPLY_BYTES,
      signal,
    }),
  );
  if (!decodeHealth(reply)) {
    throw new OcicryptError('unavailable', `the server at ${shown} is ${isLive ? 'ending' : 'not ready'}`, {
      hint: isLive ? 'it drains; ask again' : 'it drains, or no key of its works: see what it logs, and doctor KEY',
    });
  }
  terminal.write(`${isLive ? 'alive' : 'ready'}\n`);
}

/** As for requests, and TCP in clear besides: nothing of a key is asked. */
function parseTarget(text: string): Address {
  const place = text.startsWith('tcp://') ? parseHostPort(text.slice('tcp://'.length)) : undefined;
  return place === undefined ? parseRemote(text) : { kind: 'tcp', ...place };
}
