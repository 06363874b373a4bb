// What tests of a misbehaving registry begin with.

import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import type { ServerResponse } from 'node:http';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { parseImageReference } from '../../src/image/reference.ts';
import { openRegistry } from '../../src/image/registry.ts';
import { writeImage } from '../fixtures/images.ts';
import { startFakeRegistry } from './fake-registry.ts';
import { scratch } from './harness.ts';

const MIB = 1024 * 1024;
/** The account of the credentials that are in the file. */
export const PASSWORD = 'somebody:secret';

/** A registry, an image on disk, and a way to open images of the registry with credentials. */
export async function setUpRegistry(t: TestContext) {
  const directory = await scratch(t);
  const fake = await startFakeRegistry(t, directory);
  const made = await writeImage(join(directory, 'plain'), { layers: [{}, { size: 5 * MIB }] });
  const authFile = join(directory, 'auth.json');
  await writeFile(
    authFile,
    JSON.stringify({ auths: { [fake.host]: { auth: Buffer.from(PASSWORD).toString('base64') } } }),
  );
  const open = (name: string, settings: object = {}) => {
    const image = parseImageReference(`docker://${fake.host}/${name}`);
    assert.ok(image.transport === 'docker');
    const store = openRegistry(image, { caFiles: [fake.authority], authFile, ...settings });
    t.after(() => store.close());
    return store;
  };
  return { directory, fake, made, open };
}

/** Answers in full. */
export function end(response: ServerResponse, status: number, headers: Record<string, string> = {}, body = ''): true {
  response.writeHead(status, { 'content-length': String(body.length), ...headers });
  response.end(body);
  return true;
}
