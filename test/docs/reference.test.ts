// Every public symbol of the library says what it is: its parameters, errors and units, and of each function an example.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { parseSync } from 'oxc-parser';
import { PROJECT } from '../../tools/process.ts';

/** A node of the syntax, as far as it is looked at. */
type Node = {
  readonly type: string;
  readonly start: number;
  readonly end: number;
  readonly [member: string]: unknown;
};

type Declared = {
  readonly name: string;
  readonly file: string;
  readonly node: Node;
  readonly text: string;
  readonly doc: string;
};

const INDEX = join(PROJECT, 'src/index.ts');
const symbols = [...exportedFrom(INDEX)].map(([name, file]) => find(name, file));
const functions = symbols.filter(({ node }) => node.type === 'FunctionDeclaration');

test('the symbols are found at all', () => {
  assert.ok(functions.length > 25, `${functions.length} functions`);
  assert.ok(symbols.length > functions.length + 60, `${symbols.length} symbols`);
});

test('every public symbol says what it is', () => {
  assert.deepEqual(
    symbols.filter(({ doc }) => summaryOf(doc).length < 10).map(({ name }) => name),
    [],
  );
});

test('every public function says what its parameters are, how it fails, and how it is called', () => {
  const lacking = functions.flatMap(({ name, node, doc, text }) => [
    ...parametersOf(node, text)
      .filter((parameter) => !new RegExp(`@param ${parameter} \\S|\`${parameter}\`|\\{@link`).test(doc))
      .map((parameter) => `${name}: @param ${parameter}`),
    ...(/@throws \S|[Nn]ever throws/.test(doc) ? [] : [`${name}: @throws`]),
    ...(/@example\n/.test(doc) ? [] : [`${name}: @example`]),
  ]);
  assert.deepEqual(lacking, []);
});

test('every number that a public type holds says its unit', () => {
  const lacking = symbols.flatMap(({ name, node, text, file }) =>
    membersOf(node).flatMap((member) => {
      const doc = docBefore(text, member.start);
      const written = text.slice(member.start, member.end);
      const label = `${file.slice(PROJECT.length + 1)} ${name}.${/^(?:readonly )?\[?([\w]+)/.exec(written)?.[1]}`;
      // A name may say it: `retryAfter` does not, `milliseconds` does.
      return /^(?:readonly )?\w+\??: number\b/.test(written) &&
        !UNIT.test(doc) &&
        !/^(?:readonly )?(?:milliseconds|bytes)\b/.test(written)
        ? [label]
        : [];
    }),
  );
  assert.deepEqual(lacking, []);
});

test('a public type that is made of the members of a list has a public list', () => {
  const names = new Set(symbols.map(({ name }) => name));
  const lists = symbols.flatMap(({ node, text }) =>
    node.type === 'TSTypeAliasDeclaration'
      ? [...text.slice(node.start, node.end).matchAll(/\btypeof (\w+)/g)].map(([, list = '']) => list)
      : [],
  );
  assert.ok(lists.length > 1);
  assert.deepEqual(
    lists.filter((list) => !names.has(list)),
    [],
  );
});

const UNIT = /\b(?:milliseconds?|seconds?|bytes?|MiB|KiB|how many|how often|status)\b/i;

/** Names and the files of src that the front door takes them from. */
function exportedFrom(file: string): ReadonlyMap<string, string> {
  const text = readFileSync(file, 'utf8');
  const found = new Map<string, string>();
  for (const [, list = '', from = ''] of text.matchAll(/export (?:type )?\{([^}]*)\} from '([^']+)'/g))
    for (const name of list.split(',').map((one) => one.trim().replace(/^type /, '')))
      if (name !== '') found.set(name, join(dirname(file), from));
  return found;
}

function find(name: string, file: string): Declared {
  const text = readFileSync(file, 'utf8');
  const { program } = parseSync(file, text);
  for (const statement of program.body) {
    if (statement.type !== 'ExportNamedDeclaration' || statement.declaration === null) continue;
    const declaration = asNode(statement.declaration);
    const declared = declaration.type === 'VariableDeclaration' ? listOf(declaration.declarations)[0] : declaration;
    if (declared === undefined || asNode(declared.id).name !== name) continue;
    return { name, file, node: declaration, text, doc: docBefore(text, statement.start) };
  }
  return assert.fail(`${name} is not declared in ${file}`);
}

/** The comment that ends where something begins. */
function docBefore(text: string, start: number): string {
  return /\/\*\*((?:(?!\*\/)[\s\S])*)\*\/\s*$/.exec(text.slice(0, start))?.[1] ?? '';
}

/** What a comment says before its first tag, in one line; of one that has tags alone, the tags. */
function summaryOf(doc: string): string {
  return doc.replace(/^\s*\* ?/gm, '').trim();
}

function parametersOf(node: Node, text: string): readonly string[] {
  return listOf(node.params).flatMap((parameter) => {
    const written = text.slice(parameter.start, parameter.end);
    const [, name = '', type = ''] = /^(\w+)\??(?::\s*([\w.]+))?/.exec(written) ?? [];
    // What is destructured is a type's, and says itself what it is; a signal is a signal everywhere.
    return name === '' || type === 'AbortSignal' || /(?:Options|Settings)$/.test(type) ? [] : [name];
  });
}

/** The members of an interface, a class, or the object types that a type is made of, inner ones too. */
function membersOf(node: Node): readonly Node[] {
  if (node.type === 'FunctionDeclaration' || node.type === 'VariableDeclaration') return [];
  const own = node.type === 'TSPropertySignature' || node.type === 'TSMethodSignature' ? [node] : [];
  const inner = Object.entries(node).flatMap(([name, value]) => {
    // What a method takes and returns is its own comment's to say, and so is what a class does within.
    if (['params', 'returnType', 'body'].includes(name) && node.type !== 'TSInterfaceDeclaration') return [];
    if (node.type === 'TSFunctionType') return [];
    return Array.isArray(value) ? value.filter(isNode) : isNode(value) ? [value] : [];
  });
  return [...own, ...inner.flatMap(membersOf)];
}

function isNode(value: unknown): value is Node {
  return typeof value === 'object' && value !== null && 'type' in value && typeof value.type === 'string';
}

function asNode(value: unknown): Node {
  assert.ok(isNode(value));
  return value;
}

function listOf(value: unknown): readonly Node[] {
  return Array.isArray(value) ? value.filter(isNode) : [];
}
