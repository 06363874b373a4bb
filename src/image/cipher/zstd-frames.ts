// Follows the frames of zstd (RFC 8878 section 3.1) without uncompressing them: where each ends, and whether all are whole.

const FRAME = 0xfd2fb528;
/** The least significant digit is free. */
const SKIPPABLE = 0x184d2a50;
const CHECKSUM_BYTES = 4;
const BLOCK = { repeated: 1, reserved: 3 } as const;

/** What the bytes of a field are, and how many there are of it. */
const FIELDS = { magic: 4, length: 4, descriptor: 1, block: 3 } as const;

/** Bytes of a stream, which are passed on elsewhere. */
export class ZstdFrames {
  #field: keyof typeof FIELDS = 'magic';
  /** What has come of the field, least significant byte first. */
  #value = 0;
  #filled = 0;
  /** How many bytes come before the field. */
  #before = 0;
  #checksum = 0;

  /** Takes the next bytes, in parts of any size, and none behind the end of a frame. @returns how many it took */
  pass(bytes: Uint8Array): number {
    for (let at = 0; at < bytes.length; ) {
      const passed = Math.min(this.#before, bytes.length - at);
      this.#before -= passed;
      at += passed;
      if (passed === 0) this.#take(bytes[at++] ?? 0);
      if (this.isWhole) return at;
    }
    return bytes.length;
  }

  /** Whether the last frame has come to its end. */
  get isWhole(): boolean {
    return this.#field === 'magic' && this.#filled === 0 && this.#before === 0;
  }

  /** Takes a byte of the field. */
  #take(byte: number): void {
    this.#value += byte * 256 ** this.#filled++;
    if (this.#filled < FIELDS[this.#field]) return;
    const value = this.#value;
    this.#value = 0;
    this.#filled = 0;
    this.#read(value);
  }

  #read(value: number): void {
    switch (this.#field) {
      case 'magic':
        if (value === FRAME) this.#expect('descriptor');
        else if (value - (value % 16) === SKIPPABLE) this.#expect('length');
        else this.#expect('magic', Number.POSITIVE_INFINITY);
        break;
      case 'length':
        this.#expect('magic', value);
        break;
      case 'descriptor':
        this.#checksum = (value & 0x04) === 0 ? 0 : CHECKSUM_BYTES;
        this.#expect('block', headerBytes(value));
        break;
      case 'block': {
        const kind = (value >> 1) & 0x03;
        const content = kind === BLOCK.repeated ? 1 : value >> 3;
        if (kind === BLOCK.reserved) this.#expect('magic', Number.POSITIVE_INFINITY);
        else if ((value & 0x01) === 0) this.#expect('block', content);
        else this.#expect('magic', content + this.#checksum);
      }
    }
  }

  /** @param before bytes that come first; without end where nothing that follows makes it whole */
  #expect(field: keyof typeof FIELDS, before = 0): void {
    this.#field = field;
    this.#before = before;
  }
}

/** How many bytes of a frame's header follow its descriptor: of the window, the dictionary's number, and the content's size. */
function headerBytes(descriptor: number): number {
  const isSingle = (descriptor & 0x20) !== 0;
  const sizeFlag = descriptor >> 6;
  const dictionary = (1 << (descriptor & 0x03)) >> 1;
  const size = sizeFlag === 0 && !isSingle ? 0 : 1 << sizeFlag;
  return (isSingle ? 0 : 1) + dictionary + size;
}
