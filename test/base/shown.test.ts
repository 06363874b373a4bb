// What an error shows of an operator's own words.
import assert from 'node:assert/strict';
import { globSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { describeError, describeForCaller, OcicryptError } from '../../src/base/errors.ts';
import { isContentOfFile, showImagePath, showKeyText, showName, showPath, showValue } from '../../src/base/shown.ts';
import { PROJECT } from '../../tools/process.ts';
import { CANARIES, type Canary, WORDS } from '../fixtures/canaries.ts';
import { seeded } from '../fixtures/seed.ts';

const directory = mkdtempSync(join(tmpdir(), 'shown-A7b2C9x-'));
after(() => rmSync(directory, { recursive: true, force: true }));

const said = (text: string) => describeError(new OcicryptError('configuration', text));
const assertHidden = (shown: string, { parts }: Canary, what: string) => {
  for (const part of parts) assert.ok(!shown.includes(part), `${what}: ${shown}`);
};

for (const [what, canary] of Object.entries(CANARIES)) {
  test(seeded(`${what} is content and no name, and is not shown: as a path, a value or a key`), () => {
    assert.equal(isContentOfFile(canary.text), true);
    for (const text of [canary.text, `/run/secrets/${canary.text}`, `gcpkms://${canary.text}`, `x=${canary.text}`]) {
      for (const show of [showPath, showValue, showKeyText]) assertHidden(said(show(text)), canary, what);
    }
  });
}

for (const [what, canary] of Object.entries(WORDS)) {
  test(seeded(`${what} in the place of a file's name is not shown`), () => {
    assertHidden(said(showPath(canary.text)), canary, what);
    const file = join(directory, canary.text);
    writeFileSync(file, '');
    assert.ok(said(showPath(file)).includes(canary.text), 'a file that is there has a name');
  });
}

test('a random key is not shown if it has no digit, or more words than chance has', () => {
  for (const key of [
    'FYhsAXmCatjUiqYqurDhHUDOrGOpTwKAwCZDrRFq',
    'gdaupbxzoRCJxt/rDkd+RwaqfhWPNZPXkrFNysAt',
    'eyv0/DQLHehmRA/CpxkEuDrdMNiwZN++wcbutUXAMHE=',
    '2ltiodZBmpSMM4eodeU_3NDGWT9IJBVHxcz541iUUPE',
  ]) {
    assert.equal(isContentOfFile(key), true, key);
    for (const show of [showPath, showValue, showKeyText]) assert.ok(!said(show(`/run/secrets/${key}`)).includes(key));
  }
});

test('names of files are shown: of every usual kind, and cut where they are long', () => {
  for (const path of [
    '/etc/ocicrypt-kms/app.key',
    './pin',
    '../secrets/pin',
    '~/.config/gcloud/application_default_credentials.json',
    'sa.json',
    'certs/ca.pem',
    '/var/run/secrets/kubernetes.io/serviceaccount/token',
    '/var/lib/kubelet/pods/6a1cbb5c-2f0e-4b62-9c3b-0d7a1c4f9f10/volumes/kubernetes.io~secret/kms/token',
    '/Users/Alice/Library/Application Support/Projects/KeyService2/keys/production',
    '/srv/app/CustomAuth/v2/result/SignUpStartResultV2',
    '/srv/schemas/networkservices/v1alpha1/HttpRouteCorsPolicy',
    '/home/ci/tmp.Xq81Za0c/work/ocicrypt-A1b2C3/adc.json',
    directory,
  ]) {
    assert.ok(said(showPath(path)).includes(path), path);
    assert.equal(isContentOfFile(path), false, path);
  }
  assert.ok(said(showPath(`/x/${'directory/'.repeat(100)}`)).length < 250);
});

test('an address that holds a password is no name', () => {
  for (const show of [showName, showPath]) assert.ok(!said(show('https://user:S3cr3t@host/x')).includes('S3cr3t'));
  assert.equal(showName('https://host:8443/x'), 'https://host:8443/x');
});

test('a PIN or password in the text of a key is left out, whatever else is wrong with it', () => {
  for (const [text, secret] of [
    ['pkcs11:token=t;object=k?pin-value=1234', '1234'],
    ['pkcs11:token=t?pin-value=87 65&module-name=x', '87'],
    ['azurekms:name=k;vault=v;client-secret=swordfish', 'swordfish'],
    ['hashivault://admin:swordfish@vault/k', 'swordfish'],
  ] as const) {
    assert.ok(!showKeyText(text).includes(secret), showKeyText(text));
  }
  for (const text of ['gcp-kms://projects/My-Project1/locations/europe-west1/keyRings/Ring7/cryptoKeys/Key9']) {
    assert.ok(showKeyText(text).includes('Key9'));
  }
});

test('the user and password of an address are left out of a value, whatever else is wrong with it', () => {
  for (const text of [
    'https://user:swordfish@vault.test?x',
    'https://swordfish@vault.test?x',
    'https://user:sword/swordfish@vault.test',
    'https://vault.test?token=swordfish',
  ]) {
    for (const show of [showValue, showKeyText]) assert.ok(!show(text).includes('swordfish'), show(text));
  }
  for (const text of ['docker://registry.test:5000/app@sha256:x', 'https://vault.test:8200/@x?']) {
    assert.equal(showValue(text), JSON.stringify(text));
  }
});

test('a path reaches people and logs here, and no caller of a server', () => {
  const path = showPath('/etc/ocicrypt-kms/app.key');
  const error = new OcicryptError('configuration', `the key file ${path} is open to other users`, {
    hint: `chmod 600 ${path}`,
  });
  assert.equal(
    describeError(error),
    'configuration: the key file /etc/ocicrypt-kms/app.key is open to other users; chmod 600 /etc/ocicrypt-kms/app.key',
  );
  const nested = error.with({ before: 'key x: ', code: 'not-found' });
  assert.ok(nested.message.includes('/etc/ocicrypt-kms/app.key'));
  const joined = new OcicryptError('integrity', `none: ${[error, nested].map((one) => one.markedLine()).join(' | ')}`);
  for (const one of [error, nested, joined]) {
    assert.ok(describeError(one).includes('app.key'));
    assert.doesNotMatch(describeForCaller(one), /app\.key|etc/);
  }
  assert.equal(
    describeForCaller(error),
    'configuration: the key file of the server is open to other users; the log of the server says more',
  );
});

test('an image is named by a bare word too, and by nothing that is a secret', () => {
  const said = (path: string) => new OcicryptError('not-written', `cannot write ${showImagePath(path)}`).message;
  assert.equal(said('app'), 'cannot write app');
  for (const { text, parts } of Object.values(CANARIES)) {
    const line = said(text);
    for (const part of parts) assert.ok(!line.includes(part), line);
  }
});

test('the path of an image may hold digests and numbers of builds, and is shown as it was advised to be written', () => {
  const said = (path: string) => new OcicryptError('not-written', `cannot write ${showImagePath(path)}`).message;
  const hex = 'c9f0f895fb98ab9159f51fd0297e236d';
  const key = 'q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA=';
  for (const path of [
    `/data/layout/blobs/sha256/${hex}${hex}`,
    `layout/blobs/sha256/${hex}${hex}`,
    `/builds/${hex}/image.tar`,
    `sha256-${hex}${hex}.tar`,
    `./${hex}`,
    `../${key}`,
  ])
    assert.equal(said(path), `cannot write ${path}`);
  for (const path of [hex, `${hex}.tar`, `/${key}`, `/x/${key}`, `/${hex}/${key}`])
    assert.ok(!said(path).includes(path.split('/').at(-1) ?? ''), path);
  const file = join(directory, key.replace('=', ''));
  writeFileSync(file, '');
  assert.equal(said(file), `cannot write ${file}`);
});

test('what callers read in place of a path is English, whatever stands before it', () => {
  const path = showPath('/etc/ocicrypt-kms/app.key');
  const read = (message: string) => describeForCaller(new OcicryptError('not-written', message));
  assert.equal(read(`${path} was removed`), 'not-written: a file of the server was removed');
  assert.equal(read(`cannot write to ${path} (ENOSPC)`), 'not-written: cannot write to a file of the server (ENOSPC)');
  assert.equal(read(`key x: ${path} is empty`), 'not-written: key x: a file of the server is empty');
  assert.equal(read(`the file ${path} is empty`), 'not-written: the file of the server is empty');
  // Each place in the sources: a noun stands before it, or a word after which a file is named.
  const isNamed =
    /(?:`|: |\b(?:for|holds|in|into|make|of|on|open|owns|read|remove|so|to|with|write) |(?:certificates?|configuration|directory|file|module|socket|\$\{what\}) )$/;
  const lines = globSync('src/**/*.ts', { cwd: PROJECT }).flatMap((file) =>
    readFileSync(join(PROJECT, file), 'utf8').split('\n'),
  );
  const places = lines.flatMap((line) =>
    [...line.matchAll(/(`[^`]*?)\$\{show(?:Image)?Path\(/g)].map(([, before]) => [before, line]),
  );
  const messages = places.filter(([, line = '']) => !line.includes('hint:'));
  assert.ok(messages.length > 40, `${messages.length}`);
  for (const [before = '', line] of messages) assert.match(before, isNamed, line);
});
