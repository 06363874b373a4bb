// A registry that asks for tokens of a token server: which credentials get there, whose, and for what.

import assert from 'node:assert/strict';
import { chmod, mkdir, writeFile } from 'node:fs/promises';
import process from 'node:process';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseImageReference } from '../../src/image/model/reference.ts';
import { openImageStore } from '../../src/image/transports/open.ts';
import { readImages, writeImage } from '../fixtures/images.ts';
import { startRegistry } from '../real-clients/registry.ts';
import { copy } from '../real-clients/skopeo.ts';
import { realClients } from '../real-clients/tools.ts';
import { assertRefused, createImageWorkspace } from './image-workspace.ts';
import { digests, keyprovider, succeed } from './workspace.ts';

const WRITER = 'ci:correct horse';
const READER = 'reader:battery';
const base64 = (value: string) => Buffer.from(value).toString('base64');

test('images go to and come from a registry with a token server, by every kind of credentials', async (t) => {
  if (!(await realClients(t, ['skopeo', 'docker-registry']))) return;
  const { path, oci, key, run, ours, refused, providers } = await createImageWorkspace(t);
  const registry = await startRegistry({
    tokens: {
      accounts: { [WRITER]: ['pull', 'push'], [READER]: ['pull'] },
      refreshTokens: { 'a refresh token': WRITER },
    },
  });
  t.after(registry.stop);
  const { tokens, host } = registry;
  assert.ok(tokens);
  const seen = () => tokens.requests.splice(0);
  const authFile = async (name: string, content: object) => {
    await writeFile(path(name), JSON.stringify(content));
    return [`--ca=${registry.authority}`, `--authfile=${path(name)}`];
  };
  const writer = await authFile('writer.json', { auths: { [host]: { auth: base64(WRITER) } } });
  const reader = await authFile('reader.json', { auths: { [`${host}/team`]: { auth: base64(READER) } } });
  const source = await writeImage(path('plain'), { layers: [{ size: 3_000_000 }, {}] });
  const remote = registry.reference('team/app:1');

  await ours('encrypt', source.reference, remote, '--recipient', key.uri, ...writer);
  const asked = seen();
  assert.ok(asked.length > 0 && asked.every(({ account }) => account === WRITER));
  assert.ok(asked.every(({ scopes }) => scopes.every((scope) => scope.startsWith('repository:team/app:'))));
  assert.ok(asked.some(({ scopes }) => /push/.test(scopes.join())));

  // Who may only read reads, and is told so when it would write.
  await ours('decrypt', remote, oci('opened'), '--key', key.file, ...reader);
  assert.ok(seen().every(({ account }) => account === READER));
  await refused('refused', 'rewrap', remote, '--recipient', key.uri, '--key', key.file, ...reader);
  seen();

  // A refresh token is exchanged; a helper is asked for exactly this host.
  const refresh = await authFile('refresh.json', { auths: { [host]: { identitytoken: 'a refresh token' } } });
  await ours('rewrap', remote, '--recipient', key.uri, '--key', key.file, ...refresh);
  assert.ok(seen().every(({ account }) => account === WRITER));
  await mkdir(path('bin'));
  const helper = `#!/bin/sh\nread host\n[ "$1 $host" = "get ${host}" ] && echo '{"Username":"ci","Secret":"correct horse"}'\n`;
  await writeFile(path('bin/docker-credential-test'), helper);
  await chmod(path('bin/docker-credential-test'), 0o700);
  const helped = await authFile('helped.json', { credHelpers: { [host]: 'test' } });
  const env = { PATH: `${path('bin')}:${process.env.PATH}` };
  const byHelper = await run(['inspect', remote, ...helped], env);
  assert.equal(byHelper.exitCode, 0, byHelper.stderr);
  assert.ok(seen().every(({ account }) => account === WRITER));

  // Credentials of hosts that look alike stay at home; wrong ones are said to be so.
  const lookAlikes = { [`${host}0`]: WRITER, '127.0.0.1': WRITER, [`${host}/other`]: WRITER, localhost: WRITER };
  const auths = Object.fromEntries(
    Object.entries(lookAlikes).map(([name, account]) => [name, { auth: base64(account) }]),
  );
  await refused('unauthenticated', 'inspect', remote, ...(await authFile('alike.json', { auths })));
  assert.ok(seen().every(({ account }) => account === undefined));
  const wrong = await authFile('wrong.json', { auths: { [host]: { auth: base64('ci:wrong') } } });
  await refused('unauthenticated', 'inspect', remote, ...wrong);
  const missing = await run([
    'inspect',
    remote,
    ...(await authFile('missing.json', { credHelpers: { [host]: 'absent' } })),
  ]);
  assertRefused(missing, 'configuration');

  const [username, password] = WRITER.split(':');
  const providerEnv = await providers({ kmscrypt: keyprovider(`--key=${key.file}`) });
  const extra = [`--src-creds=${username}:${password}`];
  await succeed(
    copy(remote, oci('theirs'), { env: providerEnv, registry, decryptionKeys: ['provider:kmscrypt'], extra }),
  );
  for (const name of ['opened', 'theirs']) {
    assert.deepEqual(
      (await readImages(path(name))).map(({ layers }) => digests(layers)),
      [digests(source.images[0].layers)],
    );
  }
});

test('a token that expires is asked for again', async (t) => {
  if (!(await realClients(t, ['docker-registry']))) return;
  const { path, key, ours } = await createImageWorkspace(t);
  const registry = await startRegistry({ tokens: { accounts: { [WRITER]: ['pull', 'push'] } } });
  t.after(registry.stop);
  const { tokens, host, authority } = registry;
  assert.ok(tokens);
  await writeFile(path('auth.json'), JSON.stringify({ auths: { [host]: { auth: base64(WRITER) } } }));
  const source = await writeImage(path('plain'));
  const remote = registry.reference('app:1');
  const access = [`--ca=${authority}`, `--authfile=${path('auth.json')}`];
  const { digest } = await ours('encrypt', source.reference, remote, '--recipient', key.uri, ...access);
  tokens.requests.splice(0);
  // With the minute's grace that is left: two seconds.
  tokens.lifetime = -58;
  const store = openImageStore(parseImageReference(remote), { caFiles: [authority], authFile: path('auth.json') });
  t.after(() => store.close());
  assert.equal((await store.readRoot()).digest, digest);
  const before = tokens.requests.length;
  await sleep(3000);
  assert.equal((await store.readRoot()).digest, digest);
  assert.ok(tokens.requests.length > before);
});
