// Registry credentials: whose they are, where they are looked for, and who never gets them.

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { chmod, mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import process from 'node:process';
import { mock, test } from 'node:test';
import { setTimeout as sleep, setImmediate as turn } from 'node:timers/promises';
import { describeError } from '../../../../src/base/errors.ts';
import { parseImageReference } from '../../../../src/image/model/reference.ts';
import { findCredentials } from '../../../../src/image/transports/registry/credentials.ts';
import { rejects, scratch, usePath } from '../../harness.ts';

const auth = (text: string) => ({ auth: Buffer.from(text).toString('base64') });

test('the most exact entry of exactly this host is taken, and no other', async (t) => {
  const directory = await scratch(t);
  const authFile = join(directory, 'auth.json');
  const auths = {
    'example.com': auth('host:1'),
    'example.com/team': auth('team:2'),
    'example.com/team/app': auth('app:3:with:colons'),
    'example.com:5000': auth('port:4'),
    'https://old.example.com': auth('old:5'),
    'https://index.docker.io/v1/': auth('hub:6'),
    'token.example.com': { identitytoken: 'refresh' },
    'empty.example.com': {},
  };
  await writeFile(authFile, JSON.stringify({ auths }));
  const user = async (host: string, name: string) => {
    const found = await findCredentials(host, name, { authFile });
    return found?.kind === 'password' ? `${found.username}:${found.password}` : found?.token;
  };
  assert.equal(await user('example.com', 'other'), 'host:1');
  assert.equal(await user('example.com', 'team/else'), 'team:2');
  assert.equal(await user('example.com', 'team/app'), 'app:3:with:colons');
  assert.equal(await user('example.com', 'teams/app'), 'host:1');
  assert.equal(await user('example.com:5000', 'team/app'), 'port:4');
  assert.equal(await user('old.example.com', 'a'), 'old:5');
  assert.equal(await user('docker.io', 'library/busybox'), 'hub:6');
  assert.equal(await user('token.example.com', 'a'), 'refresh');
  for (const host of ['empty.example.com', 'xample.com', 'a.example.com', 'example.com.evil.org', 'example.com:443']) {
    assert.equal(await user(host, 'team/app'), undefined, host);
  }
});

test('a row is found in every spelling that skopeo, podman and docker take for its host', async (t) => {
  const directory = await scratch(t);
  const authFile = join(directory, 'auth.json');
  const find = async (row: string, image: string, entry: object = auth('u:p')) => {
    await writeFile(authFile, JSON.stringify({ auths: { [row]: entry } }));
    const parsed = parseImageReference(`docker://${image}`);
    assert.ok(parsed.transport === 'docker');
    return findCredentials(parsed.host, parsed.name, { authFile });
  };
  const found = { kind: 'password', username: 'u', password: 'p' };
  const hub = [
    'docker.io/library/busybox',
    'busybox',
    'index.docker.io/library/busybox',
    'registry-1.docker.io/busybox',
  ];
  for (const [host, images] of [
    ['registry.example', ['registry.example/app', 'registry.example/team/app:1']],
    ['registry.example:5000', ['registry.example:5000/app']],
    ['[::1]:5000', ['[::1]:5000/app']],
    ['docker.io', hub],
    ['index.docker.io', hub],
    ['registry-1.docker.io', hub],
  ] as const) {
    for (const row of [
      ...[host, `https://${host}`, `http://${host}`, `https://${host}/`, `https://${host}/ns`, `https://${host}/v1/`],
      ...[
        `https://${host}/v1`,
        `https://${host}/v2/`,
        `https://${host}/v2`,
        `${host}/v1/`,
        `${host}/v1`,
        `${host}/v2/`,
      ],
    ]) {
      for (const image of images) assert.deepEqual(await find(row, image), found, `${row} for ${image}`);
      for (const image of [
        'registry.example.org/app',
        'registry.example:5001/app',
        'example/app',
        'evil.docker.io/app',
      ]) {
        if (!(images === hub && image === 'example/app'))
          assert.equal(await find(row, image), undefined, `${row} for ${image}`);
      }
    }
  }
  // A part of a registry without an address in front is that part alone.
  assert.deepEqual(await find('registry.example/team', 'registry.example/team/app'), found);
  assert.equal(await find('registry.example/team', 'registry.example/other'), undefined);
  assert.deepEqual(await find('index.docker.io/library', 'busybox'), found);

  const long = Buffer.from('u:p').toString('base64');
  for (const entry of [
    { auth: `${long.slice(0, 3)}\n${long.slice(3)}\r\n` },
    { auth: Buffer.from('u:p\0\0').toString('base64') },
    { username: 'u', password: 'p' },
    { auth: '', username: 'u', password: 'p' },
    { auth: long, username: 'other', password: 'other' },
  ]) {
    assert.deepEqual(await find('registry.example', 'registry.example/app', entry), found);
  }
  for (const entry of [{ username: 'u' }, { password: 'p' }, { auth: '' }]) {
    assert.equal(await find('registry.example', 'registry.example/app', entry), undefined);
  }
});

test('helpers are asked for the host alone, and files are looked for where podman and docker put them', async (t) => {
  const directory = await scratch(t);
  const helper = join(directory, 'docker-credential-test');
  const script =
    '#!/bin/sh\nread host\nif [ "$1" = get ] && [ "$host" = helped.example.com ]; then echo \'{"Username":"u","Secret":"s"}\'; else echo "credentials not found in native keychain"; exit 1; fi\n';
  await writeFile(helper, script);
  await chmod(helper, 0o700);
  usePath(t, `${directory}:${process.env.PATH}`);
  await mkdir(join(directory, 'home/.docker'), { recursive: true });
  await mkdir(join(directory, 'run/containers'), { recursive: true });
  await writeFile(
    join(directory, 'home/.docker/config.json'),
    JSON.stringify({ credsStore: 'test', auths: { 'both.example.com': auth('docker:1') } }),
  );
  await writeFile(
    join(directory, 'run/containers/auth.json'),
    JSON.stringify({ auths: { 'both.example.com': auth('podman:2') } }),
  );
  const environment = { HOME: join(directory, 'home'), XDG_RUNTIME_DIR: join(directory, 'run') };
  assert.deepEqual(await findCredentials('helped.example.com', 'a', { environment }), {
    kind: 'password',
    username: 'u',
    password: 's',
  });
  assert.deepEqual(await findCredentials('both.example.com', 'a', { environment }), {
    kind: 'password',
    username: 'podman',
    password: '2',
  });
  assert.equal(await findCredentials('other.example.com', 'a', { environment }), undefined);
  // What docker wrote before all of these files comes last.
  const old = { 'https://old.example.com/v1/': auth('old:3'), 'both.example.com': auth('old:3') };
  await writeFile(join(directory, 'home/.dockercfg'), JSON.stringify(old));
  for (const [host, username] of [
    ['old.example.com', 'old'],
    ['both.example.com', 'podman'],
  ] as const) {
    const found = await findCredentials(host, 'a', { environment });
    assert.equal(found?.kind === 'password' && found.username, username);
  }
  // A helper that knows the host comes before the file's rows, and one that does not know it leaves them.
  const authFile = join(directory, 'helped.json');
  const rows = { 'helped.example.com/a': auth('row:3'), 'unknown.example.com': auth('row:4') };
  const credHelpers = { 'helped.example.com': 'test', 'unknown.example.com': 'test' };
  await writeFile(authFile, JSON.stringify({ credHelpers, auths: rows }));
  for (const [host, username] of [
    ['helped.example.com', 'u'],
    ['unknown.example.com', 'row'],
  ] as const) {
    const found = await findCredentials(host, 'a', { authFile });
    assert.equal(found?.kind === 'password' && found.username, username);
  }
});

test('helpers that say something else, or too much, are named, and nothing that they started goes on', async (t) => {
  const directory = await scratch(t);
  const pid = join(directory, 'pid');
  const scripts = {
    talk: 'echo hello',
    list: 'echo "[]"',
    fail: 'echo no keychain; exit 3',
    gone: 'nowhere-at-all',
    killed: 'kill -9 $$',
    // Its number is written before it says too much.
    yes: `sh -c 'echo $$ > "$0"; exec yes' '${pid}' & wait`,
  };
  usePath(t, `${directory}:${process.env.PATH}`);
  const authFile = join(directory, 'auth.json');
  for (const [name, script] of Object.entries(scripts)) {
    await writeFile(join(directory, `docker-credential-${name}`), `#!/bin/sh\n${script}\n`, { mode: 0o700 });
    await writeFile(authFile, JSON.stringify({ credsStore: name }));
    const error = await rejects(
      name === 'yes' ? 'unauthenticated' : 'configuration',
      findCredentials('example.com', 'a', { authFile }),
    );
    assert.match(error.message, new RegExp(`docker-credential-${name}`));
    if (name === 'gone')
      assert.match(describeError(error), /\(exit 127\); run: echo example\.com \| docker-credential-gone get$/);
    if (name === 'killed') assert.match(error.message, /\(exit 137\)$/);
  }
  const started = (await readFile(pid, 'utf8')).trim();
  assert.match(started, /^\d+$/);
  const state = () => readFile(`/proc/${started}/stat`, 'utf8').catch(() => '');
  while (!/^$|\) Z/.test(await state())) await sleep(20);
});

