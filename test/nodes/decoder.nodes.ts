// `ocicrypt-kms decoder` on every containerd, by every way to pull: each kind of image is decrypted, and runs.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { executable } from '../end-to-end/workspace.ts';
import { pull, runImage } from './clients.ts';
import { streamProcessors } from './configuration.ts';
import { waysOf } from './expected.ts';
import { IMAGE_KINDS, type ImageKind, imageName } from './images.ts';
import { clearNode, createLab, type Lab } from './lab.ts';
import { CHOSEN, IS_COMPILED } from './software.ts';

/** Where there is no time for all of them. */
const FEW: readonly ImageKind[] = ['gzip', 'mixed', 'partly encrypted'];
const KINDS = IS_COMPILED ? IMAGE_KINDS : FEW;

let lab: Lab;
let pulled = 0;
let run = 0;
const cleanups: (() => unknown)[] = [];
before(async () => {
  lab = await createLab({ after: (cleanup) => void cleanups.push(cleanup) }, KINDS);
});
after(async () => {
  for (const cleanup of cleanups.reverse()) await cleanup();
});

for (const containerd of CHOSEN) {
  for (const localPull of [false, true]) {
    const ways = waysOf(containerd, localPull);
    if (ways.length === 0) continue;
    test(`P34 containerd ${containerd}${localPull ? ', CRI pulls by itself' : ''}`, async (t) => {
      const decoder = streamProcessors({ path: executable(), args: ['decoder', `--key=${lab.key.file}`] });
      const files = { '/etc/containerd/conf.d/ocicrypt.toml': decoder };
      const node = await lab.start(t, { containerd, localPull, files });
      for (const way of ways) {
        for (const kind of KINDS) {
          await t.test(`${way.said}: ${kind}`, async () => {
            const image = imageName(lab.registry, kind);
            const { exitCode, text } = await pull(node, way.client, image);
            assert.equal(exitCode, 0, text);
            pulled++;
            if (way.client !== 'CRI') return;
            const { text: said } = await runImage(node, image, `run-${KINDS.indexOf(kind)}`);
            assert.match(said, /^hello$/m);
            run++;
          });
        }
        await clearNode(node);
      }
    });
  }
}

test('P34 every pull was counted', (t) => {
  assert.ok(run > 0 && pulled > run);
  t.diagnostic(
    `figures: ${pulled} pulls of ${KINDS.length} kinds of images on ${CHOSEN.length} containerds, ${run} run`,
  );
});
