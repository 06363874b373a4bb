// Writes test/vectors: packets, one file for each scenario, every one with at most one fault; services; protocol.json.

import { globSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { PROJECT } from './process.ts';
import { formatExchanges, makeExchanges } from './vectors-exchanges.ts';
import { goodVectors } from './vectors-good.ts';
import { keyFaults, policyFaults } from './vectors-keys.ts';
import { otherKinds } from './vectors-kinds.ts';
import { v1Faults, v2Faults } from './vectors-packets.ts';
import { jsonFaults, protocolFaults, sizeFaults } from './vectors-protocol.ts';
import { makeServiceVectors, type ServiceVector } from './vectors-services.ts';
import type { Vector } from './vectors-shape.ts';

/** Every vector by the name of its file. */
export function makeVectors(): ReadonlyMap<string, Vector> {
  const vectors = new Map<string, Vector>();
  const sources = [
    goodVectors,
    protocolFaults,
    jsonFaults,
    sizeFaults,
    keyFaults,
    policyFaults,
    v1Faults,
    v2Faults,
    otherKinds,
  ];
  for (const [name, vector] of sources.flatMap((source) => source())) {
    if (vectors.has(name)) throw new Error(`two vectors are called ${name}`);
    vectors.set(name, vector);
  }
  return vectors;
}

/** A vector as its file holds it. */
export function formatVector(vector: ServiceVector | Vector): string {
  return `${JSON.stringify(vector, null, 1)}\n`;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  writeAll('packets', makeVectors());
  writeAll('services', makeServiceVectors());
  writeFileSync(join(PROJECT, 'test/vectors/protocol.json'), formatExchanges(makeExchanges()));
}

function writeAll(kind: 'packets' | 'services', vectors: ReadonlyMap<string, ServiceVector | Vector>): void {
  const directory = join(PROJECT, 'test/vectors', kind);
  mkdirSync(directory, { recursive: true });
  for (const file of globSync('*.json', { cwd: directory })) rmSync(join(directory, file));
  for (const [name, vector] of vectors) writeFileSync(join(directory, `${name}.json`), formatVector(vector));
}
