// P19: who could put another socket in the place of one. Server and clients refuse the same places.
import assert from 'node:assert/strict';
import { chmodSync, chownSync, lchownSync, lstatSync, mkdirSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import { asOcicryptError } from '../../src/base/errors.ts';
import { createConfiguredCall } from '../../src/client/configured.ts';
import { callOnce } from '../../src/client/grpc-client.ts';
import { socketWeakness } from '../../src/client/socket-trust.ts';
import { listenOnUnixSocket } from '../../src/server/unix-socket.ts';

const ACCESS = { mode: 0o600, group: undefined };
const NOBODY = 65_534;

/** `top/middle/low` of our own, and a link to `low` in `links`. */
function makePlaces(t: TestContext) {
  const top = mkdtempSync(join(tmpdir(), 'trust-'));
  t.after(() => rmSync(top, { recursive: true, force: true }));
  const [middle, low, links] = [join(top, 'middle'), join(top, 'middle', 'low'), join(top, 'links')];
  for (const directory of [middle, low, links]) mkdirSync(directory, { mode: 0o755 });
  const link = join(links, 'link');
  symlinkSync('../middle/low', link);
  return { top, middle, low, links, link };
}
type Places = ReturnType<typeof makePlaces>;

/** What is done to one of the places, and whether a socket by way of it is still trusted. */
const CHANGES: readonly (readonly [what: string, change: (path: string) => void, trusted: boolean])[] = [
  ['nothing', () => {}, true],
  ['its group may write', (path) => chmodSync(path, 0o775), false],
  ['all may write', (path) => chmodSync(path, 0o777), false],
  ['all may write, and it is sticky', (path) => chmodSync(path, 0o1777), true],
  ...(process.getuid?.() === 0
    ? [['another user owns it', (path: string) => lchownSync(path, NOBODY, 0), false] as const]
    : []),
];

async function listens(t: TestContext, path: string): Promise<string> {
  const server = createServer((socket) => socket.destroy());
  try {
    const socket = await listenOnUnixSocket(server, path, ACCESS);
    t.after(() => socket.close());
    return 'ok';
  } catch (error) {
    return asOcicryptError(error).code;
  }
}

/** The code with which a call ends: `unavailable` is what comes of a server that is asked and says nothing. */
async function calls(path: string): Promise<string> {
  const call = { method: '/x', message: new Uint8Array(), timeout: 1000, maximumReply: 10 };
  return callOnce({ kind: 'unix', path }, undefined, { ...call, signal: AbortSignal.timeout(5000) }).then(
    () => 'ok',
    (error: unknown) => asOcicryptError(error).code,
  );
}

describe('P19 no other user can put a socket in the place of ours', () => {
  const names: readonly (keyof Places)[] = ['top', 'middle', 'low', 'links', 'link'];
  for (const name of names) {
    for (const [what, change, trusted] of CHANGES) {
      // A link's own mode means nothing.
      if (name === 'link' && what.includes('write')) continue;
      test(`${name}: ${what}: ${trusted ? 'served and called' : 'neither served nor called'}`, async (t) => {
        const places = makePlaces(t);
        const path = join(places.link, 's');
        // Made before the change, as a server does that is older than this.
        assert.equal(await listens(t, path), 'ok');
        change(places[name]);
        assert.equal(await calls(path), trusted ? 'unavailable' : 'configuration');
        assert.equal(await listens(t, join(places.link, 't')), trusted ? 'ok' : 'configuration');
      });
    }
  }

  test("a socket of another user's is not called, where root has not given him its directory", async (t) => {
    if (process.getuid?.() !== 0) return t.diagnostic('only root can make files of other users');
    const { low } = makePlaces(t);
    const path = join(low, 's');
    assert.equal(await listens(t, path), 'ok');
    chownSync(path, NOBODY, NOBODY);
    assert.equal(await calls(path), 'configuration');
    // His own directory, in one where all users may make directories.
    chownSync(low, NOBODY, NOBODY);
    assert.equal(await calls(path), 'configuration');
  });

  test('the directory that root has given to a service is trusted as far as only root can give it', (t) => {
    if (process.getuid?.() !== 0) return t.diagnostic('only root can make files of other users');
    const place = mkdtempSync('/run/ocicrypt-kms-test-');
    t.after(() => rmSync(place, { recursive: true, force: true }));
    const socket = join(place, 's');
    mkdirSync(socket);
    for (const path of [place, socket]) chownSync(path, NOBODY, NOBODY);
    assert.equal(socketWeakness(socket), undefined);
    chmodSync(place, 0o1777);
    assert.ok(socketWeakness(socket) !== undefined);
  });

  test('a way through a link and up again is the one that the system goes', async (t) => {
    const { middle, links, link } = makePlaces(t);
    const path = `${link}/../s`;
    assert.equal(await listens(t, path), 'ok');
    assert.equal(await calls(path), 'unavailable');
    assert.ok(lstatSync(join(middle, 's')).isSocket());
    chmodSync(middle, 0o777);
    assert.equal(await calls(path), 'configuration');
    assert.equal(await listens(t, `${link}/../t`), 'configuration');
    // Where a text that is put in order would lead.
    assert.equal(await listens(t, join(links, 't')), 'ok');
  });

  test('an abstract socket has no owner', async () => {
    assert.equal(await calls('\0ocicrypt-kms-test'), 'configuration');
    const provider = {
      kind: 'grpc',
      target: { kind: 'unix', path: '\0x' },
      tls: undefined,
      refusal: undefined,
    } as const;
    const request = createConfiguredCall(provider)(new Uint8Array(), 'unwrap', AbortSignal.timeout(5000));
    assert.equal(await request.catch((error) => asOcicryptError(error).code), 'configuration');
  });
});
