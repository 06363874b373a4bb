// The transit engine that HashiCorp wrote: the conformance suite, and the answers that our fake of it repeats.
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { after, before, describe, test } from 'node:test';
import { type ErrorCode, OcicryptError } from '../../src/base/errors.ts';
import { parseKeyUri } from '../../src/base/key-uri.ts';
import { openHashiVault } from '../../src/kms/hashivault.ts';
import type { Kek } from '../../src/kms/kek.ts';
import { describeKek } from '../kms/kek-conformance.ts';
import { buildGoProgram } from '../peers/go-program.ts';

let child: ChildProcess | undefined;
let address = '';
before(async () => {
  const program = await buildGoProgram(new URL('vault-transit/', import.meta.url), [
    'github.com/hashicorp/vault@v1.21.4',
    'github.com/hashicorp/vault/sdk@v0.25.1',
  ]);
  const started = spawn(program, { stdio: ['ignore', 'pipe', 'ignore'] });
  child = started;
  const [line] = await once(started.stdout, 'data');
  address = String(line).trim();
});
after(() => child?.kill());

async function post(path: string, body: object = {}): Promise<void> {
  const { ok, status } = await fetch(`${address}/v1/transit/${path}`, { method: 'POST', body: JSON.stringify(body) });
  assert.ok(ok, `${path}: ${status}`);
}

function open(key: string): Kek {
  const uri = parseKeyUri(`hashivault://${key}`);
  assert.ok(uri.scheme === 'hashivault');
  return openHashiVault(uri, { address, environment: { VAULT_TOKEN: 'anyone' } });
}

for (const [type, bindsContext, maximumBytes] of [
  ['aes256-gcm96', true, 4096],
  ['chacha20-poly1305', true, 4096],
  ['rsa-2048', false, 190],
] as const) {
  describeKek(`Vault itself (${type})`, async () => {
    for (const name of ['first', 'second']) await post(`keys/${type}-${name}`, { type });
    return {
      close() {},
      harness: {
        bindsContext,
        maximumBytes,
        openFirst: () => open(`${type}-first`),
        openSecond: () => open(`${type}-second`),
        rotate: () => post(`keys/${type}-first/rotate`),
      },
    };
  }, ['rotate']);
}

describe('Vault itself', () => {
  test('makes no key that is missing, for us', async () => {
    await code(open('missing').wrap(randomBytes(32), { a: '1' }, soon()), 'not-found');
    assert.equal((await fetch(`${address}/v1/transit/keys/missing`)).status, 404);
    const plaintext = Buffer.alloc(32).toString('base64');
    await post('encrypt/careless', { plaintext });
    assert.equal((await fetch(`${address}/v1/transit/keys/careless`)).status, 200, 'but for others it does');
  });

  test('says what is wrong in words that we know', async () => {
    await post('keys/signer', { type: 'ecdsa-p256' });
    await post('keys/derived', { derived: true });
    await post('keys/small', { type: 'rsa-2048' });
    await post('keys/old');
    const wrapped = await open('old').wrap(randomBytes(32), { a: '1' }, soon());
    await post('keys/old/rotate');
    await post('keys/old/config', { min_decryption_version: 2 });
    for (const [work, expected] of [
      [() => open('signer').wrap(randomBytes(32), {}, soon()), 'configuration'],
      [() => open('derived').wrap(randomBytes(32), {}, soon()), 'configuration'],
      [() => open('small').wrap(randomBytes(300), { a: '1' }, soon()), 'bad-input'],
      [() => open('old').unwrap(wrapped, { a: '1' }, soon()), 'key-disabled'],
      [() => open('missing').unwrap(wrapped, { a: '1' }, soon()), 'not-found'],
    ] as const) {
      await code(work(), expected);
    }
  });
});

async function code(work: Promise<unknown>, expected: ErrorCode): Promise<void> {
  const error = await work.then(
    () => assert.fail('it succeeded'),
    (reason: unknown) => reason,
  );
  assert.ok(error instanceof OcicryptError, String(error));
  assert.equal(error.code, expected, error.message);
}

function soon(): AbortSignal {
  return AbortSignal.timeout(20_000);
}
