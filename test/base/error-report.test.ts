// What a log may hold of an error: nothing that a library or service could have put there.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { reportError } from '../../src/base/error-report.ts';
import { OcicryptError } from '../../src/base/errors.ts';
import { CANARIES, WORDS } from '../fixtures/canaries.ts';
import { seeded } from '../fixtures/seed.ts';

for (const [what, { text, parts }] of Object.entries({ ...CANARIES, ...WORDS })) {
  test(seeded(`${what} in a foreign error reaches no log, wherever it stands in it`), () => {
    const inner = Object.assign(
      new Error(`read ${text}\n    at f (${new URL('../../src/', import.meta.url).pathname}${text}:1:1)`),
      {
        name: what in WORDS ? 'Error' : `${text}Error`,
        code: what in WORDS ? `E ${text}` : text,
        body: text,
      },
    );
    const chain = new TypeError(text, { cause: new AggregateError([inner], text, { cause: [inner, text, { text }] }) });
    const report = reportError(new OcicryptError('unavailable', 'the service fails', { cause: chain }));
    const written = JSON.stringify(report);
    for (const part of parts) assert.ok(!written.includes(JSON.stringify(part).slice(1, -1)), written);
    assert.match(written, /"name":"TypeError"/);
    assert.match(written, /"name":"AggregateError"/);
  });
}

test('names and codes of programs are kept', () => {
  const names = ['Error', 'TypeError', 'DOMException', 'KMSInvalidStateException', 'HTTPParserError', 'AggregateError'];
  const codes = ['ECONNREFUSED', 'E2BIG', 'EPROTONOSUPPORT', 'ERR_TLS_CERT_ALTNAME_INVALID', 'CERT_HAS_EXPIRED'].concat(
    ['UNABLE_TO_VERIFY_LEAF_SIGNATURE', 'UND_ERR_SOCKET', 'ERR_HTTP2_STREAM_ERROR', '14'],
  );
  for (const name of names) {
    for (const code of codes) {
      const [report] =
        reportError(new OcicryptError('unavailable', 'x', { cause: Object.assign(new Error(), { name, code }) }))
          .causes ?? [];
      assert.deepEqual({ name: report?.name, code: report?.code }, { name, code });
    }
  }
});

const OWN = new URL('../../src/', import.meta.url).pathname;
const withStack = (message: string, stack: string) => Object.assign(new Error(message), { stack });

test('of a stack, the frames in our own files are kept, without the path to them', () => {
  const frames = [
    `    at open (file://${OWN}kms/open.ts:12:3)`,
    `    at async ${OWN}provider/handle.ts:40:5`,
    `    at read (${OWN}node_modules/library/index.js:1:1)`,
    '    at call (node:internal/process:5:5)',
    '    at other (/elsewhere/kms/open.ts:1:1)',
  ];
  const report = reportError(
    new OcicryptError('internal', 'x', { cause: withStack('m', `Error: m\n${frames.join('\n')}`) }),
  );
  assert.deepEqual(report.causes, [
    { name: 'Error', frames: ['open kms/open.ts:12:3', 'provider/handle.ts:40:5'], causes: undefined },
  ]);
});

test('a message that looks like frames is none, and of a stack that begins with another text nothing is read', () => {
  const frame = `    at secret (${OWN}kms/open.ts:12:3)`;
  for (const cause of [withStack(`m\n${frame}`, `Error: m\n${frame}`), withStack('m', `Error: ${frame}\n${frame}`)])
    assert.deepEqual(reportError(new OcicryptError('internal', 'x', { cause })).causes?.[0]?.frames, []);
});

test('causes are followed to a depth and a number, in a circle too', () => {
  const one = new Error('one');
  one.cause = one;
  const wide = new Error('wide', { cause: Array.from({ length: 100 }, () => one) });
  assert.ok(JSON.stringify(reportError(wide)).length < 100_000);
  assert.equal(reportError(wide).code, 'internal');
});
