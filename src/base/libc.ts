// Calls the system's C library, for what the runtimes have no functions of their own: Bun can, Node cannot.

/** A function's types, as `bun:ffi` names them. */
export type Signature = {
  readonly args: readonly ('i32' | 'ptr' | 'u32' | 'u64')[];
  readonly returns: 'i32' | 'i64';
};

/** The functions that were asked for, and where the bytes of a view are. */
export type Libc<Functions> = {
  readonly functions: Functions;
  readonly addressOf: (view: Uint8Array | BigUint64Array) => number;
};

/** Of glibc and of musl. */
const LIBRARIES = ['libc.so.6', 'libc.musl-x86_64.so.1', 'libc.musl-aarch64.so.1'];

/**
 * Opens functions of the library.
 *
 * @param signatures must be those of `Functions`: nothing checks them
 * @returns undefined under Node
 * @throws Error if Bun cannot do it here
 */
export async function openLibc<Functions>(
  signatures: { readonly [Name in keyof Functions]: Signature },
): Promise<Libc<Functions> | undefined> {
  if (process.versions.bun === undefined) return undefined;
  // Not a literal, for the bundler of the npm build.
  const ffi: unknown = await import(['bun', 'ffi'].join(':'));
  if (!isForeign<Functions>(ffi)) throw new Error('this runtime cannot call the system library');
  for (const library of LIBRARIES) {
    try {
      return { functions: ffi.dlopen(library, signatures).symbols, addressOf: (view) => ffi.ptr(view) };
    } catch {
      // The other kind of system.
    }
  }
  throw new Error('the system library was not found');
}

type Foreign<Functions> = {
  dlopen(
    library: string,
    signatures: { readonly [Name in keyof Functions]: Signature },
  ): { readonly symbols: Functions };
  ptr(view: Uint8Array | BigUint64Array): number;
};

function isForeign<Functions>(value: unknown): value is Foreign<Functions> {
  return typeof value === 'object' && value !== null && 'dlopen' in value && 'ptr' in value;
}
