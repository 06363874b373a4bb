// Moves the bytes of a layer through the stages of its cipher on threads, one each.

import { existsSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import { wipe } from '../../base/bytes.ts';
import { OcicryptError } from '../../base/errors.ts';
import type { LayerKey, Stage } from './passes.ts';
import { fill, type PipelineOptions, wrongSize } from './pipeline-input.ts';
import { createSharedRing, Ring } from './ring.ts';
import { isStageReply, type StageJob, type WorkerStart } from './stage-job.ts';
import type { ByteSink, ByteSource } from './streams.ts';

/** Of the threads' code in our executable. */
const ENTRY = './image/cipher/worker.js';

const IDLE_LANES = 4;
const idleLanes: Lane[] = [];

/**
 * One layer at a time has both cores. Beside it are those that wait for a network: they need no long ring, and one
 * thread is faster than most networks. Measured with two layers at a time to a registry: 135 MiB, and 141 with all
 * threads for each, which are no faster. Rings of 12 and 16 are no faster either, and take what they hold.
 */
const SLOTS = 8;
const FURTHER_SLOTS = 4;
/** The one with all threads and the long ring, as long as it lives. */
let firstLane: Lane | undefined;

type Run = Lane['run'];

/** A run on threads, of those that are idle if there are any; undefined if a bundle lacks their code. */
export function startLane(): Run | undefined {
  if (WORKER === undefined) return undefined;
  const lane = (firstLane === undefined ? undefined : idleLanes.pop()) ?? new Lane();
  return async (...run) => {
    const sums = await lane.run(...run);
    // A lane that has failed may still have a thread at work or a read under way: only sound ones are used again.
    if (idleLanes.length >= IDLE_LANES) lane.end();
    else if (lane === firstLane) idleLanes.push(lane);
    else idleLanes.unshift(lane);
    return sums;
  };
}

/** A ring with the threads that work on it. */
class Lane {
  readonly #isFirst = firstLane === undefined;
  readonly #shared = createSharedRing(this.#isFirst ? SLOTS : FURTHER_SLOTS);
  readonly #secrets = new SharedArrayBuffer(48);
  readonly #ring = new Ring(this.#shared);
  readonly #workers: Worker[] = [];
  #writing: Promise<void> | undefined;

  constructor() {
    firstLane ??= this;
  }

  async run(
    source: ByteSource,
    sink: ByteSink,
    wanted: readonly Stage[],
    layer: LayerKey,
    options: PipelineOptions,
  ): Promise<readonly Uint8Array[]> {
    // The same passes in the same order, and so the same sums.
    const stages = this.#isFirst ? wanted : [wanted.flat()];
    const secrets = new Uint8Array(this.#secrets);
    secrets.set(layer.key, 0);
    secrets.set(layer.nonce, 32);
    this.#ring.reset();
    const failure = Promise.withResolvers<never>();
    const abort = () => failure.reject(options.signal?.reason);
    options.signal?.addEventListener('abort', abort);
    try {
      const results = stages.map((stage, index) => this.#start(stage, index + 1));
      const summing = Promise.all(results).then((all) => all.flat());
      const [sums] = await Promise.race([
        failure.promise,
        Promise.all([
          summing,
          this.#fill(source, stages.length, options),
          this.#empty(sink, stages.length, summing, options),
        ]),
      ]);
      for (const worker of this.#workers) worker.unref();
      return sums;
    } catch (error) {
      this.end();
      // The sink's owner closes it next.
      await this.#writing?.catch(() => undefined);
      throw error;
    } finally {
      options.signal?.removeEventListener('abort', abort);
      wipe(secrets);
    }
  }

  /** Ends the threads, at work or not. */
  end(): void {
    if (firstLane === this) firstLane = undefined;
    this.#ring.stopAll();
    for (const worker of this.#workers) void worker.terminate();
  }

  async #fill(source: ByteSource, stages: number, options: PipelineOptions): Promise<void> {
    let left = options.size;
    for (let index = 0; await this.#ring.waitEmpty(stages + 1, index); index++) {
      const length = await fill(source, this.#ring.slot(index), options);
      left -= length;
      // A source that does not stop is cut here and not at the end.
      if (left < 0 || (length === 0 && left > 0)) throw wrongSize(options.size);
      this.#ring.setLength(index, length);
      this.#ring.pass(0, index);
      if (length === 0) return;
    }
  }

  /** One chunk behind, so that the last is still here when `check` decides. A layer of this size has at least one. */
  async #empty(
    sink: ByteSink,
    stages: number,
    sums: Promise<readonly Uint8Array[]>,
    options: PipelineOptions,
  ): Promise<void> {
    for (let index = 1; await this.#ring.wait(stages, index); index++) {
      const last = this.#ring.chunk(index).length === 0;
      if (last) options.check(await sums);
      this.#writing = sink.write(this.#ring.chunk(index - 1));
      await this.#writing;
      this.#ring.pass(stages + 1, index - 1);
      if (last) return;
    }
  }

  #start(stage: Stage, party: number): Promise<readonly Uint8Array[]> {
    const worker = this.#workers[party - 1] ?? this.#startWorker();
    this.#workers[party - 1] = worker;
    worker.ref();
    const { promise, resolve, reject } = Promise.withResolvers<readonly Uint8Array[]>();
    const listen = (reply: unknown) => {
      worker.off('error', fail);
      if (isStageReply(reply)) resolve(reply.sums);
      else fail(undefined);
    };
    const fail = (cause: unknown) =>
      reject(new OcicryptError('internal', 'a thread of the layer cipher failed', { cause }));
    worker.once('message', listen);
    worker.once('error', fail);
    const job: StageJob = { stage, party };
    worker.postMessage(job);
    return promise;
  }

  #startWorker(): Worker {
    const workerData: WorkerStart = { ring: this.#shared, secrets: this.#secrets };
    // The caller's flags are for the caller's code: with `--input-type` no thread of a file starts.
    return new Worker(WORKER ?? ENTRY, { workerData, execArgv: [] });
  }
}

/**
 * Where the code of the threads is. In the source and in the npm build it lies beside this file; in an executable made by
 * `bun build --compile`, where this code is a chunk in the root of a virtual drive, it is an entry point and keeps its
 * place below `src`. A bundle of somebody else's has it not: what is called `worker.js` there is theirs.
 */
const WORKER: string | URL | undefined = findWorker(import.meta.url);

/** @param here undefined in a bundle for CommonJS */
function findWorker(here: string | undefined): string | URL | undefined {
  const [, ending] = /\/image\/cipher\/lane(\.[jt]s)$/.exec(here ?? '') ?? [];
  if (ending !== undefined) return new URL(`./worker${ending}`, here);
  const compiled = /\/(?:\$bunfs|~BUN)\//.test(here ?? '');
  return compiled && existsSync(new URL(ENTRY, here)) ? ENTRY : undefined;
}
