// Vectors with one fault in the request: its shape, its JSON, its base64, its size.

import {
  canonicalJson,
  counting,
  GOOGLE,
  KEYFILES,
  keyfileEntry,
  OPTSDATA,
  packetV1,
  sealMembers,
  wrapWithGoogle,
} from '../test/fixtures/packets.ts';
import {
  base64,
  FIRST,
  FIRST_KEY,
  GCP,
  type Named,
  PACKET,
  type RequestPart,
  type Setup,
  unwrapRequest,
  unwrapText,
  wrapRequest,
} from './vectors-shape.ts';

const GOOD = unwrapRequest(PACKET);
const ANNOTATION = base64(PACKET);
const GOOGLE_ALLOWED: Setup = { allow: [GCP] };

/** A good annotation (ok-base64) whose base64 has both special characters and both characters of padding. */
export const PADDED: string = (() => {
  const packet = packetV1(GCP, wrapWithGoogle(GOOGLE.first, OPTSDATA, {}, counting(208, 12)));
  const noted = packet.replace('{', '{"note":"?>~?>~?>~",');
  return base64(noted + ' '.repeat(3 - ((noted.length + 2) % 3)));
})();

export function protocolFaults(): readonly Named[] {
  const record = JSON.parse(OPTSDATA.toString());
  return [
    bad('request-empty', 'no bytes at all', ''),
    bad('request-blank', 'only white space', ' \n\t\r'),
    bad('request-object-empty', 'no members', '{}'),
    bad('request-array', 'an array', '[]'),
    bad('request-null', 'null', 'null'),
    bad('request-text', 'a text', '"keyunwrap"'),
    bad('request-number', 'a number', '1'),
    bad('op-missing', 'no "op"', GOOD.replace('"op":"keyunwrap",', '')),
    bad('op-null', '"op" is null', GOOD.replace('"keyunwrap"', 'null')),
    bad('op-number', '"op" is a number', GOOD.replace('"keyunwrap"', '2')),
    bad('op-unknown', 'an unknown "op"', GOOD.replace('"keyunwrap"', '"keyrewrap"')),
    bad('op-upper-case', 'values are told apart by case', GOOD.replace('"keyunwrap"', '"KEYUNWRAP"')),
    bad('op-only-wrap', 'kills the reference provider', '{"op":"keywrap"}'),
    bad('op-only-unwrap', 'kills the reference provider', '{"op":"keyunwrap"}'),
    bad('wrap-params-null', 'no parameters of the operation', '{"op":"keywrap","keywrapparams":null}'),
    bad('wrap-params-array', 'an array for an object', '{"op":"keywrap","keywrapparams":[]}'),
    bad(
      'wrap-params-nulls',
      'nulls everywhere',
      '{"op":"keywrap","keywrapparams":{"ec":null,"optsdata":null},"keyunwrapparams":null}',
    ),
    bad('unwrap-params-null', 'no parameters of the operation', '{"op":"keyunwrap","keyunwrapparams":null}'),
    bad(
      'unwrap-params-nulls',
      'nulls everywhere',
      '{"op":"keyunwrap","keywrapparams":null,"keyunwrapparams":{"dc":null,"annotation":null}}',
    ),
    bad(
      'unwrap-params-of-wrap',
      'the parameters of the other operation',
      wrapRequest([FIRST_KEY]).replace('"keywrap"', '"keyunwrap"'),
    ),
    bad('dc-text', '"dc" is a text', GOOD.replace('{"Parameters":null}', '"x"')),
    bad('dc-array', '"dc" is an array', GOOD.replace('{"Parameters":null}', '[]')),
    bad('parameters-text', '"Parameters" is a text', GOOD.replace('"Parameters":null', '"Parameters":"x"')),
    bad('parameters-array', '"Parameters" is an array', GOOD.replace('"Parameters":null', '"Parameters":[]')),
    bad('ec-number', '"ec" is a number', wrapRequest([FIRST_KEY]).replace(/"ec":\{.*?\}\},/, '"ec":1,')),
    bad('annotation-null', 'nothing to unwrap', unwrapText('null')),
    bad('annotation-empty', 'an empty packet', unwrapText('""')),
    bad('annotation-number', 'a number', unwrapText('1')),
    bad('annotation-object', 'an object', unwrapText('{}')),
    bad('annotation-array-empty', 'an empty array of numbers', unwrapText('[]')),
    bad('annotation-array-256', 'a number that is no byte', unwrapText('[123,256]')),
    bad('annotation-array-negative', 'a negative number', unwrapText('[123,-1]')),
    bad('annotation-array-fraction', 'a fraction', unwrapText('[123,1.5]')),
    bad('annotation-array-text', 'a text among numbers', unwrapText('[123,"1"]')),
    bad('annotation-array-nested', 'an array among numbers', unwrapText('[123,[1]]')),
    bad('annotation-comma', 'two packets: clients split them', unwrapText(`"${ANNOTATION},${ANNOTATION}"`)),
    bad('annotation-not-json', 'a packet that is not JSON', unwrapRequest('packet')),
    bad('annotation-cut', 'half a packet', unwrapRequest(PACKET.slice(0, PACKET.length / 2))),
    bad('base64-unpadded', 'no padding', unwrapText(`"${PADDED.replace('==', '')}"`), GOOGLE_ALLOWED),
    bad('base64-space', 'a space', unwrapText(`"${ANNOTATION.slice(0, 8)} ${ANNOTATION.slice(8)}"`)),
    bad('base64-newline', 'an escaped newline', unwrapText(`"${ANNOTATION}\\n"`)),
    bad(
      'base64-url',
      'the alphabet of URLs',
      unwrapText(`"${PADDED.replaceAll('+', '-').replaceAll('/', '_')}"`),
      GOOGLE_ALLOWED,
    ),
    bad(
      'base64-bits',
      'bits set behind the last byte',
      unwrapText(`"${PADDED.replace(/A==$/, 'B==')}"`),
      GOOGLE_ALLOWED,
    ),
    bad('base64-padding-inside', 'padding within', unwrapText(`"e30=${ANNOTATION}"`)),
    bad('base64-padding-more', 'three characters of padding', unwrapText('"e30==="')),
    bad('base64-one', 'one character', unwrapText('"e"')),
    bad('base64-non-ascii', 'a character that is not ASCII', unwrapText(`"é${ANNOTATION.slice(2)}"`)),
    bad('base64-nul', 'an escaped NUL', unwrapText(`"\\u0000${ANNOTATION.slice(1)}"`)),
    bad('case-op-twice', 'two spellings of "op"', GOOD.replace('{', '{"OP":"keywrap",')),
    bad('case-params-twice', 'two spellings of "keyunwrapparams"', GOOD.replace('{', '{"KeyUnwrapParams":{},')),
    bad('case-annotation-twice', 'two spellings of "annotation"', unwrapText(`null,"Annotation":"${ANNOTATION}"`)),
    bad(
      'case-parameters-twice',
      'two spellings of "Parameters"',
      GOOD.replace('"Parameters":null', '"Parameters":null,"parameters":{}'),
    ),
    bad('optsdata-null', 'nothing to wrap', wrapText('null')),
    bad('optsdata-empty', 'an empty record', wrapText('""')),
    bad('optsdata-number', 'a number', wrapText('193')),
    bad('optsdata-object', 'the record as an object, which no client sends', wrapText(OPTSDATA.toString())),
    bad('optsdata-array-256', 'a number that is no byte', wrapText('[256]')),
    bad(
      'optsdata-large',
      'a record of 4097 bytes',
      wrapRequest([FIRST_KEY], `${OPTSDATA.toString()}${' '.repeat(4097 - OPTSDATA.length)}`),
    ),
    bad('record-not-json', 'a record that is not JSON', wrapRequest([FIRST_KEY], 'secret')),
    bad('record-array', 'a record that is an array', wrapRequest([FIRST_KEY], '[]')),
    bad('record-empty', 'a record without members', wrapRequest([FIRST_KEY], '{}')),
    bad('record-trailing', 'bytes after the record', wrapRequest([FIRST_KEY], `${OPTSDATA.toString()}x`)),
    bad('record-symkey-31', 'a key of 31 bytes', changed({ symkey: base64(Buffer.alloc(31)) })),
    bad('record-symkey-33', 'a key of 33 bytes', changed({ symkey: base64(Buffer.alloc(33)) })),
    bad('record-symkey-missing', 'no key', changed({ symkey: undefined })),
    bad('record-symkey-text', 'a key that is not base64', changed({ symkey: '*'.repeat(44) })),
    bad(
      'record-symkey-twice',
      'the key twice',
      wrapRequest([FIRST_KEY], OPTSDATA.toString().replace('{', `{"symkey":"${record.symkey}",`)),
    ),
    bad('record-digest-missing', 'no digest', changed({ digest: undefined })),
    bad('record-digest-malformed', 'a digest without algorithm', changed({ digest: 'a'.repeat(64) })),
    bad('record-options-missing', 'no cipher options', changed({ cipheroptions: undefined })),
    bad('record-options-null', 'cipher options that are null', changed({ cipheroptions: null })),
    bad('record-nonce-12', 'a nonce of 12 bytes', changed({ cipheroptions: { nonce: base64(Buffer.alloc(12)) } })),
  ];

  function changed(members: Readonly<Record<string, unknown>>): string {
    return wrapRequest([FIRST_KEY], JSON.stringify({ ...record, ...members }));
  }
}

