// Reads `WWW-Authenticate`: RFC 9110 section 11.6.1.

/** One way in that a server offers. */
export type Challenge = {
  /** In lower case. */
  readonly scheme: string;
  /** Names in lower case. */
  readonly parameters: ReadonlyMap<string, string>;
};

const TOKEN = "[!#$%&'*+.^_`|~0-9A-Za-z-]+";
/** Of a parameter. Servers leave the quotes out, around addresses too, which are no tokens. */
const VALUE = '(?:"((?:[^"\\\\]|\\\\[\\s\\S])*)"|([^\\s",]+))';
const END = '(?=[ \\t]*(?:,|$))';
const PARAMETER = new RegExp(`(${TOKEN})[ \\t]*=[ \\t]*${VALUE}${END}`, 'y');
/** With the single credential (token68) that may stand in place of parameters. */
const SCHEME = new RegExp(`(${TOKEN})(?:[ \\t]+[A-Za-z0-9._~+/-]+=*${END})?(?=[\\s,]|$)`, 'y');
const SEPARATORS = /[\s,]*/y;
const REST = /[^,]*/y;
/** Longer ones are only sent to keep us busy. */
const MAXIMUM_LENGTH = 8192;

/**
 * Every challenge of a header, in its order; several headers are one whose values are joined by commas. What is no
 * challenge is left out up to the next comma.
 */
export function parseChallenges(value: string): Challenge[] {
  const header = value.slice(0, MAXIMUM_LENGTH);
  const challenges: { scheme: string; parameters: Map<string, string> }[] = [];
  let at = 0;
  const match = (pattern: RegExp): RegExpExecArray | null => {
    pattern.lastIndex = at;
    const found = pattern.exec(header);
    if (found !== null) at = pattern.lastIndex;
    return found;
  };
  for (;;) {
    match(SEPARATORS);
    if (at >= header.length) return challenges;
    const parameter = match(PARAMETER);
    if (parameter !== null) {
      const [, name = '', quoted, plain = ''] = parameter;
      challenges.at(-1)?.parameters.set(name.toLowerCase(), quoted?.replace(/\\(.)/gs, '$1') ?? plain);
      continue;
    }
    const scheme = match(SCHEME)?.[1];
    if (scheme === undefined) match(REST);
    else challenges.push({ scheme: scheme.toLowerCase(), parameters: new Map() });
  }
}
