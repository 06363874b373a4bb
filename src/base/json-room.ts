// How much JSON may be parsed, by what it takes of memory.

/**
 * What parsing takes of memory is for its number of values to say, not for its bytes: an object of one member takes as much
 * as sixteen strings, about 900 bytes (measured), and may be written in 7. An image of 3,000 encrypted layers weighs as much.
 */
const MAXIMUM_WEIGHT = 200_000;
const WEIGHT = { object: 16, array: 2, scalar: 1, name: 1 } as const;

/** Bytes of memory for each unit of weight: 900 for sixteen. */
const BYTES_OF_WEIGHT = 60;

/** What may still be parsed, for documents that are kept together. */
export type JsonRoom = { weight: number };

/** Room for as much as so many documents may hold. */
export function createJsonRoom(documents = 1): JsonRoom {
  return { weight: documents * MAXIMUM_WEIGHT };
}

/**
 * How many bytes of memory the values of a document take at the most once it is parsed, told from the bytes that part
 * them. Those in strings count as well.
 */
export function memoryOfJson(document: Uint8Array): number {
  let weight: number = WEIGHT.object;
  for (const byte of document) {
    if (byte === 0x7b) weight += WEIGHT.object + WEIGHT.name + WEIGHT.scalar;
    else if (byte === 0x5b) weight += WEIGHT.array + WEIGHT.scalar;
    else if (byte === 0x2c) weight += WEIGHT.name + WEIGHT.scalar;
  }
  return Math.min(weight, MAXIMUM_WEIGHT) * BYTES_OF_WEIGHT;
}

/** How many bytes of memory was taken at the most by what was parsed in a room of so many documents. */
export function memoryOfRoom({ weight }: JsonRoom, documents = 1): number {
  return (documents * MAXIMUM_WEIGHT - Math.max(weight, 0)) * BYTES_OF_WEIGHT;
}

/** Takes the room of a value or a name. @returns whether there was enough */
export function spend(room: JsonRoom, kind: keyof typeof WEIGHT): boolean {
  room.weight -= WEIGHT[kind];
  return room.weight >= 0;
}
