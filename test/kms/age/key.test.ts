// age: the conformance suite for both kinds of recipient, and identity files as they are found in the field.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { armor, Encrypter, generateHybridIdentity, generateX25519Identity, identityToRecipient } from 'age-encryption';
import { parseKeyUri } from '../../../src/base/key-uri.ts';
import type { AgeSettings } from '../../../src/kms/age/identities.ts';
import { openAgeIdentityFile, openAgeRecipient } from '../../../src/kms/age/key.ts';
import { isAgeIdentityFile } from '../../../src/kms/age-file.ts';
import type { Kek } from '../../../src/kms/kek.ts';
import { createKeyfile } from '../../../src/kms/keyfile/key.ts';
import { code, soon } from '../expect.ts';
import { describeKek } from '../kek-conformance.ts';

type Person = { readonly secret: string; readonly recipient: string; readonly file: string };

async function createPerson(directory: string, name: string, kind: 'age1' | 'age1pq1' = 'age1'): Promise<Person> {
  const secret = await (kind === 'age1' ? generateX25519Identity() : generateHybridIdentity());
  const recipient = await identityToRecipient(secret);
  const file = join(directory, name);
  await writeFile(file, `# created: 2026-11-23T00:00:00Z\n# public key: ${recipient}\n${secret}\n`, { mode: 0o600 });
  return { secret, recipient, file };
}

function openRecipient(recipient: string, settings: AgeSettings = { identityFiles: [] }): Kek {
  const uri = parseKeyUri(recipient);
  assert.ok(uri.scheme === 'age');
  return openAgeRecipient(uri, settings);
}

for (const kind of ['age1', 'age1pq1'] as const) {
  describeKek(`age (${kind})`, async () => {
    const directory = await mkdtemp(join(tmpdir(), 'age-'));
    const [first, second] = [await createPerson(directory, 'a', kind), await createPerson(directory, 'b', kind)];
    return {
      close: () => rm(directory, { recursive: true, force: true }),
      harness: {
        bindsContext: false,
        versions: 'none',
        openFirst: () => openRecipient(first.recipient, { identityFiles: [second.file, first.file] }),
        openSecond: () => openAgeIdentityFile(second.file, { identityFiles: [] }),
        secrets: () => [first.secret, second.secret],
      },
    };
  });
}

