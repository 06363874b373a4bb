// docs/protocol.md suffices for another implementation: a reader made of its text alone agrees with ours and the vectors.

import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { OcicryptError } from '../../src/base/errors.ts';
import { formatKeyUri } from '../../src/base/key-uri.ts';
import { type NameOptions, namedKeys } from '../../src/provider/parameters.ts';
import { decodeRequest, type KeyRequest } from '../../src/provider/protocol.ts';
import { createMalformed } from '../fixtures/malformed.ts';
import { requestOf } from '../fixtures/provider.ts';
import { createRandom, runs, seeded } from '../fixtures/seed.ts';
import type { Vector } from '../fixtures/vectors/shape.ts';
import { canonicalForm, isKeyUri } from './key-grammar.ts';
import { type ReadRequest, readKeys, readRequest } from './protocol-reader.ts';

const DIRECTORY = new URL('../vectors/packets/', import.meta.url);
const vectors = readdirSync(DIRECTORY).map((file): readonly [string, Vector] => [
  file.replace('.json', ''),
  JSON.parse(readFileSync(new URL(file, DIRECTORY), 'utf8')),
]);

/** Vectors whose fault is in the request itself: not in its packet or record, nor in what the operator allows. */
const OF_THE_REQUEST =
  /^(?:request|op|wrap-params|unwrap-params|dc|parameters?|ec|annotation-(?!not-json|cut)|base64|case|optsdata|json|size|name|uri)-/;

function namesOf({ setup }: Vector): NameOptions {
  return { configured: setup.provider, fallback: 'kmscrypt' };
}

/** What both readers make of a request, in a form that can be compared. */
type Understood = { readonly operation: string; readonly payload: string; readonly keys: readonly string[] };

function byDocument(request: Buffer, names: NameOptions): Understood | undefined {
  const read: ReadRequest | undefined = readRequest(request);
  const keys = read === undefined ? undefined : readKeys(read, names, isKeyUri);
  if (read === undefined || keys === undefined) return undefined;
  const { operation, payload } = read;
  return { operation, payload: payload.toString('base64'), keys: [...new Set(keys.map(canonicalForm))] };
}

function byUs(request: Buffer, names: NameOptions): Understood | undefined {
  try {
    const read: KeyRequest = decodeRequest(request);
    const { keys } = namedKeys(read.parameters, names);
    const payload = read.operation === 'wrap' ? read.record : read.annotation;
    return {
      operation: read.operation,
      payload: Buffer.from(payload).toString('base64'),
      keys: [...new Set(keys.map(formatKeyUri))],
    };
  } catch (error) {
    assert.ok(error instanceof OcicryptError && error.code === 'bad-input', String(error));
    return undefined;
  }
}

test('P3 every vector whose fault is in the request is refused by the document alone, and every other request is taken', () => {
  let refused = 0;
  for (const [name, vector] of vectors) {
    const request = requestOf(vector);
    const understood = byDocument(request, namesOf(vector));
    if (OF_THE_REQUEST.test(name)) {
      assert.deepEqual([understood, vector.expect], [undefined, 'bad-input'], name);
      refused++;
    } else if (vector.expect !== 'bad-input') assert.notEqual(understood, undefined, name);
    assert.deepEqual(byUs(request, namesOf(vector)), understood, name);
  }
  assert.ok(refused >= 120, `${refused} refused`);
});

test(seeded('P3 a reader made of the document understands every damaged request as ours does'), () => {
  const next = createMalformed(createRandom());
  const names: NameOptions = { configured: undefined, fallback: 'kmscrypt' };
  let [taken, refused] = [0, 0];
  for (let times = 0; times < runs(4_000); times++) {
    const request = next();
    const understood = byDocument(request, names);
    assert.deepEqual(byUs(request, names), understood, request.toString('latin1').slice(0, 2000));
    if (understood === undefined) refused++;
    else taken++;
  }
  assert.ok(taken > runs(4_000) / 20 && refused > runs(4_000) / 20, `${taken} taken, ${refused} refused`);
});
