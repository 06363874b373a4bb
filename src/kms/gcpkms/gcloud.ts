// The call of a key, and the words by which gcloud names that key in what an operator should run.

import type { KeyUri } from '../../base/key-uri.ts';

export type GoogleKmsMethod = 'asymmetricDecrypt' | 'decrypt' | 'encrypt' | 'getPublicKey' | 'list';

/** A call that was refused. */
export type GoogleKmsCall = {
  /** The canonical URI of the operator's key. */
  readonly key: string;
  readonly uri: Extract<KeyUri, { scheme: 'gcpkms' }>;
  readonly method: GoogleKmsMethod;
};

export function names({ uri }: GoogleKmsCall): { project: string; location: string; ring: string; key: string } {
  const [, project = '', , location = '', , ring = '', , key = ''] = uri.key.split('/');
  return { project, location, ring, key };
}

/** The flags of gcloud's `kms` commands, in the three shapes that they have. */
export function ringFlags(call: GoogleKmsCall): string {
  const { project, location, ring } = names(call);
  return `--project ${project} --location ${location} --keyring ${ring}`;
}

export function keyFlags(call: GoogleKmsCall): string {
  return `${ringFlags(call)} --key ${names(call).key}`;
}

export function lastFlag(call: GoogleKmsCall): string {
  return `${names(call).key} ${ringFlags(call)}`;
}

/** To find the newest version of an asymmetric key takes a permission that nothing else needs. */
export function orNameVersion(call: GoogleKmsCall): string {
  const { key, method, uri } = call;
  if (method !== 'encrypt' || uri.version !== undefined) return '';
  return `; of an asymmetric key name a version: ${key}/cryptoKeyVersions/N, or grant roles/cloudkms.viewer to find it`;
}
