// Finds members of JSON objects as Go's encoding/json does, which most readers of requests and images are built on.

import { OcicryptError } from './errors.ts';
import type { JsonObject, JsonValue } from './json.ts';

/**
 * A member as Go finds it: without regard to case, and U+017F counts as `s` and U+212A as `k`. Where two members have one
 * name the last one counts there, and two objects become one; so two are refused.
 *
 * @param name as Go has it, in ASCII
 * @throws OcicryptError `bad-input` for two spellings
 */
export function findMember(object: JsonObject, name: string): JsonValue | undefined {
  const wanted = foldName(name);
  let found: string | undefined;
  for (const candidate of object.keys()) {
    // A letter of one unit folds to a letter of one unit.
    if (candidate.length !== name.length || foldName(candidate) !== wanted) continue;
    if (found !== undefined) throw new OcicryptError('bad-input', `"${name}" is spelled in two ways`);
    found = candidate;
  }
  return found === undefined ? undefined : object.get(found);
}

/** Names of members, as {@link checkSpelling} knows them: by what they fold to. */
export type KnownNames = ReadonlyMap<string, string>;

/** @param names as Go has them, in ASCII */
export function knownNames(names: readonly string[]): KnownNames {
  return new Map(names.map((name) => [foldName(name), name]));
}

/**
 * For documents whose other readers may or may not be Go's: a member that Go would take for one of the known, and others
 * would not, is refused.
 *
 * @param what names the document in an error
 * @throws OcicryptError `bad-input`
 */
export function checkSpelling(object: JsonObject, known: KnownNames, what: string): void {
  for (const candidate of object.keys()) {
    const name = known.get(foldName(candidate));
    if (name === undefined || name === candidate) continue;
    throw new OcicryptError('bad-input', `${what} spells "${name}" as ${JSON.stringify(candidate)}`, {
      hint: 'readers disagree about such a member: make the image anew with a current tool',
    });
  }
}

/** The case folding of Unicode, for what can fold to ASCII: https://go.dev/src/encoding/json/fold.go */
function foldName(name: string): string {
  return name.replaceAll('\u017f', 's').replaceAll('\u212a', 'k').toLowerCase();
}
