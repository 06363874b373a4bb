// How the values of options and operands begin, read from what help says of them: for shells, which complete the rest.

import { FORMS } from './forms.ts';
import type { OptionSpec } from './spec.ts';

/** The beginning of a value, and what follows it: names of files or directories, nothing, or what only the user knows. */
export type Start = { readonly text: string; readonly rest: 'anything' | 'directories' | 'files' | 'nothing' };

/** How values of an option may begin; none if the option is a switch or help does not tell. */
export function startsOfOption({ value, choices, describe }: OptionSpec): readonly Start[] {
  if (value === undefined) return [];
  if (choices !== undefined) return choices.map(whole);
  const starts = startsOfWord(value);
  // What is special to one option, such as an address, is spelled out in its description.
  return starts.length > 0 ? starts : [...describe.matchAll(/\b[a-z]+:\/\/[^\s,]*/g)].map(([text]) => startOf(text));
}

/** The operands of a command, in their order, and how each may begin. The last of `[KEY|IMAGE]…` may be repeated. */
export function startsOfOperands(operands: string): readonly (readonly Start[])[] {
  if (operands === '') return [];
  return operands.split(' ').map((operand) =>
    operand
      .replace(/^\[|\]?…?$/g, '')
      .split('|')
      .flatMap(startsOfWord),
  );
}

function startsOfWord(word: string): readonly Start[] {
  if (/^[a-z][a-z0-9-]*$/.test(word)) return [whole(word)];
  const spellings = FORMS.get(word)?.split(/, (?:or )?/) ?? [];
  const starts = spellings.flatMap((spelling) => {
    const [, other] = /^(?:a )?([A-Z]+)$/.exec(spelling) ?? [];
    if (other !== undefined) return startsOfWord(other);
    return /^[a-z]/.test(spelling) ? [startOf(spelling)] : [];
  });
  if (starts.length > 0) return starts;
  if (word === 'URL') return [startOf('https://HOST')];
  return word === 'FILE' || word === 'DIR' ? [startOf(word)] : [];
}

function whole(text: string): Start {
  return { text, rest: 'nothing' };
}

/** @param spelling as `oci:DIR[:TAG]`, `docker://HOST/NAME`, `pkcs11:token=T` or `age1…` */
function startOf(spelling: string): Start {
  const [text = ''] = /^(?:[a-z][a-z0-9-]*(?::(?:\/{2,3})?(?:[a-z]+[/=])?)?)?/.exec(spelling) ?? [];
  const behind = spelling.slice(text.length);
  const rest = behind.startsWith('DIR')
    ? 'directories'
    : /^(?:FILE|PATH|PUBLIC\.pem)/.test(behind)
      ? 'files'
      : 'anything';
  return { text, rest };
}
