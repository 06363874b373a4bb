// Runs ctd-decoder, the program that containerd starts to decrypt a layer, as containerd starts it.
import { createReadStream } from 'node:fs';
import type { Descriptor } from '../fixtures/images.ts';
import { type Environment, runClient } from './process.ts';
import { toolArgv } from './tools.ts';

/**
 * A layer to decrypt: the file that holds its encrypted blob, its descriptor with the annotations, and the decryption
 * parameters by scheme (`privkeys` with `privkeys-passwords`, or the name of a provider), null as containerd's CRI sends them.
 */
export type DecodeOptions = {
  readonly blob: string;
  readonly descriptor: Descriptor;
  readonly parameters: Readonly<Record<string, readonly Uint8Array[]>> | null;
  readonly env?: Environment;
};

/** The decrypted layer, still compressed as it was; complete only when `exitCode` is 0. */
export type DecodeResult = { readonly exitCode: number; readonly layer: Uint8Array; readonly stderr: string };

/** Decrypts one layer. A refusal is a result with its exit code and stderr; throws only when ctd-decoder cannot be had. */
export async function decodeLayer(options: DecodeOptions): Promise<DecodeResult> {
  const { exitCode, stdout, stderr } = await runClient(await toolArgv('ctd-decoder'), {
    stdin: createReadStream(options.blob),
    descriptor3: decoderPayload(options.descriptor, options.parameters),
    // containerd's name for what the decoder reads; providers are known to see it.
    env: { STREAM_PROCESSOR_MEDIATYPE: options.descriptor.mediaType, ...options.env },
    cwd: '/',
  });
  return { exitCode, layer: stdout, stderr };
}

/** What containerd hands a decoder on descriptor 3. */
export function decoderPayload(descriptor: Descriptor, parameters: DecodeOptions['parameters']): Uint8Array {
  const encoded =
    parameters &&
    Object.fromEntries(
      Object.entries(parameters).map(([name, values]) => [
        name,
        values.map((value) => Buffer.from(value).toString('base64')),
      ]),
    );
  const payload = { DecryptConfig: { Parameters: encoded }, Descriptor: descriptor };
  return encodeAny('io.containerd.ocicrypt.v1.Payload', new TextEncoder().encode(JSON.stringify(payload)));
}

/** The protobuf message `google.protobuf.Any`: `string type_url = 1; bytes value = 2;`. */
function encodeAny(typeUrl: string, value: Uint8Array): Uint8Array {
  const field = (number: number, bytes: Uint8Array) => [(number << 3) | 2, ...varint(bytes.length), ...bytes];
  return Uint8Array.from([...field(1, new TextEncoder().encode(typeUrl)), ...field(2, value)]);
}

function varint(value: number): readonly number[] {
  return value < 0x80 ? [value] : [(value & 0x7f) | 0x80, ...varint(value >>> 7)];
}
