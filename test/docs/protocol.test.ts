// docs/protocol.md: its examples are played to the executable, and its limits, names and methods are those of the source.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { ERROR_STATUS, isErrorCode } from '../../src/base/errors.ts';
import { namedKeys } from '../../src/provider/parameters.ts';
import { MAXIMUM_PACKET_BYTES, MAXIMUM_REQUEST_BYTES } from '../../src/provider/protocol.ts';
import { keyProviderMethods } from '../../src/server/service.ts';
import { runExecutable } from '../fixtures/executable.ts';
import { type GoogleWorld, startGoogleWorld } from '../fixtures/google.ts';
import { type KeyDirectory, makeKeyDirectory } from '../fixtures/provider.ts';
import { blocksOf, readDocument } from './transcript.ts';

const document = await readDocument('docs/protocol.md');
const blocks = blocksOf(document);

let keys: KeyDirectory;
let google: GoogleWorld;
before(async () => {
  keys = makeKeyDirectory();
  google = await startGoogleWorld();
});
after(async () => {
  keys.remove();
  await google.close();
});

for (const [index, { language, text, line }] of blocks.entries()) {
  if (language !== 'request') continue;
  test(`the example at line ${line} of docs/protocol.md is answered as it says`, async () => {
    const answer = blocks[index + 1];
    assert.ok(answer !== undefined && ['reply', 'failure'].includes(answer.language));
    const words = ['keyprovider', `--key=${keys.file('first')}`, '--allow=gcpkms://projects/test-project/*'];
    const { status, stdout, stderr } = await runExecutable([...words, ...google.words], { input: text.trimEnd() });
    const expected = answer.text.trimEnd();
    const [start = '', end] = expected.split('…');
    const actual = answer.language === 'reply' ? stdout.toString() : stderr.trimEnd();
    assert.ok(actual.startsWith(start) && (end === undefined ? actual === start : actual.endsWith(end)), actual);
    const [, code = ''] = answer.language === 'reply' ? [] : (/^ocicrypt-kms: ([a-z-]+):/.exec(expected) ?? []);
    if (isErrorCode(code)) assert.equal(status, ERROR_STATUS[code].exit);
    else assert.deepEqual({ status, stderr }, { status: 0, stderr: '' });
    assert.equal(answer.language === 'failure' ? stdout.length : 0, 0);
  });
}

test('there are examples of both operations and of failures', () => {
  const requests = blocks.filter(({ language }) => language === 'request');
  assert.ok(requests.length >= 5);
  for (const part of ['"op":"keywrap"', '"op":"keyunwrap"'])
    assert.ok(requests.some(({ text }) => text.includes(part)));
  assert.ok(blocks.some(({ language }) => language === 'failure'));
});

test('the methods of the document are those that the server has', () => {
  const proto = blocks.find(({ language }) => language === 'proto')?.text ?? '';
  const [, name] = /^package (\w+);/m.exec(proto) ?? [];
  const [, service] = /^service (\w+)/m.exec(proto) ?? [];
  const documented = [...proto.matchAll(/^ {2}rpc (\w+)/gm)].map(([, method]) => `/${name}.${service}/${method}`);
  const provider = { handle: () => assert.fail('it is not called') };
  assert.deepEqual(
    documented,
    keyProviderMethods(() => ({ provider, clients: [] })).map(([path]) => path),
  );
});

test('the limits of the document are those of the source', () => {
  assert.ok(document.includes(`A request has at most ${MAXIMUM_REQUEST_BYTES} bytes.`));
  assert.ok(document.includes(`one packet, 1 to ${MAXIMUM_PACKET_BYTES} bytes`));
});

test('the names of other schemes that the document lists are never ours, and any other name is', () => {
  const [, list = ''] = /^The names of ocicrypt's other schemes never count[^:]*: (.*?)\. Names/m.exec(document) ?? [];
  const schemes = [...list.matchAll(/`([a-z0-9-]+)`/g)].map(([, name = '']) => name);
  assert.equal(schemes.length, 12);
  const ours = (name: string) =>
    namedKeys(new Map([[name, [Buffer.from('Enabled')]]]), { configured: undefined, fallback: 'kmscrypt' }).provider;
  for (const name of schemes) assert.equal(ours(name), undefined, name);
  for (const name of ['__proto__', 'privkey', 'PRIVKEYS']) assert.equal(ours(name), name);
});

test('the table of failures has every code that a request can end with', () => {
  const table = document.slice(document.indexOf('## 7. Failures'), document.indexOf('## 8. Examples'));
  const rows = [...table.matchAll(/^\| .* \| (`[^|]+) \|$/gm)].map(([, codes = '']) => codes);
  const codes = rows.flatMap((row) => [...row.matchAll(/`([a-z-]+)`/g)].map(([, code = '']) => code));
  for (const code of codes) assert.ok(isErrorCode(code), code);
  // A fault of the command line and one of ours are no fault of a request.
  assert.deepEqual(
    codes.toSorted(),
    Object.keys(ERROR_STATUS)
      .filter((code) => code !== 'usage' && code !== 'internal')
      .toSorted(),
  );
});
