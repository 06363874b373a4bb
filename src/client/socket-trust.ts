// Decides which unix sockets we hand layer keys to: the system does not tell a client who listens.

import { findWeakness, ourselves, type Step, stepsTo, type Weakness } from '../base/trusted-path.ts';

/**
 * Why a socket may be somebody else's: it must belong to this user, to root, or to the user to whom root has given its
 * directory (a service of its own user), and no other may be able to replace it. Undefined for one that is trusted, and
 * for one that is not there or cannot be looked at: connecting says more.
 *
 * @param path empty or with a zero in front for an abstract socket, which any user of the machine can take
 */
export function socketWeakness(path: string): Weakness | undefined {
  if (path.startsWith('\0')) {
    return {
      problem: 'it has no owner, and any user of this machine can take it',
      hint: 'use a socket in a directory: unix:///PATH',
    };
  }
  const users = ourselves();
  const steps = users === undefined ? [] : lookAt(path);
  const last = steps.at(-1);
  if (users === undefined || last === undefined) return undefined;
  const weakness = findWeakness(steps, { users, sticky: true });
  const directory = steps.findLast(({ status }) => status.isDirectory());
  const isOfService = !users.has(last.status.uid) && last.status.uid === directory?.status.uid;
  if (weakness === undefined || !isOfService) return weakness;
  // Where all users may make directories, as in /tmp, the owner of one proves nothing.
  const other = findWeakness(steps, { users: new Set([...users, last.status.uid]), sticky: false });
  return other === undefined ? undefined : weakness;
}

function lookAt(path: string): readonly Step[] {
  try {
    return stepsTo(path);
  } catch {
    return [];
  }
}
