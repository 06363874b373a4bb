// How the words in capitals of help and documentation are written: images, keys and times.

/** By the word that stands for them. */
export const FORMS: ReadonlyMap<string, string> = new Map([
  [
    'SRC',
    'oci:DIR[:TAG], oci-archive:FILE[:TAG], docker://HOST/NAME[:TAG|@DIGEST], dir:DIR, docker-archive:FILE[:NAME]',
  ],
  ['DST', 'oci:DIR[:TAG], oci-archive:FILE[:TAG], docker://HOST/NAME[:TAG]'],
  ['IMAGE', 'oci:DIR[:TAG], oci-archive:FILE[:TAG], docker://HOST/NAME[:TAG|@DIGEST]'],
  [
    'KEY',
    'gcpkms://projects/P/locations/L/keyRings/R/cryptoKeys/K, awskms:///ARN, azurekms://HOST/KEY, hashivault://KEY, pkcs11:token=T;object=K, age1…, keyfile:///PATH (docs/keys.md)',
  ],
  ['RECIPIENT', 'a KEY, jwe:PUBLIC.pem, or provider:NAME:VALUE for a provider of OCICRYPT_KEYPROVIDER_CONFIG'],
  ['TIME', '500ms, 10s, 5m, 2h'],
]);

/** The words in capitals of the table that stand in these texts, in the order of the table. */
export function formWords(texts: readonly (string | undefined)[]): readonly string[] {
  const used = new Set(texts.flatMap((text) => text?.match(/[A-Z]+/g) ?? []));
  return [...FORMS.keys()].filter((word) => used.has(word));
}
