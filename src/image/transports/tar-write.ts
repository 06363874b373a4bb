// Writes tar files: plain files of root's with names of at most 100 characters, and the same bytes
// whenever the same files are packed (POSIX.1-2017 pax, "ustar Interchange Format").

import type { ByteSink } from '../cipher/streams.ts';

const BLOCK_BYTES = 512;
/** Eleven octal digits; larger sizes are written in base 256, as GNU tar and Go do. */
const MAXIMUM_OCTAL = 8 ** 11;

/** Starts a member: its content follows, then {@link endTarMember}. */
export async function startTarMember(sink: ByteSink, name: string, size: number): Promise<void> {
  const header = new Uint8Array(BLOCK_BYTES);
  const put = (text: string, offset: number) => header.set(new TextEncoder().encode(text), offset);
  put(name, 0);
  put('0000644\x000000000\x000000000\0', 100);
  if (size < MAXIMUM_OCTAL) {
    put(`${octal(size, 11)}\0`, 124);
  } else {
    new DataView(header.buffer).setBigUint64(128, BigInt(size));
    header[124] = 0x80;
  }
  put(`${octal(0, 11)}\0`, 136);
  put(`${' '.repeat(8)}0`, 148);
  put('ustar\x0000', 257);
  const sum = header.reduce((total, byte) => total + byte, 0);
  put(`${octal(sum, 6)}\0 `, 148);
  await sink.write(header);
}

/** Fills the last block of a member of `size` bytes. */
export async function endTarMember(sink: ByteSink, size: number): Promise<void> {
  const padding = (BLOCK_BYTES - (size % BLOCK_BYTES)) % BLOCK_BYTES;
  if (padding > 0) await sink.write(new Uint8Array(padding));
}

/** Ends the tar. */
export async function endTar(sink: ByteSink): Promise<void> {
  await sink.write(new Uint8Array(2 * BLOCK_BYTES));
}

function octal(value: number, digits: number): string {
  return value.toString(8).padStart(digits, '0');
}
