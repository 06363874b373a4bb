// Local keys that cost processor time, used by one call at a time: clients take turns, and everything else goes on between.

import { setImmediate as yieldToOthers } from 'node:timers/promises';
import { OcicryptError } from '../base/errors.ts';
import { Places } from '../base/turns.ts';
import { decorate, type Kek } from './kek.ts';

export class ProcessorTurns {
  readonly #processor = new Places(1);

  /** The key, whose calls wait for those of all keys that this was called with. @param onWait told that one has to */
  share(kek: Kek, onWait: () => void): Kek {
    return decorate(kek, {
      wrap: (plaintext, context, signal) => this.#run(kek, signal, onWait, () => kek.wrap(plaintext, context, signal)),
      unwrap: (wrapped, context, signal) => this.#run(kek, signal, onWait, () => kek.unwrap(wrapped, context, signal)),
    });
  }

  async #run<Value>(kek: Kek, signal: AbortSignal, onWait: () => void, call: () => Promise<Value>): Promise<Value> {
    if (this.#processor.isFull) onWait();
    const wait = { name: 'the processor, which other calls keep busy' };
    await this.#processor.take(signal, wait, () => isBusy(kek));
    try {
      // What other callers wait for comes first: nothing else runs once this call computes.
      await yieldToOthers();
      return await call();
    } finally {
      this.#processor.leave();
    }
  }
}

function isBusy({ key }: Kek): OcicryptError {
  return new OcicryptError(
    'throttled',
    `key ${key.slice(0, 80)} is asked for more often than this machine can compute`,
    {
      hint: 'try again later',
      retryable: true,
    },
  );
}
