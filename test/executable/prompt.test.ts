// Questions to a person through the executable: on the terminal, beside a protocol that has the standard streams.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { Encrypter, generateX25519Identity, identityToRecipient } from 'age-encryption';
import { executablePath, runExecutable } from '../fixtures/executable.ts';
import { createToken, ensureSoftHsm, useTokenStore } from '../fixtures/softhsm.ts';
import { REPLY, unwrapRequest, wrapRequest } from '../fixtures/vectors/shape.ts';

let directory: string;
before(async () => {
  directory = await mkdtemp(join(tmpdir(), 'prompt-'));
});
after(() => rm(directory, { recursive: true, force: true }));

async function write(name: string, content: string | Uint8Array): Promise<string> {
  const path = join(directory, name);
  await writeFile(path, content, { mode: 0o600 });
  return path;
}

/** What has not ended by then waits for somebody. */
const HANG = 60_000;

type Asking = { readonly words: readonly string[]; readonly key: string; readonly environment?: NodeJS.ProcessEnv };

/** Asks for what `key` has wrapped, on a terminal of its own where a person types `answer`. */
async function unwrapOnTerminal({ words, key, environment }: Asking, packet: Uint8Array, answer: string) {
  const [request, reply] = [await write('request', unwrapRequest(packet)), join(directory, 'reply')];
  const command = [executablePath(), 'keyprovider', `--allow=${key}`, ...words].map((word) => `'${word}'`).join(' ');
  const child = spawn('script', ['-qec', `${command} < ${request} > ${reply}`, '/dev/null'], {
    env: { PATH: process.env.PATH, HOME: directory, SHELL: '/bin/sh', ...environment },
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const timer = setTimeout(() => child.kill('SIGKILL'), HANG);
  let shown = '';
  child.stdout.on('data', (chunk: Buffer) => {
    shown += chunk;
    if (chunk.toString().endsWith(': ')) child.stdin.write(answer);
  });
  const [status] = await once(child, 'close');
  clearTimeout(timer);
  return { status, shown, reply: await readFile(reply, 'utf8') };
}

async function wrapTo({ words, key, environment = {} }: Asking): Promise<Uint8Array> {
  const settled = Object.fromEntries(Object.entries(environment).map(([name, value]) => [name, value ?? '']));
  const options = { input: wrapRequest([key]), environment: settled };
  const { status, stdout, stderr } = await runExecutable(['keyprovider', `--allow=${key}`, ...words], options);
  assert.equal(status, 0, stderr);
  return Buffer.from(JSON.parse(stdout.toString()).keywrapresults.annotation, 'base64');
}

describe('a passphrase', () => {
  let asking: Asking;
  let packet: Uint8Array;
  before(async () => {
    const encrypter = new Encrypter();
    encrypter.setPassphrase('one two three');
    encrypter.setScryptWorkFactor(10);
    const secret = await generateX25519Identity();
    const file = await write('protected.age', await encrypter.encrypt(`${secret}\n`));
    asking = { key: await identityToRecipient(secret), words: [`--key=${file}`] };
    packet = await wrapTo({ ...asking, words: [] });
  });

  test('is asked for on the terminal and never shown there', async () => {
    const { status, shown, reply } = await unwrapOnTerminal(asking, packet, 'one two threx\u007fe\r');
    assert.deepEqual([status, reply], [0, REPLY]);
    assert.ok(!shown.includes('one two'));
  });

  test('that is wrong, or is not given, opens nothing', async () => {
    const wrong = await unwrapOnTerminal(asking, packet, 'four five six\r');
    assert.deepEqual([wrong.status, wrong.reply], [77, '']);
    assert.equal(wrong.shown.split('passphrase of').length, 2, 'asked once');
    const interrupted = await unwrapOnTerminal(asking, packet, '\u0003');
    assert.deepEqual([interrupted.status, interrupted.reply], [64, '']);
    assert.equal(interrupted.shown.split('passphrase of').length, 2, 'asked once');
  });
});

const hsm = await ensureSoftHsm();
test('a PIN is asked for on the terminal and never shown there', async (t) => {
  if ('missing' in hsm) {
    if (process.env.CI === 'true') throw new Error(hsm.missing);
    return t.skip(hsm.missing);
  }
  const environment = { SOFTHSM2_CONF: await useTokenStore(directory) };
  createToken(hsm, 'prompt', '24681357').createAesKey('k');
  const words = [`--pkcs11-module=${hsm.module}`, `--pkcs11-binding=${hsm.binding}`];
  const asking = { key: 'pkcs11:token=prompt;object=k', words, environment };
  const pin = await write('pin', '24681357\n');
  const packet = await wrapTo({ ...asking, words: [...words, `--pkcs11-pin-file=${pin}`] });
  const { status, shown, reply } = await unwrapOnTerminal(asking, packet, '24681357\r');
  assert.deepEqual([status, reply], [0, REPLY]);
  assert.ok(!shown.includes('24681357'));
});

test('keyprovider, typed at a terminal, says at once what it is for', async () => {
  const child = spawn('script', ['-qec', `'${executablePath()}' keyprovider`, '/dev/null'], {
    env: { PATH: process.env.PATH, HOME: directory, SHELL: '/bin/sh' },
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const timer = setTimeout(() => child.kill('SIGKILL'), HANG);
  let shown = '';
  child.stdout.on('data', (chunk: Buffer) => {
    shown += chunk;
  });
  // Nothing is typed: the command ends by itself, and not at its time limit of ten seconds.
  const [status] = await once(child, 'close');
  clearTimeout(timer);
  assert.equal(status, 64, shown);
  assert.match(shown, /^ocicrypt-kms: usage: [^\r\n]+\r\n$/);
});
