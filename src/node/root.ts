// Keeps what is done to an image that is being built within its root.

import { existsSync, realpathSync } from 'node:fs';
import { dirname, join, sep } from 'node:path';
import { OcicryptError } from '../base/errors.ts';
import { showPath } from '../base/shown.ts';

/**
 * Where a file of the node is: links of an image that is being built, and lists that are in it, may lead to this machine.
 *
 * @throws OcicryptError `not-written` if it leads out of the root
 */
export function placeOf(root: string, path: string): string {
  const place = join(root, path);
  refuseOutside(root, place);
  if (!existsSync(place)) return place;
  const target = realpathSync(place);
  if (!isWithin(root, target)) throw leadsOut(root, place);
  return target;
}

/** The same of a place where nothing may be yet, and no directory. */
export function refuseOutside(root: string, place: string): void {
  let directory = dirname(place);
  while (!existsSync(directory)) directory = dirname(directory);
  if (!isWithin(root, join(directory, 'any'))) throw leadsOut(root, place);
}

function leadsOut(root: string, place: string): OcicryptError {
  return new OcicryptError('not-written', `${showPath(place)} leads out of ${showPath(root)}`, {
    hint: 'a link there has a whole path: replace it by one that is relative',
  });
}

/** Whether it is below the root, over links; its directory must be there. */
export function isWithin(root: string, path: string): boolean {
  const whole = realpathSync(root);
  const inside = join(realpathSync(dirname(path)), sep);
  return whole === sep || inside.startsWith(join(whole, sep));
}
