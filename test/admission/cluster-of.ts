// A cluster whose API server is a table of objects.
import assert from 'node:assert/strict';
import { createCluster } from '../../src/admission/cluster.ts';
import { OcicryptError } from '../../src/base/errors.ts';
import { type JsonObject, parseJson } from '../../src/base/json.ts';

export const base64 = (text: string) => Buffer.from(text).toString('base64');

function object(value: unknown): JsonObject {
  const parsed = parseJson(Buffer.from(JSON.stringify(value)), 'the test');
  return parsed instanceof Map ? parsed : assert.fail('no object');
}

/** An API server with these objects, by path, which counts what it is asked. */
export function clusterOf(objects: Readonly<Record<string, unknown>>) {
  const asked: string[] = [];
  const cluster = createCluster({
    async ask({ method, path }) {
      const key = path.slice(2).join('/');
      asked.push(`${method} ${key}`);
      const found = objects[key];
      if (found instanceof Error) throw found;
      if (found === undefined) throw new OcicryptError('not-found', 'no such object');
      return object(found);
    },
  });
  return { cluster, asked };
}
