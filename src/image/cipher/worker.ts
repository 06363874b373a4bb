// The worker thread of the layer cipher: one stage of passes over every chunk of a ring. An entry point of the build.

import { parentPort, workerData } from 'node:worker_threads';
import { startStage } from './passes.ts';
import { Ring } from './ring.ts';
import { isStageJob, isWorkerStart, type StageJob, type StageReply } from './stage-job.ts';

const setup: unknown = workerData;
if (parentPort !== null && isWorkerStart(setup)) {
  const port = parentPort;
  const ring = new Ring(setup.ring);
  const secrets = new Uint8Array(setup.secrets);
  port.on('message', (job: unknown) => {
    if (!isStageJob(job)) return;
    const sums = work(ring, secrets, job);
    if (sums === undefined) return;
    const reply: StageReply = { sums };
    port.postMessage(reply);
  });
}

/** Undefined when the party before has stopped. Whatever happens, the party after is told. */
function work(ring: Ring, secrets: Uint8Array, { stage, party }: StageJob): readonly Uint8Array[] | undefined {
  try {
    const running = startStage(stage, { key: secrets.subarray(0, 32), nonce: secrets.subarray(32) });
    for (let index = 0; ring.waitSync(party - 1, index); index++) {
      const chunk = ring.chunk(index);
      if (chunk.length === 0) {
        const sums = running.finish();
        ring.pass(party, index);
        return sums;
      }
      running.apply(chunk);
      ring.pass(party, index);
    }
    ring.stop(party);
    return undefined;
  } catch (error) {
    ring.stop(party);
    throw error;
  }
}
