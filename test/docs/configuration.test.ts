import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { generatedDocuments } from '../../tools/documents.ts';
import { PROJECT } from '../../tools/process.ts';

for (const [file, content] of generatedDocuments()) {
  test(`${file} is what npm run docs makes of the table of options`, () => {
    assert.equal(readFileSync(join(PROJECT, file), 'utf8'), content);
  });
}
