// Builds the clients of ttrpc that our server is tested with: those of containerd's library for Go, and of Rust's.
import { buildGoProgram, buildRustProgram } from './fetched.ts';

/** The path of the program that `ttrpc-go/main.go` describes. */
export function buildTtrpcGo(): Promise<string> {
  return buildGoProgram(new URL('ttrpc-go/', import.meta.url), ['github.com/containerd/ttrpc@v1.2.10']);
}

/** The path of the program that `ttrpc-rust/src/main.rs` describes. */
export function buildTtrpcRust(): Promise<string> {
  return buildRustProgram(new URL('ttrpc-rust/', import.meta.url));
}
