// P1 and P2 through the executable: a sample of what `npm run prove` sends.
import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';
import { ERROR_STATUS } from '../../src/base/errors.ts';
import { runExecutable } from '../fixtures/executable.ts';
import { createMalformed } from '../fixtures/malformed.ts';
import { makeKeyDirectory } from '../fixtures/provider.ts';
import { createRandom, runs, seeded } from '../fixtures/seed.ts';

const keys = makeKeyDirectory();
after(() => keys.remove());
const EXITS = new Set<number | null>([0, ...Object.values(ERROR_STATUS).map(({ exit }) => exit)]);

describe('P1 malformed requests', () => {
  test(seeded('P1 P2 each ends with a closed exit status, one line, and nothing on stdout'), async () => {
    const next = createMalformed(createRandom());
    for (let count = 0; count < Math.min(runs(100), 2000); count++) {
      const request = next();
      const words = [
        'keyprovider',
        `--key=${keys.file('first')}`,
        '--gcp-endpoint=https://127.0.0.1:1',
        '--adc=/proc/nonexistent/adc.json',
        '--timeout=3s',
      ];
      const { status, stdout, stderr, signal } = await runExecutable(words, { input: request });
      const shown = `${signal} ${stderr} ${request.toString('base64')}`;
      assert.ok(EXITS.has(status) && status !== ERROR_STATUS.internal.exit, shown);
      if (status === 0) continue;
      assert.equal(stdout.length, 0, shown);
      assert.match(stderr, /^ocicrypt-kms: [a-z-]+: \P{Cc}+\n$/u, shown);
    }
  });
});
