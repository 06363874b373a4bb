// Judges a text as an operator gave it, in an option or a variable: what slipped in around it is taken
// off if the text cannot hold it, and is refused by name if it could.

import { statSync } from 'node:fs';
import { isContentOfFile } from './shown.ts';

/** What is wrong with a text, said after the name of its option or variable; and what to do about it. */
export type TextProblem = { readonly problem: string; readonly hint: string };

/** Blanks and line ends of every alphabet, and the mark that editors of Windows put first. */
const AROUND = /^[\s\uFEFF]+|[\s\uFEFF]+$/gu;
const CONTROL = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u;

/** The word without what stands around it. @param blanks whether it may have blanks inside */
export function trimWord(text: string, blanks: boolean): string | TextProblem {
  const word = text.replace(AROUND, '');
  if (CONTROL.test(word)) return { problem: 'holds a control character', hint: RETYPE };
  if (!blanks && /\s/u.test(word)) return { problem: 'holds a blank, which it cannot', hint: RETYPE };
  return word;
}

const RETYPE = 'type it anew: it may have been copied with what stood around it';

/** A password or PIN as it is used: one line end is not a part of it, everything else that stands around it may be. */
export function readSecretText(text: string): string | TextProblem {
  const secret = text.replace(/\r?\n$/, '');
  if (secret === '') return { problem: 'is empty', hint: 'put the secret into it, or leave it out' };
  if (CONTROL.test(secret)) return { problem: 'holds a control character', hint: RETYPE };
  if (/^\s|\s$/u.test(secret)) return { problem: 'begins or ends with a blank', hint: 'take the blank away' };
  return secret;
}

/** A name of a file or directory: it could have blanks around it, but then by accident. */
export function readFileName(text: string): string | TextProblem {
  if (isContentOfFile(text)) {
    return {
      problem: 'holds the content of a file, not its name',
      hint: 'write that into a file of mode 0600 and name the file; what stood here may be in logs: replace it if it is secret',
    };
  }
  if (text.trim() === '') return { problem: 'is blank', hint: 'name a file, or leave it out' };
  if (/^[\s\uFEFF]|[\s\uFEFF]$/u.test(text)) {
    return { problem: 'begins or ends with a blank or a line end', hint: 'take it away' };
  }
  return CONTROL.test(text) ? { problem: 'holds a control character', hint: RETYPE } : text;
}

/** A name of a file to read: what is there must be a file, for a pipe or device may hold up its reader for ever. */
export function readInputFileName(text: string): string | TextProblem {
  const name = readFileName(text);
  if (typeof name !== 'string' || isFileOrAbsent(name)) return name;
  return { problem: 'names no regular file', hint: 'pipes, devices and directories are not read: name a file' };
}

/** What cannot be looked at is for its reader to say; /dev/null is how people say that there is no such file. */
function isFileOrAbsent(path: string): boolean {
  if (path === '/dev/null') return true;
  try {
    return statSync(path).isFile();
  } catch {
    return true;
  }
}
