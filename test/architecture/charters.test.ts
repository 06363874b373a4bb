// The sentence that a file of src opens with is true: what it says that only it does, no other file does.
import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const SOURCE = fileURLToPath(new URL('../../src', import.meta.url));

/** Files that open with "The only code that", and what nothing else of src may hold. */
const ONLY: Readonly<Record<string, RegExp>> = {
  'base/aes-gcm.ts': /aes-256-gcm/,
  'base/http/roots.ts': /rootCertificates|getCACertificates/,
  'base/yaml-file.ts': /'yaml'/,
  'cli/prompt.ts': /\/dev\/tty/,
  'cli/run.ts': /ERROR_STATUS\[.*\]\.exit/,
  'client/jwe.ts': /'jose'/,
  'image/cipher/passes.ts': /aes-256-ctr/,
  'image/transports/registry/credentials.ts': /docker-credential-/,
  'kms/awskms/login.ts': /'@aws-sdk\//,
  'kms/gcpkms/library-tokens.ts': /'google-auth-library/,
  'kms/open.ts': /import\('\.\/\w+\/key\.ts'\)/,
  'kms/pkcs11/module.ts': /createRequire/,
  'provider/packet-v2.ts': /hkdf/,
  'server/service-manager.ts': /READY=1/,
};

const files = globSync('**/*.ts', { cwd: SOURCE }).sort();
const textOf = (file: string) => readFileSync(join(SOURCE, file), 'utf8');

/** Without comments that have lines of their own. */
const codeOf = (file: string) => textOf(file).replace(/^\s*(?:\/\/|\/?\*).*$/gm, '');

test('every file opens with a comment that says what it is for', () => {
  const without = files.filter((file) => !/^(?:#!.*\n)?\/\/ \S+ \S+/.test(textOf(file)));
  assert.deepEqual(without, []);
});

test('a file that claims to be the only one is in the table of this test; without a way to check it, begin otherwise', () => {
  const claiming = files.filter((file) => textOf(file).startsWith('// The only code that '));
  assert.deepEqual(claiming, Object.keys(ONLY).sort());
});

for (const [file, pattern] of Object.entries(ONLY)) {
  test(`only ${file} does what it says that only it does`, () => {
    assert.deepEqual(
      files.filter((one) => pattern.test(codeOf(one))),
      [file],
    );
  });
}
