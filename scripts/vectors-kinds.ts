// Vectors of recipients and packets of other kinds that open on this machine: age, and Confidential Containers.

import type { ErrorCode } from '../src/base/errors.ts';
import {
  AGE,
  BROKER_KEY,
  canonicalJson,
  counting,
  DATA_KEY,
  type Entry,
  KEYFILES,
  OPTSDATA,
  SWAPPED,
  sealMembers,
  wrapWithKeyfile,
} from '../test/fixtures/packets.ts';
import { base64, type Named, REPLY, replyOf, type Setup, unwrapRequest, wrapRequest } from './vectors-shape.ts';

export function otherKinds(): readonly Named[] {
  return [...ageVectors(), ...cocoVectors()];
}

function ageVectors(): readonly Named[] {
  const entry: Entry = { algorithm: 'X25519', key: AGE.recipient, wrapped_key: AGE.wrapped };
  const setup: Setup = { keys: ['identity'] };
  const sealed = (one: Entry, optsdata = OPTSDATA) =>
    unwrapRequest(canonicalJson(sealMembers({ recipients: [one], optsdata })));
  const wrapped = Buffer.from(AGE.wrapped, 'base64');
  wrapped[wrapped.length - 1] = (wrapped.at(-1) ?? 0) ^ 1;
  return [
    opens('ok-v2-age', 'a recipient of age, opened by an identity file', setup, sealed(entry)),
    [
      'ok-v2-age-swapped',
      {
        comment:
          'a forgery that opens: anybody who knows the recipient can make it, since age binds no context (docs/packet.md section 6)',
        expect: 'ok',
        setup,
        request: sealed(entry, SWAPPED),
        reply: replyOf(SWAPPED),
      },
    ],
    [
      'ok-wrap-age',
      {
        comment: 'wrapping needs the recipient only',
        expect: 'ok',
        setup,
        request: wrapRequest([AGE.recipient]),
        packet: { format: 'v2', keys: [AGE.recipient] },
      },
    ],
    fault(
      'v2-age-bit',
      'a bit of the age file',
      'integrity',
      setup,
      sealed({ ...entry, wrapped_key: base64(wrapped) }),
    ),
    fault(
      'v2-age-algorithm',
      'the other algorithm of age',
      'integrity',
      setup,
      sealed({ ...entry, algorithm: 'mlkem768x25519' }),
    ),
    fault(
      'v2-age-no-identity',
      'a recipient that is allowed, without its identity',
      'configuration',
      { allow: [AGE.recipient] },
      sealed(entry),
    ),
  ];
}

function cocoVectors(): readonly Named[] {
  const setup: Setup = { 'kbs-key': { [BROKER_KEY]: 'first' } };
  const sealed = wrapWithKeyfile(KEYFILES.first, OPTSDATA, {}, counting(208, 12));
  const v1 = {
    kid: BROKER_KEY,
    wrapped_data: base64(sealed.subarray(12)),
    iv: base64(sealed.subarray(0, 12)),
    wrap_type: 'A256GCM',
  };
  const v2 = { version: '0.1.0', provider: 'kbs', provider_settings: {}, annotations: {} };
  const packet = (change: Readonly<Record<string, unknown>> = {}) =>
    unwrapRequest(JSON.stringify({ ...v1, ...change }));
  const flipped = Buffer.from(sealed.subarray(12));
  flipped[0] = (flipped[0] ?? 0) ^ 1;
  const holding = (record: Uint8Array) =>
    packet({ wrapped_data: base64(wrapWithKeyfile(KEYFILES.first, record, {}, counting(208, 12)).subarray(12)) });
  const refused = (name: string, comment: string, expect: ErrorCode, change: Readonly<Record<string, unknown>>) =>
    fault(name, comment, expect, setup, packet(change));
  return [
    opens('ok-coco-v1', 'a packet of Confidential Containers, v1', setup, packet()),
    opens('ok-coco-v2', 'the same, v2', setup, packet(v2)),
    opens('ok-coco-provider-case', 'its provider in another case', setup, packet({ ...v2, provider: 'KBS' })),
    opens(
      'ok-coco-host',
      'the address of a broker, which is not followed',
      setup,
      packet({ kid: 'kbs://evil.example:8080/default/key/one' }),
    ),
    opens('ok-coco-unknown-member', 'unknown members are ignored', setup, packet({ note: 1 })),
    refused('coco-bit', 'a bit of the ciphertext', 'integrity', { wrapped_data: base64(flipped) }),
    refused('coco-iv-other', 'another nonce', 'integrity', { iv: base64(counting(1, 12)) }),
    fault(
      'coco-record',
      'another secret under the broker’s key',
      'integrity',
      setup,
      holding(Buffer.from('database password')),
    ),
    refused('coco-iv-16', 'a nonce of 16 bytes', 'bad-input', { iv: base64(counting(1, 16)) }),
    refused('coco-iv-missing', 'no nonce', 'bad-input', { iv: undefined }),
    refused('coco-tag-only', 'a tag and nothing else', 'bad-input', { wrapped_data: base64(counting(1, 16)) }),
    refused('coco-ctr', 'A256CTR, which authenticates nothing', 'bad-input', { wrap_type: 'A256CTR' }),
    refused('coco-wrap-type-missing', 'no wrap_type', 'bad-input', { wrap_type: undefined }),
    refused('coco-version', 'another version', 'bad-input', { version: '0.2.0' }),
    refused('coco-provider', 'a provider whose keys nothing here opens', 'bad-input', { provider: 'ehsm' }),
    refused('coco-kid', 'a kid that is no key of the broker', 'bad-input', { kid: 'file:///etc/passwd' }),
    refused('coco-other-key', 'another key of the broker', 'not-allowed', { kid: 'kbs:///default/key/two' }),
    fault(
      'coco-labels',
      'labels are demanded, and there are none',
      'not-allowed',
      { ...setup, context: { env: 'prod' } },
      packet(),
    ),
    fault(
      'v2-broker-key',
      'a v2 packet for a key of the broker, which binds no context and has no place there',
      'integrity',
      setup,
      unwrapRequest(
        canonicalJson(
          sealMembers({
            recipients: [
              {
                algorithm: 'A256GCM',
                key: BROKER_KEY,
                wrapped_key: base64(wrapWithKeyfile(KEYFILES.first, DATA_KEY, {}, counting(208, 12))),
              },
            ],
          }),
        ),
      ),
    ),
    fault('coco-not-wrapped', 'the broker’s key does not wrap here', 'bad-input', setup, wrapRequest([BROKER_KEY])),
  ];
}

function opens(name: string, comment: string, setup: Setup, request: string): Named {
  return [name, { comment, expect: 'ok', setup, request, reply: REPLY }];
}

function fault(name: string, comment: string, expect: ErrorCode, setup: Setup, request: string): Named {
  return [name, { comment, expect, setup, request }];
}
