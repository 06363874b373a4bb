// What tests of a misbehaving registry begin with.

import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import type { ServerResponse } from 'node:http';
import { join } from 'node:path';
import { parseImageReference } from '../../../../src/image/model/reference.ts';
import { openRegistry } from '../../../../src/image/transports/registry/store.ts';
import { type LayerOptions, writeImage } from '../../../fixtures/images.ts';
import { type Lifetime, scratch } from '../../harness.ts';
import { type FakeRegistry, startFakeRegistry } from './fake-registry.ts';

const MIB = 1024 * 1024;
/** The account of the credentials that are in the file. */
export const PASSWORD = 'somebody:secret';

/** A registry, an image on disk, and a way to open images of the registry with credentials. */
export async function setUpRegistry(
  t: Lifetime,
  {
    layers = [{}, { size: 5 * MIB }],
    ...options
  }: { readonly layers?: readonly LayerOptions[]; readonly tls?: boolean } = {},
) {
  const directory = await scratch(t);
  const fake = await startFakeRegistry(t, directory, options);
  const made = await writeImage(join(directory, 'plain'), { layers });
  const authFile = join(directory, 'auth.json');
  await writeFile(
    authFile,
    JSON.stringify({ auths: { [fake.host]: { auth: Buffer.from(PASSWORD).toString('base64') } } }),
  );
  // Without the system's roots, which take most of the time of a test that opens many connections.
  const environment = { HOME: directory, SSL_CERT_FILE: fake.authority, SSL_CERT_DIR: join(directory, 'none') };
  const open = (name: string, settings: object = {}) => {
    const image = parseImageReference(`docker://${fake.host}/${name}`);
    assert.ok(image.transport === 'docker');
    const store = openRegistry(image, { caFiles: [fake.authority], authFile, environment, ...settings });
    t.after(() => store.close());
    return store;
  };
  return { directory, fake, made, open };
}

/** How often each method was used, since the last time it was asked. */
export function countMethods({ requests }: FakeRegistry): Readonly<Record<string, number>> {
  const counts: Record<string, number> = {};
  for (const { method } of requests.splice(0)) counts[method] = (counts[method] ?? 0) + 1;
  return counts;
}

/** Answers in full. */
export function end(response: ServerResponse, status: number, headers: Record<string, string> = {}, body = ''): true {
  response.writeHead(status, { 'content-length': String(Buffer.byteLength(body)), ...headers });
  response.end(body);
  return true;
}
