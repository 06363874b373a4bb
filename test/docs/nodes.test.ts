// docs/nodes.md says of every containerd, and of every mistake, what test/nodes has seen there.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { givenTable } from '../nodes/expected.ts';
import { CRIO_SIGNATURES, SIGNATURES, signatureTable } from '../nodes/signatures.ts';
import { readDocument } from './transcript.ts';

test('the table of what containerd gives a decoder is the one that the matrix holds', async () => {
  assert.ok((await readDocument('docs/nodes.md')).includes(`\n${givenTable()}\n`), givenTable());
});

test('the tables of what an operator reads are those that the mistakes are held against', async () => {
  const text = await readDocument('docs/nodes.md');
  for (const table of [SIGNATURES, CRIO_SIGNATURES].map(signatureTable))
    assert.ok(text.includes(`\n${table}\n`), table);
});
