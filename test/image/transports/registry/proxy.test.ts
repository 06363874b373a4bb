// A registry that is reached through a proxy, which is given its own credentials and sees nothing but TLS.

import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { connect } from 'node:net';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { decryptImage } from '../../../../src/image/decrypt.ts';
import { encryptImage } from '../../../../src/image/encrypt.ts';
import { parseImageReference } from '../../../../src/image/model/reference.ts';
import { openLayout } from '../../../../src/image/transports/layout.ts';
import { openImageStore } from '../../../../src/image/transports/open.ts';
import { writeImage } from '../../../fixtures/images.ts';
import { rejects, scratch } from '../../harness.ts';
import { packetKeys, v2Recipient } from '../../packet-recipients.ts';
import { startFakeRegistry } from './fake-registry.ts';

const A = 'gcpkms://projects/p/locations/global/keyRings/r/cryptoKeys/a';

test('images go through a proxy both ways, and a proxy that refuses is no registry that does', async (t) => {
  const directory = await scratch(t);
  const fake = await startFakeRegistry(t, directory);
  const made = await writeImage(join(directory, 'plain'), { layers: [{ size: 3_000_000 }] });
  const heard: { readonly to: string | undefined; readonly authorization: string | undefined }[] = [];
  let port: number | undefined = Number(fake.host.split(':')[1]);
  const proxy = await startProxy(t, (to, authorization) => {
    heard.push({ to, authorization });
    return port;
  });
  const open = (environment: NodeJS.ProcessEnv) => {
    const image = parseImageReference('docker://registry.test/app:1');
    const store = openImageStore(image, {
      caFiles: [fake.authority],
      environment: { HOME: directory, ...environment },
    });
    t.after(() => store.close());
    return store;
  };
  const environment = { HTTPS_PROXY: `http://user:word@127.0.0.1:${proxy}` };
  await encryptImage(openLayout(made.directory, 'latest', 'oci:plain'), open(environment), {
    recipients: [v2Recipient([A])],
  });
  const back = openLayout(join(directory, 'back'), 'latest', 'oci:back');
  assert.equal((await decryptImage(open(environment), back, { keys: packetKeys([A]) })).digest, made.digest);
  assert.ok(heard.length > 0);
  assert.ok(heard.every(({ to }) => to === 'registry.test:443'));
  assert.ok(
    heard.every(({ authorization }) => authorization === `Basic ${Buffer.from('user:word').toString('base64')}`),
  );
  assert.ok(fake.requests.every(({ authorization }) => authorization === undefined));

  const before = heard.length;
  await rejects('unavailable', open({ ...environment, NO_PROXY: '.test' }).readRoot());
  assert.equal(heard.length, before);
  port = undefined;
  await rejects('unavailable', open(environment).readRoot());
});

/** @param route says which port of this machine a host is, or undefined to refuse */
async function startProxy(
  t: TestContext,
  route: (host: string | undefined, authorization: string | undefined) => number | undefined,
): Promise<number> {
  const server = createServer();
  server.on('connect', (request, socket, head) => {
    const port = route(request.url, request.headers['proxy-authorization']);
    if (port === undefined) return socket.end('HTTP/1.1 403 Forbidden\r\n\r\n');
    const upstream = connect(port, '127.0.0.1', () => {
      socket.write('HTTP/1.1 200 Connection established\r\n\r\n');
      upstream.write(head);
      upstream.pipe(socket).pipe(upstream);
    });
    upstream.on('error', () => socket.destroy());
    socket.on('error', () => upstream.destroy());
    return undefined;
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  const address = server.address();
  return typeof address === 'object' && address !== null ? address.port : 0;
}
