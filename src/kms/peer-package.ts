// Packages of clouds that are installed only where they are needed: the error for one that is not there.

import { OcicryptError, systemCode } from '../base/errors.ts';

/**
 * For what follows `import()` as `.catch(…)`, the form in which bundlers leave out a package that is not there.
 *
 * @param what needs the package, as `keys of AWS KMS`
 * @returns what throws `configuration` for a package that is not installed, and the error itself for every other
 */
export function missingPeer(name: string, what: string): (cause: unknown) => never {
  return (cause) => {
    if (!NOT_FOUND.has(systemCode(cause) ?? '')) throw cause;
    throw new OcicryptError('configuration', `${what} need the package ${name}, which is not installed`, {
      cause,
      hint: `npm install ${name} beside ocicrypt-kms, or use the executable, which holds it`,
    });
  };
}

/** As Node and Bun say it, for `import()` and for `require`, which bundles may make of it. */
const NOT_FOUND: ReadonlySet<string> = new Set(['ERR_MODULE_NOT_FOUND', 'MODULE_NOT_FOUND']);
