// The changes that are tried in a source file: each is one mistake that a person could make.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseSync, Visitor } from 'oxc-parser';
import { PROJECT } from '../../tools/process.ts';

/** One change of a file. */
export type Change = {
  readonly file: string;
  readonly start: number;
  readonly end: number;
  readonly replacement: string;
  /** Where the statement or expression begins: if no test comes here, none can notice. */
  readonly reached: number;
};

const OPERATORS: Readonly<Record<string, string>> = {
  '===': '!==',
  '!==': '===',
  '<': '<=',
  '<=': '<',
  '>': '>=',
  '>=': '>',
  '+': '-',
  '-': '+',
  '&&': '||',
  '||': '&&',
  '&': '|',
  '|': '&',
};

/** All changes of a file: conditions, operators, numbers and truth values turned round, calls for their effect left out. */
export function changesOf(file: string): readonly Change[] {
  const text = sourceOf(file);
  const found: Change[] = [];
  type Place = { readonly start: number; readonly end: number };
  /** Where types have literals, which no program sees. */
  const types = new Set<number>();
  const replace = ({ start, end }: Place, replacement: string, reached = start) =>
    found.push({ file, start, end, replacement, reached });
  const turn = ({ left, right, operator }: { left: Place; right: Place; operator: string }) => {
    const other = OPERATORS[operator];
    const at = text.indexOf(operator, left.end);
    if (other !== undefined && at < right.start) replace({ start: at, end: at + operator.length }, other, left.start);
  };
  new Visitor({
    BinaryExpression: turn,
    LogicalExpression: turn,
    IfStatement({ test }) {
      replace(test, 'true');
      replace(test, 'false');
    },
    ConditionalExpression({ test }) {
      replace(test, 'true');
      replace(test, 'false');
    },
    UnaryExpression(node) {
      if (node.operator === '!') replace({ start: node.start, end: node.start + 1 }, '');
    },
    TSLiteralType({ literal }) {
      types.add(literal.start);
    },
    Literal(node) {
      if (types.has(node.start)) return;
      if (typeof node.value === 'boolean') replace(node, String(!node.value));
      if (typeof node.value === 'number') replace(node, String(node.value + 1));
    },
    ExpressionStatement({ start, end, expression }) {
      const call = expression.type === 'AwaitExpression' ? expression.argument : expression;
      if (call.type === 'CallExpression') replace({ start, end }, ';');
    },
  }).visit(parseSync(file, text).program);
  return found;
}

/** The text of the file with the change made. */
export function changedSource({ file, start, end, replacement }: Change): string {
  const text = sourceOf(file);
  return text.slice(0, start) + replacement + text.slice(end);
}

export function sourceOf(file: string): string {
  return readFileSync(join(PROJECT, file), 'utf8');
}

/** Where the change is and what it is, for people. */
export function showChange({ file, start, end, replacement }: Change): string {
  const text = sourceOf(file);
  const line = text.slice(0, start).split('\n').length;
  return `${file}:${line}: ${text.slice(start, end)} → ${replacement === '' || replacement === ';' ? '(left out)' : replacement}`;
}
