// What is found wrong with CRI-O: stray files, a service that was not restarted.

import assert from 'node:assert/strict';
import { generateKeyPairSync } from 'node:crypto';
import { mkdirSync, rmSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { examineCrio } from '../../src/node/crio.ts';
import { CRIO_DROP_IN, CRIO_UNIT, PROVIDERS_FILE } from '../../src/node/drop-in.ts';
import { newRoot } from './root.ts';

const DROP_IN = '/etc/crio/crio.conf.d/20-ocicrypt-kms.conf';
const PEM = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey.export({ type: 'pkcs8', format: 'pem' });

function node(t: TestContext, files: Readonly<Record<string, string>>): string {
  const root = newRoot(t, files);
  mkdirSync(join(root, '/etc/crio/keys'), { recursive: true });
  return root;
}

const RIGHT = {
  [DROP_IN]: CRIO_DROP_IN,
  [PROVIDERS_FILE]: '{}',
  '/etc/systemd/system/crio.service.d/ocicrypt-kms.conf': CRIO_UNIT,
};

function examine(
  root: string,
  environment: Readonly<Record<string, string>> = { OCICRYPT_KEYPROVIDER_CONFIG: PROVIDERS_FILE },
) {
  const running = {
    pid: 1,
    program: '/usr/bin/crio',
    words: ['crio'],
    environment,
    started: Date.now(),
    service: undefined,
  };
  const { findings } = examineCrio({ running, unit: 'crio.service' }, root);
  for (const { level, hint } of findings) assert.ok(level === 'ok' || hint !== undefined);
  return findings.map(({ level, message }) => `${level} ${message}`).join('\n');
}

test('a node that is right has nothing to say, with and without a private key for JWE', (t) => {
  const root = node(t, RIGHT);
  assert.equal(examine(root), 'ok is complete');
  writeFileSync(join(root, '/etc/crio/keys/jwe.pem'), PEM);
  assert.equal(examine(root), 'ok is complete');
});

test('a stray file or a link in the directory of keys is named', (t) => {
  const root = node(t, RIGHT);
  writeFileSync(join(root, '/etc/crio/keys/README'), 'keys go here');
  assert.match(examine(root), /^fail \/etc\/crio\/keys\/README is no private key: every pull fails/m);
  rmSync(join(root, '/etc/crio/keys/README'));
  mkdirSync(join(root, '/etc/crio/keys/below'));
  symlinkSync('/etc/passwd', join(root, '/etc/crio/keys/below/link'));
  assert.match(examine(root), /^fail \/etc\/crio\/keys\/below\/link is a link/m);
});

test('a file or a link in the place of the directory of keys is judged like one in it', (t) => {
  const root = node(t, {
    ...RIGHT,
    '/etc/crio/crio.conf.d/90.conf': '[crio.runtime]\ndecryption_keys_path = "/keys"\n',
  });
  writeFileSync(join(root, '/keys'), 'keys go here');
  assert.match(examine(root), /^fail \/keys is no private key: every pull fails/m);
  writeFileSync(join(root, '/keys'), PEM);
  assert.equal(examine(root), 'ok is complete');
  rmSync(join(root, '/keys'));
  symlinkSync(join(root, '/etc/crio/keys'), join(root, '/keys'));
  assert.match(examine(root), /^fail \/keys is a link/m);
  rmSync(join(root, '/etc/crio/keys'), { recursive: true });
  assert.equal(examine(root), 'ok is complete', 'a link to nothing is nothing');
});

test('the directory of keys is the one that the last file names, and CRI-O does without one', (t) => {
  const root = node(t, { ...RIGHT, '/etc/crio/crio.conf': '[crio.runtime]\ndecryption_keys_path = "/nowhere"\n' });
  assert.equal(examine(root), 'ok is complete');
  writeFileSync(join(root, '/etc/crio/crio.conf.d/90.conf'), '[crio.runtime]\ndecryption_keys_path = "/elsewhere"\n');
  assert.equal(examine(root), 'ok is complete');
  mkdirSync(join(root, '/elsewhere'));
  writeFileSync(join(root, '/elsewhere/README'), 'keys go here');
  assert.match(examine(root), /^fail \/elsewhere\/README is no private key/m);
  writeFileSync(join(root, '/etc/crio/crio.conf.d/90.conf'), '[crio.runtime]\ndecryption_keys_path = ""\n');
  assert.equal(examine(root), 'ok is complete');
  writeFileSync(join(root, '/etc/crio/crio.conf.d/90.conf'), '[');
  assert.match(examine(root), /^fail .*90\.conf is not valid TOML/m);
});

test('a CRI-O that was not restarted is known by its variables and by the age of its files', (t) => {
  const root = node(t, RIGHT);
  assert.match(examine(root, {}), /^fail was started without OCICRYPT_KEYPROVIDER_CONFIG/m);
  const later = Date.now() / 1000 + 60;
  utimesSync(join(root, DROP_IN), later, later);
  assert.match(examine(root), /^warn was started before .*20-ocicrypt-kms\.conf was changed/m);
});
