// Every vector of test/vectors/services: a service that opens one ciphertext under one context, whoever it is.
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { describe, test } from 'node:test';
import { asOcicryptError, OcicryptError } from '../../src/base/errors.ts';
import { cannotBeUnwrapped, type Kek } from '../../src/kms/kek.ts';
import { createProvider } from '../../src/provider/handle.ts';
import { parseAllowRule } from '../../src/provider/policy.ts';
import { formatVector } from '../fixtures/vectors/all.ts';
import { KINDS, makeServiceVectors, type ServiceVector } from '../fixtures/vectors/services.ts';
import { unwrapRequest } from '../fixtures/vectors/shape.ts';

const DIRECTORY = new URL('../vectors/services/', import.meta.url);
const document = readFileSync(new URL('../../docs/packet.md', import.meta.url), 'utf8');

test('the files are what scripts/vectors.ts makes', () => {
  const made = makeServiceVectors();
  assert.deepEqual(readdirSync(DIRECTORY).toSorted(), [...made.keys()].map((name) => `${name}.json`).toSorted());
  for (const [name, vector] of made) {
    assert.equal(readFileSync(new URL(`${name}.json`, DIRECTORY), 'utf8'), formatVector(vector), name);
  }
});

test('every kind that docs/packet.md binds or does not bind is there as it says', () => {
  const table = /### 4\.6[\s\S]*?\n\| `key`[^\n]*\n[^\n]*\n((?:\|[^\n]*\n)+)/.exec(document)?.[1]?.split('\n') ?? [];
  for (const { key, algorithm, version, bindsContext } of Object.values(KINDS)) {
    const scheme = key.startsWith('age1') ? 'age1…' : key.replace(/:.*$/, ':');
    const generic = algorithm.replace(/_\d{4}_SHA\d+$/, '_B_SHAH');
    const rows = table.filter((row) => row.startsWith(`| \`${scheme}\``) && row.includes(`\`${generic}\``));
    assert.equal(rows.length, 1, `${scheme} ${algorithm}`);
    assert.equal(!rows[0]?.endsWith('| not used |'), bindsContext, algorithm);
    const [, , , versions = ''] = (rows[0] ?? '').split('|').map((cell) => cell.trim());
    assert.equal(versions === 'none' || versions === 'in `key`', version === undefined, algorithm);
  }
});

describe('every vector of a service ends as it says', () => {
  for (const file of readdirSync(DIRECTORY)) {
    const vector: ServiceVector = JSON.parse(readFileSync(new URL(file, DIRECTORY), 'utf8'));
    test(`${file.replace('.json', '')}: ${vector.comment}`, async () => {
      const reply = await open(vector).catch(asOcicryptError);
      if (vector.expect === 'ok') assert.equal(reply, vector.optsdata);
      else assert.ok(reply instanceof OcicryptError && reply.code === vector.expect, String(reply));
    });
  }
});

async function open({ allow, labels, packet, service }: ServiceVector): Promise<string> {
  const kek: Kek = {
    local: false,
    key: service.key,
    wrap: () => assert.fail('nothing is wrapped'),
    async unwrap({ key, version, algorithm, wrapped }, context) {
      const asked = { key, algorithm, version, wrapped: Buffer.from(wrapped).toString('base64') };
      assert.deepEqual(asked, {
        ...{ key: service.key, algorithm: service.algorithm, version: service.version },
        wrapped: service.wrapped,
      });
      try {
        if (service.context !== null) assert.deepEqual({ ...context }, service.context);
      } catch {
        throw cannotBeUnwrapped(key);
      }
      return Buffer.from(service.plaintext, 'base64');
    },
  };
  const provider = createProvider({
    openKek: async () => kek,
    rules: [parseAllowRule(allow)],
    callerKeysAllowed: false,
    names: { configured: undefined, fallback: 'kmscrypt' },
    ...(labels === undefined ? {} : { labels }),
  });
  const reply = await provider.handle(Buffer.from(unwrapRequest(packet)));
  return JSON.parse(Buffer.from(reply).toString()).keyunwrapresults.optsdata;
}
