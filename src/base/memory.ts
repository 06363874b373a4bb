// Gives memory back before the engine's garbage collection does: streams fill hundreds of megabytes a
// second, and the engine notices late.

/**
 * Frees what `bytes` lie in, which must be used by nothing else and is empty afterwards; does nothing if other bytes may lie
 * in the same memory.
 */
export function releaseBytes(bytes: Uint8Array): void {
  const { buffer, byteLength } = bytes;
  if (byteLength > 0 && byteLength === buffer.byteLength && buffer instanceof ArrayBuffer) buffer.transfer(0);
}