describe('age', () => {
  let directory: string;
  let person: Person;
  const protectedFile = async (name: string, text: string, passphrase: string, armored = false) => {
    const encrypter = new Encrypter();
    encrypter.setPassphrase(passphrase);
    encrypter.setScryptWorkFactor(10);
    const bytes = await encrypter.encrypt(text);
    return write(name, armored ? armor.encode(bytes) : bytes);
  };
  const write = async (name: string, content: string | Uint8Array) => {
    const path = join(directory, name);
    await writeFile(path, content, { mode: 0o600 });
    return path;
  };
  before(async () => {
    directory = await mkdtemp(join(tmpdir(), 'age-'));
    person = await createPerson(directory, 'person');
  });
  after(() => rm(directory, { recursive: true, force: true }));

  test('wraps without any file, and says which file is missing when it is to unwrap', async () => {
    const kek = openRecipient(person.recipient);
    const wrapped = await kek.wrap(randomBytes(32), {}, soon());
    assert.deepEqual([wrapped.key, wrapped.algorithm], [person.recipient, 'X25519']);
    const error = await code(kek.unwrap(wrapped, {}, soon()), 'configuration');
    assert.match(error.hint ?? '', /age\.identityFiles/);
  });

  test('refuses a recipient with a wrong character', async () => {
    const last = person.recipient.endsWith('q') ? 'p' : 'q';
    await code(openRecipient(`${person.recipient.slice(0, -1)}${last}`).wrap(randomBytes(32), {}, soon()), 'bad-input');
  });

  test('opens each identity of a file, and wraps to the first', async () => {
    const other = await createPerson(directory, 'other', 'age1pq1');
    const file = await write('both', `\r\n# two\r\n${person.secret}\r\n\r\n${other.secret}\r\n`);
    const kek = await openAgeIdentityFile(file, { identityFiles: [] });
    assert.deepEqual([kek.key, kek.otherKeys], [person.recipient, [other.recipient]]);
    for (const recipient of [person.recipient, other.recipient]) {
      const plaintext = randomBytes(32);
      const wrapped = await openRecipient(recipient).wrap(plaintext, {}, soon());
      assert.deepEqual(Buffer.from(await kek.unwrap(wrapped, {}, soon())), plaintext);
    }
  });

  test('a wrapped key is for one recipient: more stanzas would only cost time', async () => {
    const others = await Promise.all(Array.from({ length: 100 }, () => generateX25519Identity()));
    const encrypter = new Encrypter();
    for (const identity of others) encrypter.addRecipient(await identityToRecipient(identity));
    encrypter.addRecipient(person.recipient);
    const wrapped = await encrypter.encrypt(randomBytes(32));
    const kek = await openAgeIdentityFile(person.file, { identityFiles: [] });
    const used = process.cpuUsage();
    await code(kek.unwrap({ key: person.recipient, algorithm: 'X25519', wrapped }, {}, soon()), 'integrity');
    const { user } = process.cpuUsage(used);
    // Opened, it takes a hundred times 2 ms.
    assert.ok(user < 50_000, `${user} µs of the processor`);
  });

  describe('reads protected identity files', () => {
    const passphrase = 'correct horse battery stäple';

    test('in both forms, with the passphrase in a file', async () => {
      const passphraseFile = await write('passphrase', `${passphrase}\n`);
      for (const armored of [false, true]) {
        const file = await protectedFile(`protected-${armored}`, `${person.secret}\n`, passphrase, armored);
        const kek = await openAgeIdentityFile(file, { identityFiles: [], passphraseFile });
        assert.equal(kek.key, person.recipient);
      }
    });

    test('with a passphrase that somebody types, asked once for each file, one after the other', async () => {
      const files = [];
      for (const name of ['typed-1', 'typed-2']) files.push(await protectedFile(name, person.secret, passphrase));
      const asked: string[] = [];
      let isAsking = false;
      const prompt = async (question: string) => {
        assert.ok(!isAsking, 'two questions at once');
        isAsking = true;
        asked.push(question);
        await pause(20);
        isAsking = false;
        return new TextEncoder().encode(passphrase);
      };
      const settings = { identityFiles: files, prompt };
      const kek = openRecipient(person.recipient, settings);
      const wrapped = await kek.wrap(randomBytes(32), {}, soon());
      await Promise.all([kek.unwrap(wrapped, {}, soon()), kek.unwrap(wrapped, {}, soon())]);
      for (const file of files) await (await openAgeIdentityFile(file, settings)).unwrap(wrapped, {}, soon());
      assert.deepEqual(
        asked,
        files.map((file) => `passphrase of ${file}: `),
      );
    });

    test('and takes a wrong one for an answer, until another process asks', async () => {
      const file = await protectedFile('mistyped', person.secret, passphrase);
      let asked = 0;
      const prompt = async () => {
        asked++;
        return new TextEncoder().encode('guess');
      };
      const settings = { identityFiles: [file], prompt };
      const kek = openRecipient(person.recipient, settings);
      const wrapped = await kek.wrap(randomBytes(32), {}, soon());
      await code(kek.unwrap(wrapped, {}, soon()), 'unauthenticated');
      await code(kek.unwrap(wrapped, {}, soon()), 'unauthenticated');
      await code(openAgeIdentityFile(file, settings), 'unauthenticated');
      assert.equal(asked, 1);
    });

    test('and says so where nobody can be asked, or the passphrase is wrong', async () => {
      const file = await protectedFile('unknown', person.secret, passphrase);
      await code(openAgeIdentityFile(file, { identityFiles: [] }), 'unauthenticated');
      const nobody = async () => undefined;
      await code(openAgeIdentityFile(file, { identityFiles: [], prompt: nobody }), 'unauthenticated');
      const passphraseFile = await write('wrong-passphrase', 'guess-guess-guess');
      const error = await code(openAgeIdentityFile(file, { identityFiles: [], passphraseFile }), 'unauthenticated');
      assert.ok(!`${error.message}${error.hint}`.includes('guess'));
    });
  });

  test('refuses files that hold something else, and repeats nothing of them', async () => {
    const damaged = person.secret.replace(/.$/, person.secret.endsWith('Q') ? 'P' : 'Q');
    const contents = [
      '# nothing\n',
      'AGE-PLUGIN-YUBIKEY-1QQQ\n',
      `${person.secret}\nmore\n`,
      damaged,
      `#\n${'x'.repeat(70_000)}`,
    ];
    for (const [index, content] of contents.entries()) {
      const file = await write(`bad-${index}`, content);
      const error = await code(openAgeIdentityFile(file, { identityFiles: [] }), 'configuration');
      assert.ok(!`${error.message}${error.hint}`.includes(person.secret.slice(20, 40)));
    }
  });

  test('tells identity files from key files', async () => {
    const key = join(directory, 'key');
    createKeyfile(key);
    const lookalike = await write('lookalike', `#${'k'.repeat(31)}`);
    assert.deepEqual(
      [person.file, await write('bare', person.secret), key, lookalike, join(directory, 'none')].map(isAgeIdentityFile),
      [true, true, false, false, false],
    );
  });
});
