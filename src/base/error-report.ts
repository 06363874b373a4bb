// What a log may hold of an error: codes, our own texts, and where in our own code it went through; nothing of foreign texts.

import { asOcicryptError, OcicryptError } from './errors.ts';

/** An error without any secret, for JSON. */
export type ErrorReport = {
  /** The class of an error that is not ours: its text may quote a request, an answer or a file. */
  readonly name?: string;
  readonly code?: string;
  readonly message?: string;
  readonly hint?: string | undefined;
  /** `FUNCTION FILE:LINE:COLUMN`, of our own files only. */
  readonly frames?: readonly string[];
  readonly causes?: readonly ErrorReport[] | undefined;
};

const MAXIMUM_DEPTH = 8;
const MAXIMUM_CAUSES = 16;
const MAXIMUM_FRAMES = 12;

/** The error and all that caused it. */
export function reportError(error: unknown): ErrorReport {
  return describe(asOcicryptError(error), MAXIMUM_DEPTH);
}

function describe(error: unknown, depth: number): ErrorReport {
  if (!(error instanceof Error)) return { name: typeof error };
  const causes = (Array.isArray(error.cause) ? error.cause : [error.cause])
    .filter((cause) => cause !== undefined)
    .slice(0, depth > 0 ? MAXIMUM_CAUSES : 0)
    .map((cause) => describe(cause, depth - 1));
  return {
    ...(error instanceof OcicryptError ? ownTexts(error) : foreignNames(error)),
    frames: ownFrames(error),
    causes: causes.length === 0 ? undefined : causes,
  };
}

function ownTexts({ code, message, hint }: OcicryptError): ErrorReport {
  return { code, message, hint };
}

/**
 * As programs have them: words in capital letters and small ones for a class, short words for a code. A service or library
 * may put anything else there, and an access key of AWS is one long word in capitals.
 */
const NAME = /^(?:[A-Z]{1,6}[a-z]{1,20}){0,6}[A-Z]{0,6}(?:Error|Exception)$/;
const CODE = /^(?:[A-Z][A-Z0-9]{0,15}(?:_[A-Z0-9]{1,15}){0,6}|\d{1,5})$/;

function foreignNames(error: Error): ErrorReport {
  const code = 'code' in error ? String(error.code) : '';
  return { name: NAME.test(error.name) ? error.name : 'Error', ...(CODE.test(code) ? { code } : {}) };
}

/** Where this file is, and so the others: the sources, the library, or the executable's own file system. */
const OWN = findOwn(import.meta.url);

/** @param here undefined in a bundle for CommonJS, whose frames are nobody's */
function findOwn(here: string | undefined): string | undefined {
  return here === undefined ? undefined : decodeURIComponent(new URL('..', here).pathname);
}

const FRAME = /^ +at (?:([^()]{1,80}) \(|async )?(?:file:\/\/)?(\/[^()]+:\d+:\d+)\)?$/;

/** Only what follows the message is read: a message could look like frames. */
function ownFrames({ name, message, stack = '' }: Error): readonly string[] {
  const text = stack.startsWith(`${name}: ${message}`) ? stack.slice(name.length + 2 + message.length) : '';
  return text
    .split('\n')
    .flatMap((line) => {
      const [, called = '', place = ''] = FRAME.exec(line) ?? [];
      return OWN !== undefined && place.startsWith(OWN) && !place.includes('/node_modules/')
        ? [`${called} ${place.slice(OWN.length)}`.trim()]
        : [];
    })
    .slice(0, MAXIMUM_FRAMES);
}
