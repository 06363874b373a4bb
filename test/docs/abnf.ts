// ABNF (RFC 5234) as documents use it: parsed, turned into a pattern, and into random texts that fit.

export type Grammar = ReadonlyMap<string, Node>;

type Node =
  | { readonly kind: 'choice' | 'sequence'; readonly nodes: readonly Node[] }
  | { readonly kind: 'repeat'; readonly minimum: number; readonly maximum: number | undefined; readonly node: Node }
  | { readonly kind: 'rule'; readonly name: string }
  | { readonly kind: 'text'; readonly text: string }
  | { readonly kind: 'range'; readonly from: number; readonly to: number };

const TOKEN = /\s*(%x[0-9A-F]+(?:-[0-9A-F]+)?|"[^"]*"|[A-Za-z][A-Za-z0-9-]*|\d*\*\d*|\d+|[()[\]/])/y;

/** The rules of a grammar. Texts in quotes are case-sensitive; comments and prose values do not occur. */
export function parseGrammar(text: string): Grammar {
  const rules = new Map<string, Node>();
  for (const [, name = '', definition = ''] of text.matchAll(/^([A-Za-z][\w-]*) *= *(.*)/gm)) {
    const tokens: string[] = [];
    TOKEN.lastIndex = 0;
    for (let match = TOKEN.exec(definition); match !== null; match = TOKEN.exec(definition))
      tokens.push(match[1] ?? '');
    const node = parseChoice(tokens);
    if (tokens.length > 0 || rules.has(name)) throw new Error(`not a rule: ${name}: ${tokens.join(' ')}`);
    rules.set(name, node);
  }
  return rules;
}

/** A regular expression of what fits the rule; the grammar must have no recursion. */
export function patternOf(grammar: Grammar, name: string): string {
  return pattern(ruleOf(grammar, name), grammar);
}

/** A random text that fits the rule. */
export function generate(grammar: Grammar, name: string, random: (below: number) => number): string {
  return make(ruleOf(grammar, name), grammar, random);
}

function ruleOf(grammar: Grammar, name: string): Node {
  const node = grammar.get(name);
  if (node === undefined) throw new Error(`no rule ${name}`);
  return node;
}

function parseChoice(tokens: string[]): Node {
  const nodes = [parseSequence(tokens)];
  while (tokens[0] === '/') {
    tokens.shift();
    nodes.push(parseSequence(tokens));
  }
  return { kind: 'choice', nodes };
}

function parseSequence(tokens: string[]): Node {
  const nodes: Node[] = [];
  while (tokens[0] !== undefined && !['/', ')', ']'].includes(tokens[0])) nodes.push(parseElement(tokens));
  return { kind: 'sequence', nodes };
}

function parseElement(tokens: string[]): Node {
  const token = tokens.shift() ?? '';
  const [, least = '', star, most = ''] = /^(\d*)(\*?)(\d*)$/.exec(token) ?? [];
  if (star !== undefined) {
    const maximum = star === '' ? Number(least) : most === '' ? undefined : Number(most);
    return { kind: 'repeat', minimum: Number(least), maximum, node: parseElement(tokens) };
  }
  if (token === '(' || token === '[') {
    const node = parseChoice(tokens);
    if (tokens.shift() !== (token === '(' ? ')' : ']')) throw new Error('a bracket is not closed');
    return token === '(' ? node : { kind: 'repeat', minimum: 0, maximum: 1, node };
  }
  if (token.startsWith('"')) return { kind: 'text', text: token.slice(1, -1) };
  if (!token.startsWith('%')) return { kind: 'rule', name: token };
  const [from = 0, to = from] = token
    .slice(2)
    .split('-')
    .map((hex) => Number.parseInt(hex, 16));
  return { kind: 'range', from, to };
}

function pattern(node: Node, grammar: Grammar): string {
  switch (node.kind) {
    case 'choice':
      return `(?:${node.nodes.map((one) => pattern(one, grammar)).join('|')})`;
    case 'sequence':
      return node.nodes.map((one) => pattern(one, grammar)).join('');
    case 'repeat':
      return `(?:${pattern(node.node, grammar)}){${node.minimum},${node.maximum ?? ''}}`;
    case 'rule':
      return patternOf(grammar, node.name);
    case 'text':
      return node.text.replace(/[.*+?^${}()|[\]\\/]/g, '\\$&');
    case 'range':
      return `[${escapeCode(node.from)}-${escapeCode(node.to)}]`;
  }
}

function escapeCode(code: number): string {
  return `\\x${code.toString(16).padStart(2, '0')}`;
}

/** What may be repeated for ever is repeated a few times; at either end of a range more often than between. */
function make(node: Node, grammar: Grammar, random: (below: number) => number): string {
  switch (node.kind) {
    case 'choice':
      return make(node.nodes[random(node.nodes.length)] ?? { kind: 'text', text: '' }, grammar, random);
    case 'sequence':
      return node.nodes.map((one) => make(one, grammar, random)).join('');
    case 'repeat': {
      const { minimum, maximum = minimum + 4 } = node;
      const span = maximum - minimum;
      const end = random(4);
      const times = end === 0 ? maximum : minimum + random(end === 1 ? span + 1 : Math.min(span, 3) + 1);
      return Array.from({ length: times }, () => make(node.node, grammar, random)).join('');
    }
    case 'rule':
      return make(ruleOf(grammar, node.name), grammar, random);
    case 'text':
      return node.text;
    case 'range':
      return String.fromCharCode(node.from + random(node.to - node.from + 1));
  }
}
