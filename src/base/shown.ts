// Decides what an error may show of an operator's own words: a path or a value, cut to a bound, and
// never what may be a secret that stands in the place of a name.

import { existsSync } from 'node:fs';
import { withheldFromCallers } from './errors.ts';

const MAXIMUM_PATH = 200;
const MAXIMUM_VALUE = 80;

/**
 * A path as an error shows it; callers of a server never read it. Shown is what exists, and what is spelled as a path:
 * a bare word may be the PIN or password itself.
 */
export function showPath(path: string): string {
  return withheldFromCallers(namePath(path));
}

/** The same for a report that is for people here alone. */
export function namePath(path: string): string {
  return isShownPath(path) ? cut(path, MAXIMUM_PATH) : HIDDEN_PATH;
}

/**
 * The path of an image, a bare word too: every report names the image by it. Below a directory of their own, digests and
 * numbers of builds are names: no key in hexadecimal begins with a slash.
 */
export function showImagePath(path: string): string {
  const isName = existsSync(path) || /^(?:\.{1,2}|~)\//.test(path);
  const rest = path.startsWith('/') ? path.replace(/(?<![A-Za-z0-9])[0-9A-Fa-f]{32,}(?![A-Za-z0-9])/g, '') : path;
  return withheldFromCallers(isName || !isSecret(rest) ? cut(path, MAXIMUM_PATH) : HIDDEN_PATH);
}

/** A value as an error shows it, in quotes, without the parts that are named as secrets. */
export function showValue(value: string): string {
  const open = hideParts(value);
  return isSecret(open) ? HIDDEN_VALUE : JSON.stringify(cut(open, MAXIMUM_VALUE));
}

/** A name as a report has it, whole and without quotes. */
export function showName(name: string): string {
  return isSecret(name) ? HIDDEN_VALUE : name;
}

/** A key's text that could not be read; of parts that are named as secrets the value is left out. */
export function showKeyText(text: string): string {
  const open = hideParts(text);
  return isSecret(open) ? HIDDEN_VALUE : JSON.stringify(cut(open, 120));
}

/** Whether a text that should name a file holds what the file should; a file of that name settles it. */
export function isContentOfFile(text: string): boolean {
  return !existsSync(text) && isSecret(text);
}

/** A text of a stranger without what terminals obey: controls, line separators, and what turns the direction of text. */
export function printable(text: string): string {
  return text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]+/gu, ' ');
}

const HIDDEN_PATH = '(whose name is not shown: it may be a secret; write it as ./NAME if it is a name)';
const HIDDEN_VALUE = '(a value that is not shown: it may be a secret)';

const SPELLED_AS_PATH = /^(?:\.{0,2}|~)\//;
const USUAL_SUFFIX = /\.(?:age|cer|cfg|conf|crt|ini|json|jwt|key|log|p12|pem|pfx|pin|so|tar|token|toml|txt|ya?ml)$/i;

function isShownPath(path: string): boolean {
  return existsSync(path) || ((SPELLED_AS_PATH.test(path) || USUAL_SUFFIX.test(path)) && !isSecret(path));
}

function cut(text: string, length: number): string {
  return text.length <= length ? text : `${text.slice(0, length)}…`;
}

/** Leaves out what is named as a secret, and the user and password of an address, which may hold a slash by mistake. */
function hideParts(text: string): string {
  return text.replace(NAMED_SECRET, '$1…').replace(/(?<=:\/\/)(?:[^/@]*|[^/@:]*:(?!\d+\/)[^@]*)@/g, '…@');
}

const NAMED_SECRET = /((?:pin|pin-value|secret|password|passphrase|token|credential)[\w-]*=)[^&;?\s]*/gi;

/** A newline, PEM, JSON, a JWT, and how tokens and keys of the services that we know begin. */
const SECRETS: readonly RegExp[] = [
  /[\n\r]./s,
  /-----BEGIN/,
  /^\s*\{|\{\s*"/,
  /eyJ[\w-]{5,}\.[\w-]{5,}/,
  /(?<![A-Za-z0-9])(?:hvs|hvb|hvr|[sbr])\.[A-Za-z0-9_-]{20,}/,
  /(?<![A-Za-z0-9])(?:gh[pousr]_|github_pat_|glpat-|xox[abps]-|GOCSPX-|AIza|ya29\.|AGE-SECRET-KEY-|AGE-PLUGIN-)[\w.-]/i,
  /(?<![A-Z0-9])A(?:KI|SI)A[A-Z0-9]{12,}/,
  /^(?:bearer|basic)\s/i,
  /:\/\/[^/@\s]*:[^/@\s]+@/,
  /(?<![A-Za-z0-9]|sha256[:-]|blobs\/sha256\/)(?=[0-9A-Fa-f]*\d)(?=\d*[A-Fa-f])[0-9A-Fa-f]{32,}(?![A-Za-z0-9])/,
];

/** Whether a text is, or holds, what must not be shown: content of a file of keys, a token, random bytes as text. */
export function isSecret(text: string): boolean {
  return (
    SECRETS.some((secret) => secret.test(text)) ||
    [...text.matchAll(/[A-Za-z0-9+/_=-]{32,}/g)].some(([run]) => looksRandom(run))
  );
}

/**
 * How much likelier than in names and words one character follows another by chance, in powers of two: a vowel, a
 * consonant, a capital or a digit by each of them, counted in the paths of an operating system.
 */
const ODDS = [
  [-1, -1, 3, 1],
  [-2, 0, 2, 1],
  [-2, 0, 1, 2],
  [2, 2, 4, -2],
] as const;
/** Of two million random keys none was below it; of the paths of an operating system one in 600 is above. */
const LEAST_ODDS = -5;

/** Whether a run of base64's characters is one of chance. Its parts in one class say nothing, as do hexadecimal ones. */
function looksRandom(run: string): boolean {
  const parts = run.split(/[+/_=-]/).filter((part) => !/^(?:[a-z]*|[A-Z]*|[\da-f]*)$/.test(part));
  const kinds = parts.map((part) => [...part].map(kindOf));
  const odds = kinds.flatMap((part) => part.slice(1).map((kind, index) => ODDS[part[index] ?? kind][kind]));
  return parts.join('').length >= 20 && odds.reduce((sum: number, one) => sum + one, 0) >= LEAST_ODDS;
}

function kindOf(character: string): 0 | 1 | 2 | 3 {
  if (/[aeiou]/.test(character)) return 0;
  if (/[a-z]/.test(character)) return 1;
  return /[A-Z]/.test(character) ? 2 : 3;
}