export function jsonFaults(): readonly Named[] {
  const insert = (member: string) => GOOD.replace('{', `{${member},`);
  const insertBytes = (hex: string): readonly RequestPart[] => ['{"new":"', { hex }, `",${GOOD.slice(1)}`];
  return [
    bad('json-bom', 'a byte order mark', [{ hex: 'efbbbf' }, GOOD]),
    bad('json-utf16', 'UTF-16', [{ hex: Buffer.from(GOOD, 'utf16le').toString('hex') }]),
    bad('json-trailing-brace', 'a brace behind the document', `${GOOD}}`),
    bad('json-trailing-nul', 'a NUL behind the document', [GOOD, { hex: '00' }]),
    bad('json-two-documents', 'two documents', `${GOOD}\n${GOOD}`),
    bad('json-half', 'half a request', GOOD.slice(0, GOOD.length / 2)),
    bad('json-last-brace', 'the last brace is missing', GOOD.slice(0, -1)),
    bad('json-text-unterminated', 'a text that does not end', '{"op":"keyunwrap'),
    bad('json-escape-unterminated', 'ends in a backslash', '{"op":"keyunwrap\\'),
    bad('json-control', 'a raw newline in a text', insert('"new":"a\nb"')),
    bad('json-control-nul', 'a raw NUL in a text', insertBytes('6100')),
    bad('json-escape-unknown', 'an unknown escape', insert('"new":"\\x41"')),
    bad('json-escape-short', 'a short Unicode escape', insert('"new":"\\u12"')),
    bad('json-utf8-invalid', 'a byte that UTF-8 has not', insertBytes('ff')),
    bad('json-utf8-overlong', 'an overlong NUL', insertBytes('c080')),
    bad('json-utf8-surrogate', 'a surrogate as UTF-8', insertBytes('eda080')),
    bad('json-utf8-cut', 'a character that is cut', insertBytes('e282')),
    bad('json-quotes-single', 'single quotes', GOOD.replaceAll('"', "'")),
    bad('json-name-bare', 'a name without quotes', GOOD.replace('"op"', 'op')),
    bad('json-name-number', 'a number as a name', insert('1:2')),
    bad('json-colon-missing', 'no colon', insert('"new" 1')),
    bad('json-comma-missing', 'no comma', GOOD.replace(',"keywrapparams"', ' "keywrapparams"')),
    bad('json-comma-trailing', 'a comma before the brace', `${GOOD.slice(0, -1)},}`),
    bad('json-comma-array', 'a comma before the bracket', insert('"new":[1,]')),
    bad('json-comment', 'a comment', insert('/* new */"new":1')),
    bad('json-number-plus', 'a plus sign', insert('"new":+1')),
    bad('json-number-zero', 'a leading zero', insert('"new":01')),
    bad('json-number-point', 'nothing behind the point', insert('"new":1.')),
    bad('json-number-fraction', 'nothing before the point', insert('"new":.5')),
    bad('json-number-hex', 'a hexadecimal number', insert('"new":0x10')),
    bad('json-number-nan', 'NaN', insert('"new":NaN')),
    bad('json-number-minus', 'a minus sign alone', insert('"new":-')),
    bad('json-literal-case', 'True', insert('"new":True')),
    bad('json-space-form-feed', 'a form feed as white space', insert('\f"new":1')),
    bad('json-space-no-break', 'a no-break space as white space', insert('\u00a0"new":1')),
    bad('json-duplicate-op', '"op" twice', insert('"op":"keywrap"')),
    bad('json-duplicate-same', 'a member twice with one value', insert('"op":"keyunwrap"')),
    bad('json-duplicate-escaped', '"op" twice, once escaped', insert('"\\u006fp":"keyunwrap"')),
    bad('json-duplicate-inner', '"annotation" twice', unwrapText(`"${ANNOTATION}","annotation":"${ANNOTATION}"`)),
    bad('json-duplicate-unknown', 'an unknown member twice', insert('"new":1,"new":2')),
    bad('json-depth-17', 'seventeen levels', insert(`"new":${'['.repeat(16)}${']'.repeat(16)}`)),
    bad('json-depth-objects', 'seventeen levels of objects', insert(`"new":${'{"a":'.repeat(16)}1${'}'.repeat(16)}`)),
    bad('json-depth-100000', 'a tower of brackets', [{ repeat: '[', times: 100_000 }]),
    bad('json-bracket-mixed', 'an array closed by a brace', insert('"new":[1}')),
  ];
}

