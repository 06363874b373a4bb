// What the machine refuses: more open files, a working directory that is gone, a helper that hangs. One line names it.
import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { startFakeAwsKms } from '../fakes/aws-kms.ts';
import { createCertificateAuthority } from '../fixtures/certificates.ts';
import { runExecutable } from '../fixtures/executable.ts';
import { type KeyDirectory, makeKeyDirectory } from '../fixtures/provider.ts';
import { wrapRequest } from '../fixtures/vectors/shape.ts';

let directory: string;
let keys: KeyDirectory;
before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'limits-'));
  keys = makeKeyDirectory(join(directory, 'keys'));
});
after(() => rm(directory, { recursive: true, force: true }));

const ARN = 'arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab';
const key = () => `keyfile://${keys.file('first')}`;

async function helperEnvironment(script: string): Promise<Readonly<Record<string, string>>> {
  const [program, config] = [join(directory, 'helper.sh'), join(directory, 'config')];
  await writeFile(program, script);
  await writeFile(config, `[default]\nregion=eu-west-1\ncredential_process=/bin/sh '${program}'\n`);
  return { AWS_CONFIG_FILE: config, AWS_SHARED_CREDENTIALS_FILE: '/dev/null', AWS_EC2_METADATA_DISABLED: 'true' };
}

/** Commands that open files, by what they open. */
const COMMANDS: Readonly<Record<string, () => readonly string[]>> = {
  keyprovider: () => ['keyprovider', `--key=${keys.file('first')}`],
  'doctor with a key file': () => ['doctor', key()],
  'doctor with a helper': () => ['doctor', `awskms:///${ARN}`, '--aws-endpoint=http://127.0.0.1:9', '--timeout=500ms'],
  inspect: () => ['inspect', `oci:${directory}`],
  serve: () => ['serve', `--key=${keys.file('first')}`, `--listen=unix:${join(directory, 's.sock')}`],
};

for (const [name, words] of Object.entries(COMMANDS)) {
  test(`${name} says that too many files are open, and calls it nothing else`, async () => {
    const environment = await helperEnvironment('exit 1');
    let named = 0;
    for (const files of [5, 6, 7]) {
      const { status, stdout, stderr } = await runExecutable(words(), {
        // What starts in spite of it is ended; a server would stay.
        ...{ shell: `ulimit -n ${files}; exec timeout -s TERM 1 "$@"`, environment, input: wrapRequest([key()]) },
      });
      const text = `${stdout}${stderr}`;
      assert.doesNotMatch(text, /internal|\n {4}at /, `${files}: ${text}`);
      if (!/EMFILE|ran out of file descriptors/.test(text)) continue;
      named++;
      if (/EMFILE/.test(text)) assert.match(text, /unavailable: .*\(EMFILE\)[\s\S]*too many files are open: raise/);
      assert.notEqual(status, 70);
      assert.doesNotMatch(text, /configuration:|not-found:/, text);
    }
    assert.ok(named > 0, 'the limit was met');
  });

  test(`${name} in a working directory that is gone says so in one line`, async () => {
    const gone = join(directory, 'gone');
    const { status, stderr } = await runExecutable(words(), {
      ...{ shell: `mkdir '${gone}'; cd '${gone}'; rmdir '${gone}'; exec "$@"`, input: wrapRequest([key()]) },
    });
    assert.match(stderr, /^[^\n]*working directory (?:is gone|was deleted)[^\n]*\n$/);
    assert.ok(status !== 0 && status !== 70);
  });
}

/** It was killed: the system may need a moment for it, and nothing may have waited for it yet. */
async function ended(pid: string): Promise<void> {
  for (let tries = 0; tries < 100; tries++) {
    const state = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '');
    if (state === '' || /\) Z/.test(state)) return;
    await sleep(20);
  }
  assert.fail(`${pid} still runs`);
}

test('a helper that hangs is named when the time is up and ended, and the next call works', async () => {
  const authority = await createCertificateAuthority(directory, 'kms');
  const kms = await startFakeAwsKms({ tls: await authority.issue('kms-server') });
  try {
    const { id, secret } = kms.accessKey;
    const pids = join(directory, 'pids');
    const words = ['keyprovider', `--aws-endpoint=${kms.endpoint}`, `--ca=${authority.certificate}`, '--timeout=4s'];
    const input = wrapRequest([`awskms:///${kms.createKey({ region: 'eu-west-1' })}`]);
    const hanging = await helperEnvironment(`sleep 600 & echo $! $$ > '${pids}'; wait`);
    const { status, stderr, milliseconds } = await runExecutable(words, { environment: hanging, input });
    assert.equal(status, 69);
    assert.match(
      stderr,
      /^[^\n]*deadline-exceeded: [^\n]*waiting for the credential_process of profile default[^\n]*\n$/,
    );
    assert.ok(milliseconds >= 3900 && milliseconds < 8000, `${milliseconds} ms`);
    for (const pid of (await readFile(pids, 'utf8')).trim().split(' ')) await ended(pid);
    const answer = JSON.stringify({ Version: 1, AccessKeyId: id, SecretAccessKey: secret });
    const working = await helperEnvironment(`echo '${answer}'`);
    const next = await runExecutable(words, { environment: working, input });
    assert.equal(next.status, 0, next.stderr);
  } finally {
    await kms.close();
  }
});
