// Builds and asks the Go program that reads images as containerd and containers/image do, by their own code.
import { type ChildProcessByStdio, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';
import { buildGoProgram } from './fetched.ts';

/** A descriptor as Go's struct has it. */
export type GoDescriptor = {
  readonly mediaType: string;
  readonly digest: string;
  readonly size: number;
  readonly annotations?: Readonly<Record<string, string>>;
  readonly platform?: { readonly os: string; readonly architecture: string; readonly variant?: string };
};

/** What one reader reads; with `refusal` it reads nothing. */
export type GoReading = {
  readonly reader: 'containerd' | 'containers/image' | "containerd's importer" | 'guess';
  readonly refusal?: string;
  readonly mediaType?: string;
  readonly digest?: string;
  readonly config?: GoDescriptor;
  readonly layers?: readonly GoDescriptor[];
  readonly manifests?: readonly GoDescriptor[];
  /** What is run of an index on some platforms. */
  readonly chosen?: readonly string[];
  readonly children?: readonly GoReading[];
};

/** A document and what its descriptor says it is, or an image by its name. */
export type GoRequest = { readonly bytes: Uint8Array; readonly mediaType: string } | { readonly image: string };

/** A running program; questions are answered in their order, and many may be asked at once. */
export class GoReaders {
  readonly #child: ChildProcessByStdio<Writable, Readable, null>;
  readonly #waiting: ((answer: readonly GoReading[]) => void)[] = [];

  private constructor(program: string) {
    this.#child = spawn(program, { stdio: ['pipe', 'pipe', 'inherit'] });
    createInterface({ input: this.#child.stdout }).on('line', (line) => this.#waiting.shift()?.(JSON.parse(line)));
  }

  static async start(): Promise<GoReaders> {
    return new GoReaders(
      await buildGoProgram(new URL('go-readers/', import.meta.url), [
        'github.com/containerd/containerd/v2@v2.4.2',
        'github.com/containers/image/v5@v5.36.2',
        'github.com/opencontainers/image-spec@v1.1.1',
      ]),
    );
  }

  read(request: GoRequest): Promise<readonly GoReading[]> {
    const asked = 'image' in request ? request : { ...request, bytes: Buffer.from(request.bytes).toString('base64') };
    const { promise, resolve, reject } = Promise.withResolvers<readonly GoReading[]>();
    this.#waiting.push(resolve);
    if (this.#child.exitCode !== null) reject(new Error('the program has ended'));
    this.#child.stdin.write(`${JSON.stringify(asked)}\n`);
    return promise;
  }

  stop(): void {
    this.#child.stdin.end();
  }
}
