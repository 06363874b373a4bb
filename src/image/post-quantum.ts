// Says which recipients of an image do not resist a quantum computer of the future.

import type { PacketDescription, PacketRecipient } from './model/packets.ts';

/**
 * What each packet is for that does not hold, as a text for people: recipients, or the packet itself where it names
 * no recipient or cannot be read.
 */
export function findClassic(packets: readonly PacketDescription[]): readonly string[] {
  return packets.flatMap(({ scheme, recipients, problem }) => {
    const isNameless = problem !== undefined || recipients.length === 0;
    return isNameless
      ? [`an unnamed recipient by ${scheme}`]
      : recipients.filter(({ postQuantum }) => !postQuantum).map(nameOf);
  });
}

/** The recipients that undo what a post-quantum one beside them is for; none if there is no such recipient. */
export function findUndoing(packets: readonly PacketDescription[]): readonly string[] {
  const isHybrid = ({ key, postQuantum }: PacketRecipient) => postQuantum && key?.startsWith('age1pq1') === true;
  return packets.some(({ recipients }) => recipients.some(isHybrid)) ? [...new Set(findClassic(packets))] : [];
}

function nameOf({ key, algorithm }: PacketRecipient): string {
  return `${key ?? 'an unnamed recipient'} (${algorithm ?? 'unknown algorithm'})`;
}
