// Says which recipients resist a quantum computer of the future, for which an image is recorded
// today: symmetric keys and hybrid ones do; RSA, X25519 and what is not known do not.

import type { Scheme } from '../base/key-uri.ts';
import type { PacketDescription, PacketRecipient } from './model/packets.ts';

/** The algorithms that hold, by the service's own term (docs/packet.md section 4.6). */
const HOLDING: { readonly [scheme in Scheme]: readonly string[] } = {
  age: ['mlkem768x25519'],
  awskms: ['SYMMETRIC_DEFAULT'],
  azurekms: ['A256GCM', 'A256KW'],
  gcpkms: ['GOOGLE_SYMMETRIC_ENCRYPTION'],
  hashivault: ['transit-aead'],
  kbs: ['A256GCM'],
  keyfile: ['AES-256-GCM'],
  pkcs11: ['AES-GCM'],
};

/** Whether keys of this scheme hold if they wrap by this algorithm; what is not known does not. */
export function isPostQuantum(scheme: Scheme | undefined, algorithm: string | undefined): boolean {
  return scheme !== undefined && algorithm !== undefined && HOLDING[scheme].includes(algorithm);
}

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
