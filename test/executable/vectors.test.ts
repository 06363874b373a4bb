// The vectors through the executable: the exit status of its code, nothing on stdout, one line on stderr.
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { ERROR_STATUS } from '../../src/base/errors.ts';
import { runExecutable } from '../fixtures/executable.ts';
import { type GoogleWorld, startGoogleWorld } from '../fixtures/google.ts';
import { type KeyDirectory, makeKeyDirectory, requestOf, wordsOf } from '../fixtures/provider.ts';
import { SEED, seeded, wide } from '../fixtures/seed.ts';
import type { Vector } from '../fixtures/vectors/shape.ts';

const DIRECTORY = new URL('../vectors/packets/', import.meta.url);
// Each is a process; the server answers all of them in npm test, and test:wide and prove play all here too.
const names = readdirSync(DIRECTORY)
  .filter((name) => name.endsWith('.json'))
  .filter((_, index) => wide || (SEED + index) % 3 === 0);

describe(seeded('P2 P3 vectors end as they say, through the executable'), () => {
  let keys: KeyDirectory;
  let google: GoogleWorld;
  before(async () => {
    keys = makeKeyDirectory();
    google = await startGoogleWorld();
  });
  after(async () => {
    keys.remove();
    await google.close();
  });

  for (const file of names) {
    const vector: Vector = JSON.parse(readFileSync(new URL(file, DIRECTORY), 'utf8'));
    test(`${file.replace('.json', '')}: ${vector.comment}`, async () => {
      const name = vector.setup.command ?? 'ocicrypt-kms';
      const words = [
        ...(name === 'ocicrypt-kms' ? ['keyprovider'] : []),
        ...google.words,
        ...wordsOf(vector.setup, keys),
      ];
      const { status, stdout, stderr } = await runExecutable(words, { name, input: requestOf(vector) });
      if (vector.expect === 'ok') {
        assert.equal(status, 0, stderr);
        assert.equal(stderr, '');
        if (vector.reply !== undefined) assert.equal(stdout.toString(), vector.reply);
        return;
      }
      assert.equal(status, ERROR_STATUS[vector.expect].exit, stderr);
      assert.equal(stdout.length, 0);
      assert.match(stderr, /^[^\n]+\n$/);
      assert.ok(stderr.startsWith(`${name}: ${vector.expect}: `), stderr);
    });
  }
});
