// The transit engine that HashiCorp wrote: the conformance suite, and the answers that our fake of it repeats. Needs Go.
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { after, before } from 'node:test';
import { parseKeyUri } from '../../src/base/key-uri.ts';
import { openHashiVault } from '../../src/kms/hashivault/key.ts';
import type { Kek } from '../../src/kms/kek.ts';
import { describeKek } from '../kms/kek-conformance.ts';
import { buildGoProgram } from '../peers/fetched.ts';
import { describeTransitEngine } from './transit-engine.ts';

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
        versions: 'enforced',
        maximumBytes,
        openFirst: () => open(`${type}-first`),
        openSecond: () => open(`${type}-second`),
        rotate: () => post(`keys/${type}-first/rotate`),
      },
    };
  }, ['rotate']);
}

describeTransitEngine("Vault's transit engine", {
  open,
  post,
  keyStatus: async (key) => (await fetch(`${address}/v1/transit/keys/${key}`)).status,
});
