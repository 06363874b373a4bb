// Says which algorithms resist a quantum computer of the future, for which an image is recorded today: symmetric and hybrid
// ones do; RSA, X25519 and what is not known do not.

import type { Scheme } from '../../base/key-uri.ts';

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
  return scheme !== undefined && algorithm !== undefined && HOLDING[scheme]?.includes(algorithm) === true;
}
