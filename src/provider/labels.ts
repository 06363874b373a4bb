// Labels: which are usable, when two sets are the same, and how they are shown.

import { OcicryptError } from '../base/errors.ts';
import { setting } from '../base/setting.ts';
import { showValue } from '../base/shown.ts';

/** Public names and values that a packet is bound to, as `--context env=prod` gives them. */
export type Labels = Readonly<Record<string, string>>;

export const MAXIMUM_LABELS = 8;
/** Label names start with a letter so that no engine reorders them as array indices. */
const LABEL_NAME = /^[A-Za-z][A-Za-z0-9_.-]{0,63}$/;
const LABEL_VALUE = /^[!-~](?:[ -~]{0,254}[!-~])?$/;
/** What needs no quotes: nothing in it separates labels, or a name from its value. */
const PLAIN = /^[A-Za-z0-9_.:/@+-]+$/;

/** Checks labels that the operator gave. @throws OcicryptError `usage` */
export function checkLabels(labels: Labels): void {
  const entries = Object.entries(labels);
  if (entries.length > MAXIMUM_LABELS) {
    throw new OcicryptError('usage', `${entries.length} labels of ${setting('labels')}`, {
      hint: `at most ${MAXIMUM_LABELS} are possible`,
    });
  }
  for (const [name, value] of entries) {
    if (isLabel(name, value)) continue;
    throw new OcicryptError('usage', `label ${showValue(name)} of ${setting('labels')} is not usable`, {
      hint: 'a name is a letter and up to 63 of A-Z a-z 0-9 _ . -, a value 1 to 256 printable ASCII characters',
    });
  }
}

export function isLabel(name: string, value: string): boolean {
  return LABEL_NAME.test(name) && LABEL_VALUE.test(value);
}

/** Name by name. Never by a text made of them: a value may hold whatever would separate the labels in it. */
export function sameLabels(one: Labels, other: Labels): boolean {
  const names = Object.keys(one);
  return (
    names.length === Object.keys(other).length &&
    names.every((name) => Object.hasOwn(other, name) && one[name] === other[name])
  );
}

/** Every label as `name=value`, sorted by name; what could be read in two ways is in quotes, as in JSON. */
export function showLabels(labels: Labels): string {
  const shown = Object.keys(labels)
    .toSorted()
    .map((name) => `${quoted(name)}=${quoted(labels[name] ?? '')}`);
  return shown.length === 0 ? '(none)' : shown.join(' ');
}

function quoted(text: string): string {
  return PLAIN.test(text) ? text : JSON.stringify(text);
}
