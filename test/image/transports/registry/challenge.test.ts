// Challenges as RFC 9110 writes them, and as servers do.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { parseChallenges } from '../../../../src/image/transports/registry/challenge.ts';
import { sample, seeded } from '../../../fixtures/seed.ts';

const parsed = (header: string) =>
  parseChallenges(header).map(({ scheme, parameters }) => [scheme, Object.fromEntries(parameters)]);

test('the examples of RFC 9110, and what registries send', () => {
  for (const [header, expected] of [
    ['Basic realm="simple"', [['basic', { realm: 'simple' }]]],
    [
      'Newauth realm="apps", type=1, title="Login to \\"apps\\"", Basic realm="simple"',
      [
        ['newauth', { realm: 'apps', type: '1', title: 'Login to "apps"' }],
        ['basic', { realm: 'simple' }],
      ],
    ],
    [
      'Bearer realm="https://gcr.io/v2/token",service=gcr.io,scope="repository:a/b:pull,push"',
      [['bearer', { realm: 'https://gcr.io/v2/token', service: 'gcr.io', scope: 'repository:a/b:pull,push' }]],
    ],
    [
      'Negotiate, Negotiate oYG2MIGzoAMKAQE=, NTLM TlRMTVNTUAAC==, Basic realm=x',
      [
        ['negotiate', {}],
        ['negotiate', {}],
        ['ntlm', {}],
        ['basic', { realm: 'x' }],
      ],
    ],
    ['Bearer realm = "https://a/t" ,, service\t=\ts', [['bearer', { realm: 'https://a/t', service: 's' }]]],
    ['Bearer realm=https://a/t?x=1', [['bearer', { realm: 'https://a/t?x=1' }]]],
    [
      'Bearer realm="never closed, Basic realm="x"',
      [
        ['bearer', {}],
        ['basic', { realm: 'x' }],
      ],
    ],
    ['="x", @, Basic', [['basic', {}]]],
    ['', []],
  ] as const) {
    assert.deepEqual(parsed(header), expected, header);
  }
});

test(seeded('whatever list is written is read, whichever way it is written'), () => {
  const token = fc.stringMatching(/^[A-Za-z][A-Za-z0-9._-]{0,9}$/);
  const value = fc.stringMatching(/^[\x20-\x7e]{0,20}$/);
  const space = fc.constantFrom('', ' ', '\t ');
  const parameters = fc.uniqueArray(fc.record({ name: token, value, space }), {
    selector: ({ name }) => name.toLowerCase(),
    maxLength: 4,
  });
  const challenge = fc.record({ scheme: token, parameters });
  fc.assert(
    fc.property(fc.array(challenge, { maxLength: 4 }), fc.constantFrom(',', ', ', ' ,, '), (challenges, comma) => {
      const header = challenges.map((one) => {
        const written = one.parameters.map(({ name, value: text, space: gap }) =>
          /^[A-Za-z0-9._-]+$/.test(text)
            ? `${name}${gap}=${gap}${text}`
            : `${name}${gap}=${gap}"${text.replace(/["\\]/g, '\\$&')}"`,
        );
        return `${one.scheme} ${written.join(comma)}`;
      });
      assert.deepEqual(
        parsed(header.join(comma)),
        challenges.map((one) => [
          one.scheme.toLowerCase(),
          Object.fromEntries(one.parameters.map(({ name, value: text }) => [name.toLowerCase(), text])),
        ]),
      );
    }),
    sample(100),
  );
});

test('no header keeps us busy', () => {
  const started = performance.now();
  for (const piece of ['"', 'a ', 'a="', 'a=" \\', ' ', ', ,', 'a=,', '=']) parseChallenges(piece.repeat(100_000));
  assert.ok(performance.now() - started < 2000);
});