export function sizeFaults(): readonly Named[] {
  const large = canonicalJson(
    sealMembers({ recipients: [keyfileEntry(KEYFILES.first)], optsdata: Buffer.alloc(33_000, 0x20) }),
  );
  return [
    bad('size-request', 'one byte more than 262144', [GOOD, { repeat: ' ', times: 262_145 - GOOD.length }]),
    bad('size-junk', '300 KiB of no JSON', [{ repeat: 'x', times: 307_200 }]),
    bad('size-json', '300 KiB of JSON', ['{"new":"', { repeat: 'x', times: 307_200 }, `",${GOOD.slice(1)}`]),
    bad('size-packet', 'a packet of more than 32768 bytes', unwrapRequest(large)),
    bad('size-packet-space', 'a packet made too large by white space', unwrapRequest(`{${' '.repeat(32_768)}}`)),
  ];
}

function wrapText(optsdata: string): string {
  return `{"op":"keywrap","keywrapparams":{"ec":{"Parameters":{"kmscrypt":["${base64(FIRST_KEY)}"]}},"optsdata":${optsdata}}}`;
}

function bad(name: string, comment: string, request: string | readonly RequestPart[], setup: Setup = FIRST): Named {
  return [name, { comment, expect: 'bad-input', setup, request }];
}
