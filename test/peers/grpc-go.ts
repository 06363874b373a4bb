// Builds and runs the grpc-go client and server that our server is tested with and measured beside.
import { buildGoProgram } from './fetched.ts';

/** The path of the program that `grpc-go/main.go` describes. */
export function buildGrpcGo(): Promise<string> {
  return buildGoProgram(new URL('grpc-go/', import.meta.url), ['google.golang.org/grpc@v1.85.0']);
}
