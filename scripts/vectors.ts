// Writes test/vectors: packets, one file for each scenario, every one with at most one fault; services; protocol.json.

import { globSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { formatVector, makeVectors } from '../test/fixtures/vectors/all.ts';
import { formatExchanges, makeExchanges } from '../test/fixtures/vectors/exchanges.ts';
import { makeServiceVectors, type ServiceVector } from '../test/fixtures/vectors/services.ts';
import type { Vector } from '../test/fixtures/vectors/shape.ts';
import { PROJECT } from '../tools/process.ts';

writeAll('packets', makeVectors());
writeAll('services', makeServiceVectors());
writeFileSync(join(PROJECT, 'test/vectors/protocol.json'), formatExchanges(makeExchanges()));

function writeAll(kind: 'packets' | 'services', vectors: ReadonlyMap<string, ServiceVector | Vector>): void {
  const directory = join(PROJECT, 'test/vectors', kind);
  mkdirSync(directory, { recursive: true });
  for (const file of globSync('*.json', { cwd: directory })) rmSync(join(directory, file));
  for (const [name, vector] of vectors) writeFileSync(join(directory, `${name}.json`), formatVector(vector));
}
