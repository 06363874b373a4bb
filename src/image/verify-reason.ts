// Why an image is not as it should be: a code for programs, a text for people.

/** Codes stay as they are; new ones come. docs/schema/verify.schema.json has them for programs. */
export const VERIFY_CODES = [
  'absent',
  'config-is-layer',
  'content',
  'digest-tag',
  'excess-recipient',
  'key-mismatch',
  'manifest-type',
  'missing-recipient',
  'more',
  'no-image',
  'no-layer',
  'not-opened',
  'not-post-quantum',
  'not-tried',
  'plain',
  'senseless',
  'shortcut',
  'unknown-entry',
  'unknown-type',
  'unnamed-recipient',
] as const;

/** What is wrong with an image, in a word that stays the same from version to version. */
export type VerifyCode = (typeof VERIFY_CODES)[number];

/** Why an image is not as it should be: a code for programs, a sentence for people. */
export type VerifyReason = {
  readonly code: VerifyCode;
  /** One line, which may hold texts of the image's own. */
  readonly message: string;
};
