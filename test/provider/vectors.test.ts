// Every vector through the library: the code that it expects, or the reply.
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { asOcicryptError, describeError } from '../../src/base/errors.ts';
import { decodePacket, recipientsOf } from '../../src/provider/packet.ts';
import { OPTSDATA } from '../fixtures/packets.ts';
import { type KeyDirectory, makeKeyDirectory, providerOf, requestOf } from '../fixtures/provider.ts';
import { formatVector, makeVectors } from '../fixtures/vectors/all.ts';
import type { Vector } from '../fixtures/vectors/shape.ts';

const DIRECTORY = new URL('../vectors/packets/', import.meta.url);
const names = readdirSync(DIRECTORY).filter((name) => name.endsWith('.json'));

function readVector(name: string): Vector {
  return JSON.parse(readFileSync(new URL(name, DIRECTORY), 'utf8'));
}

test('P3 at least 120 vectors have one fault each, and are what scripts/vectors.ts makes', () => {
  const made = makeVectors();
  assert.deepEqual(names.toSorted(), [...made.keys()].map((name) => `${name}.json`).toSorted());
  for (const [name, vector] of made) {
    assert.equal(readFileSync(new URL(`${name}.json`, DIRECTORY), 'utf8'), formatVector(vector), name);
  }
  assert.ok([...made.values()].filter(({ expect }) => expect !== 'ok').length >= 120);
});

describe('P3 every vector ends as it says, through the library', () => {
  let keys: KeyDirectory;
  before(() => {
    keys = makeKeyDirectory();
  });
  after(() => keys.remove());

  for (const file of names) {
    const vector = readVector(file);
    test(`${file.replace('.json', '')}: ${vector.comment}`, async () => {
      const handle = async (request: Uint8Array) => providerOf(vector.setup, keys).handle(request);
      if (vector.expect !== 'ok') {
        const error = await handle(requestOf(vector)).then(
          () => assert.fail('it succeeded'),
          (reason: unknown) => asOcicryptError(reason),
        );
        assert.equal(error.code, vector.expect, describeError(error));
        assert.match(describeError(error), /^[^\p{Cc}\p{Cf}]+$/u);
        return;
      }
      const reply = Buffer.from(await handle(requestOf(vector))).toString();
      if (vector.reply !== undefined) assert.equal(reply, vector.reply);
      if (vector.packet !== undefined) {
        const packet = Buffer.from(JSON.parse(reply).keywrapresults.annotation, 'base64');
        await assertWrapped(packet, vector);
      }
    });
  }

  /** The packet is of the format and for the keys that the vector says, and opens again. */
  async function assertWrapped(packet: Buffer, vector: Vector): Promise<void> {
    const decoded = decodePacket(packet);
    const asked = recipientsOf(decoded).map(({ key }) => key);
    assert.deepEqual({ format: decoded.format, keys: asked }, vector.packet);
    if (decoded.format === 'v1') {
      assert.deepEqual(Object.keys(JSON.parse(packet.toString())), ['key_url', 'wrapped_key', 'wrap_type']);
    }
    const dc = { Parameters: { kmscrypt: asked.map((key) => Buffer.from(key).toString('base64')) } };
    const request = { op: 'keyunwrap', keyunwrapparams: { dc, annotation: packet.toString('base64') } };
    const { kmsURI: _, provider: __, ...setup } = vector.setup;
    const reply = await providerOf(setup, keys).handle(Buffer.from(JSON.stringify(request)));
    const { optsdata } = JSON.parse(Buffer.from(reply).toString()).keyunwrapresults;
    assert.deepEqual(Buffer.from(optsdata, 'base64'), OPTSDATA);
  }
});
