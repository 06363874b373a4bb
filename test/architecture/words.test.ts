// The words of CONTRIBUTING.md hold in src. Below the command, texts name settings and never the options that set them: a
// program that uses the library has none.
import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { HttpSettings } from '../../src/base/http/contract.ts';
import { type SettingName, setting, spellSettings } from '../../src/base/setting.ts';
import { optionOf } from '../../src/cli/options/names.ts';
import { OPTIONS } from '../../src/cli/options/table.ts';
import type { GrpcTls } from '../../src/client/grpc-client.ts';
import type * as library from '../../src/index.ts';
import type { ServerOptions } from '../../src/server/start.ts';
import type { TlsFiles } from '../../src/server/tls.ts';

const SOURCE = fileURLToPath(new URL('../../src', import.meta.url));

/** A file without its comments, which name options as the reader of a source knows them. */
const codeOf = (file: string) => readFileSync(join(SOURCE, file), 'utf8').replace(/^\s*(?:\/\/|\/?\*).*$/gm, '');

/** What vendors' commands spell as we do: file and option. */
const FOREIGN: ReadonlySet<string> = new Set(['kms/gcpkms/gcloud.ts --key']);

test('no text below the command names an option', () => {
  const names = Object.keys(OPTIONS).join('|');
  const option = new RegExp(`--(?:${names}|\\$\\{)(?![\\w-])`, 'g');
  const files = globSync('{base,kms,provider,client,image,server,node}/**/*.ts', { cwd: SOURCE }).sort();
  assert.ok(files.length > 150);
  const found = files.flatMap((file) => {
    return [...codeOf(file).matchAll(option)].map(([name]) => `${file} ${name}`);
  });
  assert.deepEqual(
    found.filter((name) => !FOREIGN.has(name)),
    [],
    'say setting(NAME): the command makes an option of it',
  );
});

test('the command spells a setting as its option, the library as its member', () => {
  assert.equal(setting('azurekms.authority'), 'azurekms.authority');
  spellSettings(optionOf);
  assert.equal(setting('azurekms.authority'), '--azure-authority');
});

/** Members of options that the library or a lower layer takes. */
type Member =
  | keyof HttpSettings
  | keyof library.DecryptOptions
  | keyof library.EncryptOptions
  | keyof library.ProviderOptions
  | keyof library.RegistryStoreSettings
  | keyof ServerOptions
  | keyof ServerOptions['listener']
  | keyof ServerOptions['policy']['service']
  | keyof library.ImageKeysOptions
  | keyof library.RecipientChange
  | Below<'status', NonNullable<ServerOptions['status']>>
  | Below<'tls', GrpcTls>
  | Below<'tls', TlsFiles>
  | Below<'limits', library.Limits>
  | Below<'limits', ServerOptions['limits']>
  | Below<'names', library.ProviderOptions['names']>
  | {
      [Name in keyof library.BackendSettings]-?: Below<Name, NonNullable<library.BackendSettings[Name]>>;
    }[keyof library.BackendSettings];
type Below<Name extends string, Type> = `${Name}.${Extract<keyof Type, string>}`;

/** Settings that are the command's alone: what opens its files is told their paths, and not by options. */
type CommandsOwn = 'contentStore' | 'keys' | 'limits.rate';

// Does not compile if a setting is a member of nothing.
const isMember: Exclude<SettingName, Member | CommandsOwn> extends never ? true : false = true;

test('every other setting is a member that the library or the server takes', () => {
  assert.ok(isMember);
});

/** Other names of a thing, and the files of codecs and errors that quote a specification's spelling. */
const ELSEWHERE: readonly (readonly [name: RegExp, where: readonly string[]])[] = [
  [/optsdata/i, ['client/provider-messages.ts', 'provider/protocol.ts', 'provider/wrap.ts']],
  [/private_?options/i, []],
];

test('a layer-key record has one name', () => {
  for (const [name, where] of ELSEWHERE) {
    const found = globSync('**/*.ts', { cwd: SOURCE }).filter((file) => name.test(codeOf(file)));
    assert.deepEqual(found.sort(), where, `${name}`);
  }
  // There the word is text, and names nothing of ours.
  for (const file of ELSEWHERE.flatMap(([, where]) => where))
    assert.doesNotMatch(codeOf(file), /\boptsdata\b(?!['"]|: )/, file);
});

/** What a message of our own is looked at for, by files that may: texts of others are not errors of ours. */
const MAY_READ_TEXTS: ReadonlySet<string> = new Set(['base/errors.ts', 'base/http/errors.ts']);

test('what to do next hangs on the code or reason of an error, and never on its text', () => {
  const asked =
    /\.(?:message|hint)(?:\?\.|\.)(?:includes|endsWith|startsWith|match|search|indexOf|split)\(|\.(?:test|exec)\((?:\w+\.)+(?:message|hint)\b|\.(?:message|hint) ?[!=]==? ?['"`]/;
  const found = globSync('**/*.ts', { cwd: SOURCE }).filter((file) => asked.test(codeOf(file)));
  assert.deepEqual(
    found.filter((file) => !MAY_READ_TEXTS.has(file)),
    [],
  );
});