test('a helper that hangs is ended after its time, and not worth a second try', async (t) => {
  const directory = await scratch(t);
  const started = join(directory, 'started');
  await writeFile(join(directory, 'docker-credential-hang'), `#!/bin/sh\n: > '${started}'; exec sleep 600\n`, {
    mode: 0o700,
  });
  const authFile = join(directory, 'auth.json');
  await writeFile(authFile, JSON.stringify({ credsStore: 'hang' }));
  usePath(t, `${directory}:${process.env.PATH}`);
  mock.timers.enable({ apis: ['setTimeout'] });
  t.after(() => mock.timers.reset());
  const found = rejects('deadline-exceeded', findCredentials('example.com', 'a', { authFile }));
  while (!existsSync(started)) await turn();
  mock.timers.tick(30_000);
  assert.equal((await found).retryable, false);
});

test('files and helpers that are no such thing are said to be so', async (t) => {
  const directory = await scratch(t);
  const authFile = join(directory, 'auth.json');
  await rejects('configuration', findCredentials('example.com', 'a', { authFile }));
  for (const text of [
    '',
    '[',
    JSON.stringify({ auths: { 'example.com': { auth: '%%' } } }),
    JSON.stringify({ credHelpers: { 'example.com': '../x' } }),
    JSON.stringify({ credHelpers: { 'example.com': 'missing-helper' } }),
  ]) {
    await writeFile(authFile, text);
    await rejects('configuration', findCredentials('example.com', 'a', { authFile }));
  }
});
