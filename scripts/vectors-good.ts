// Vectors that succeed: what real clients send, and every freedom that a reader must allow.

import {
  canonicalJson,
  counting,
  GOOGLE,
  googleEntry,
  KEYFILES,
  keyfileEntry,
  OPTSDATA,
  packetV1,
  sealMembers,
  wrapWithGoogle,
} from '../test/fixtures/packets.ts';
import { PADDED } from './vectors-protocol.ts';
import {
  base64,
  FIRST,
  FIRST_KEY,
  GCP,
  GCP_SECOND,
  type Named,
  PACKET,
  REPLY,
  SECOND_KEY,
  type Setup,
  unwrapRequest,
  unwrapText,
  type Vector,
  wrapRequest,
} from './vectors-shape.ts';

/** One label whose value reads like a second one. */
const COMMA = { env: 'prod,team=a' };

const OPTSDATA_BASE64 = base64(OPTSDATA);

export function goodVectors(): readonly Named[] {
  return [...unwraps(), ...wraps()];
}

function unwraps(): readonly Named[] {
  const labels = { env: 'prod', team: 'a b' };
  const labelled = canonicalJson(sealMembers({ labels, recipients: [keyfileEntry(KEYFILES.first, { labels })] }));
  const comma = canonicalJson(
    sealMembers({ labels: COMMA, recipients: [keyfileEntry(KEYFILES.first, { labels: COMMA })] }),
  );
  const both = canonicalJson(
    sealMembers({ recipients: [keyfileEntry(KEYFILES.first), keyfileEntry(KEYFILES.second)] }),
  );
  const google = canonicalJson(sealMembers({ recipients: [googleEntry(GOOGLE.first)] }));
  const sixteen = canonicalJson(
    sealMembers({
      recipients: [
        ...Array.from({ length: 15 }, (_, index) => ({
          ...googleEntry(GOOGLE.first),
          key: `gcpkms://projects/elsewhere/locations/global/keyRings/r/cryptoKeys/k${index}`,
        })),
        keyfileEntry(KEYFILES.first),
      ],
    }),
  );
  const wrapped = wrapWithGoogle(GOOGLE.first, OPTSDATA, {}, counting(208, 12));
  const allowed: Setup = { allow: [GCP] };
  const v1 = packetV1(GCP, wrapped);
  return [
    good('ok-v2-keyfile', 'one key file', FIRST, unwrapRequest(PACKET)),
    good('ok-v2-named', 'the caller names the key', FIRST, unwrapRequest(PACKET, [FIRST_KEY])),
    good(
      'ok-v2-enabled',
      'ocicrypt puts this word where no value was given',
      FIRST,
      unwrapRequest(PACKET, ['Enabled']),
    ),
    good('ok-v2-empty-parameter', 'provider:NAME: arrives as an empty value', FIRST, unwrapRequest(PACKET, [''])),
    good('ok-v2-two-first', 'either key opens: the first', FIRST, unwrapRequest(both)),
    good('ok-v2-two-second', 'either key opens: the second', { keys: ['second'] }, unwrapRequest(both)),
    good(
      'ok-v2-rotation',
      'several key files, the right one last',
      { keys: ['second', 'first'] },
      unwrapRequest(PACKET),
    ),
    good(
      'ok-v2-broken-other-file',
      'a key file that is gone keeps no other from opening',
      { keys: ['missing', 'first'] },
      unwrapRequest(PACKET),
    ),
    good('ok-v2-sixteen', 'sixteen recipients, fifteen of them not allowed', FIRST, unwrapRequest(sixteen)),
    good('ok-v2-labels', 'labels, none demanded', FIRST, unwrapRequest(labelled)),
    good(
      'ok-v2-labels-comma',
      'a value may hold what separates labels elsewhere',
      { ...FIRST, context: COMMA },
      unwrapRequest(comma),
    ),
    good(
      'ok-v2-labels-demanded',
      'the labels that are demanded',
      { ...FIRST, context: labels },
      unwrapRequest(labelled),
    ),
    good('ok-v2-google', 'a Google key that is allowed exactly', allowed, unwrapRequest(google)),
    good(
      'ok-v2-google-prefix',
      'a Google key below a prefix',
      { allow: ['gcpkms://projects/test-project/*'] },
      unwrapRequest(google),
    ),
    good(
      'ok-v2-google-caller',
      'a command has the rights of its caller, who names the key',
      {},
      unwrapRequest(google, [GCP]),
    ),
    good(
      'ok-v2-local-beside-google',
      'a denied Google key beside an allowed key file',
      FIRST,
      unwrapRequest(
        canonicalJson(sealMembers({ recipients: [googleEntry(GOOGLE.first), keyfileEntry(KEYFILES.first)] })),
      ),
    ),
    good(
      'ok-v2-duplicate',
      'two entries of one key under a valid MAC: each is tried',
      FIRST,
      unwrapRequest(
        canonicalJson(
          sealMembers({
            recipients: [keyfileEntry(KEYFILES.first, { labels }), keyfileEntry(KEYFILES.first)],
          }),
        ),
      ),
    ),
    good(
      'ok-v2-path-beside',
      'a path in "key" is never opened and spoils nothing',
      FIRST,
      unwrapRequest(
        canonicalJson(
          sealMembers({
            recipients: [
              { ...keyfileEntry(KEYFILES.first), key: 'keyfile:///etc/passwd' },
              keyfileEntry(KEYFILES.first),
            ],
          }),
        ),
      ),
    ),
    good('ok-v1-reference', 'a packet as the reference provider writes it', allowed, unwrapRequest(v1)),
    good(
      'ok-v1-reference-command',
      'the same under the reference provider’s name',
      { command: 'kms_oci_crypt', kmsURI: GCP },
      unwrapRequest(v1),
    ),
    good(
      'ok-v1-reference-version-ignored',
      'there, versions of a Google key are one key',
      { command: 'kms_oci_crypt', kmsURI: GCP },
      unwrapRequest(packetV1(`${GCP}/cryptoKeyVersions/1`, wrapped)),
    ),
    good(
      'ok-v1-other-version-allowed',
      'there, also where the operator names another version',
      { command: 'kms_oci_crypt', kmsURI: `${GCP}/cryptoKeyVersions/2` },
      unwrapRequest(v1),
    ),
    good(
      'ok-v1-bare-name',
      'a resource name without its scheme',
      allowed,
      unwrapRequest(packetV1(GOOGLE.first.name, wrapped)),
    ),
    good(
      'ok-v1-unknown-member',
      'unknown members of v1 are ignored, as its writer does',
      allowed,
      unwrapRequest(JSON.stringify({ note: 1, ...JSON.parse(v1) })),
    ),
    good(
      'ok-v1-white-space',
      'v1 has no canonical form',
      allowed,
      unwrapRequest(` ${JSON.stringify(JSON.parse(v1), null, 2)}\n`),
    ),
    good(
      'ok-v1-without-wrap-type',
      'another writer leaves wrap_type out',
      allowed,
      unwrapRequest(JSON.stringify({ key_url: GCP, wrapped_key: base64(wrapped) })),
    ),
    good(
      'ok-number-array',
      'Rust clients write bytes as arrays of numbers',
      FIRST,
      unwrapText(JSON.stringify([...Buffer.from(PACKET)])),
    ),
    good(
      'ok-member-case',
      'Go takes member names in any case',
      FIRST,
      unwrapRequest(PACKET).replace('"op"', '"OP"').replace('"annotation":"', '"Annotation":"').replace('"dc"', '"Dc"'),
    ),
    good(
      'ok-member-order',
      'members in another order, with white space',
      FIRST,
      ` \t\r\n{"keyunwrapparams" : {"annotation":"${base64(PACKET)}"} ,"op":"keyunwrap"}\n`,
    ),
    good(
      'ok-unknown-members',
      'unknown members of a request are ignored',
      FIRST,
      unwrapRequest(PACKET).replace('{', '{"new":{"a":[1,2.5e3,true,null,"\\ud800"]},'),
    ),
    good(
      'ok-escaped-name',
      'an escaped member name is that name',
      FIRST,
      unwrapRequest(PACKET).replace('"op"', '"\\u006fp"'),
    ),
    good('ok-escaped-slash', 'base64 with escaped slashes', FIRST, unwrapRequest(PACKET).replaceAll('/', '\\/')),
    good('ok-base64', 'base64 with special characters and padding', allowed, unwrapText(`"${PADDED}"`)),
    good('ok-dc-null', 'no decrypt configuration', FIRST, unwrapRequest(PACKET).replace('{"Parameters":null}', 'null')),
    good(
      'ok-prototype-members',
      'names that JavaScript objects have are names like others',
      FIRST,
      unwrapRequest(PACKET).replace(
        '"Parameters":null',
        '"Parameters":{"__proto__":["YQ=="],"constructor":["YQ=="],"toString":null}',
      ),
    ),
    good(
      'ok-other-scheme',
      'a private key of another scheme arrives here too',
      FIRST,
      unwrapRequest(PACKET).replace(
        '"Parameters":null',
        `"Parameters":{"privkeys":["${base64('-----BEGIN PRIVATE KEY-----\n')}"]}`,
      ),
    ),
    good(
      'ok-depth-16',
      'sixteen levels',
      FIRST,
      unwrapRequest(PACKET).replace('{', `{"new":${'['.repeat(15)}${']'.repeat(15)},`),
    ),
    good('ok-padded-to-limit', 'exactly 262144 bytes', FIRST, [
      unwrapRequest(PACKET),
      { repeat: ' ', times: 262144 - unwrapRequest(PACKET).length },
    ]),
  ];
}

function wraps(): readonly Named[] {
  const first = { format: 'v2', keys: [FIRST_KEY] } as const;
  const allKeys = { keys: ['first', 'second'] };
  const v1 = { format: 'v1', keys: [GCP] } as const;
  return [
    wrap('ok-wrap-keyfile', 'one key file, named by thumbprint', FIRST, wrapRequest([FIRST_KEY]), first),
    wrap('ok-wrap-two', 'two recipients in one call are both wrapped', allKeys, wrapRequest([FIRST_KEY, SECOND_KEY]), {
      format: 'v2',
      keys: [FIRST_KEY, SECOND_KEY],
    }),
    wrap(
      'ok-wrap-same-twice',
      'one key named twice is one recipient',
      FIRST,
      wrapRequest([FIRST_KEY, FIRST_KEY]),
      first,
    ),
    wrap('ok-wrap-enabled', 'no value, one key allowed', FIRST, wrapRequest(['Enabled']), first),
    wrap('ok-wrap-empty', 'an empty value, one key allowed', FIRST, wrapRequest(['']), first),
    wrap(
      'ok-wrap-raw',
      'Rust clients send the record as JSON text',
      FIRST,
      wrapRequest([FIRST_KEY]).replace(JSON.stringify(OPTSDATA_BASE64), JSON.stringify(OPTSDATA.toString())),
      first,
    ),
    wrap(
      'ok-wrap-raw-escaped',
      'the same with other escapes',
      FIRST,
      wrapRequest([FIRST_KEY]).replace(
        JSON.stringify(OPTSDATA_BASE64),
        JSON.stringify(OPTSDATA.toString()).replaceAll('/', '\\/').replace('symkey', '\\u0073ymkey'),
      ),
      first,
    ),
    wrap(
      'ok-wrap-array',
      'the record as an array of numbers',
      FIRST,
      wrapRequest([FIRST_KEY]).replace(JSON.stringify(OPTSDATA_BASE64), JSON.stringify([...OPTSDATA])),
      first,
    ),
    wrap('ok-wrap-labels', 'public labels', { ...FIRST, context: { env: 'prod' } }, wrapRequest([FIRST_KEY]), first),
    wrap('ok-wrap-google', 'a Google key', {}, wrapRequest([GCP]), { format: 'v2', keys: [GCP] }),
    wrap(
      'ok-wrap-google-version',
      'a version of a symmetric Google key may be named for wrapping',
      { allow: [GCP] },
      wrapRequest([`${GCP}/cryptoKeyVersions/1`]),
      { format: 'v2', keys: [GCP] },
    ),
    wrap('ok-wrap-spellings', 'two spellings of one key are one recipient', {}, wrapRequest([GCP, GOOGLE.first.name]), {
      format: 'v2',
      keys: [GCP],
    }),
    wrap('ok-wrap-mixed', 'a key file and a Google key', FIRST, wrapRequest([FIRST_KEY, GCP]), {
      format: 'v2',
      keys: [FIRST_KEY, GCP],
    }),
    wrap('ok-wrap-v1', 'v1 when it is asked for', { packet: 'v1' }, wrapRequest([GCP]), v1),
    wrap(
      'ok-wrap-reference',
      'v1 under the reference provider’s name, for one Google key',
      { command: 'kms_oci_crypt' },
      wrapRequest([GCP]),
      v1,
    ),
    wrap(
      'ok-wrap-reference-two',
      'v2 under that name for two keys',
      { command: 'kms_oci_crypt' },
      wrapRequest([GCP, GCP_SECOND]),
      { format: 'v2', keys: [GCP, GCP_SECOND] },
    ),
    wrap(
      'ok-wrap-reference-v2',
      'v2 under that name when it is asked for',
      { command: 'kms_oci_crypt', packet: 'v2' },
      wrapRequest([GCP]),
      { format: 'v2', keys: [GCP] },
    ),
    wrap(
      'ok-wrap-reference-default',
      'the key of --kmsURI where the caller names none',
      { command: 'kms_oci_crypt', kmsURI: GCP },
      wrapRequest(['Enabled']),
      v1,
    ),
    wrap(
      'ok-wrap-other-name',
      'the sole name that carries key URIs is ours',
      FIRST,
      wrapRequest([FIRST_KEY]).replace('kmscrypt', 'anything'),
      first,
    ),
    wrap(
      'ok-wrap-configured-name',
      'a configured name wins',
      { ...FIRST, provider: 'mine' },
      wrapRequest([FIRST_KEY]).replace('{"kmscrypt"', `{"other":["${base64(GCP)}"],"mine"`),
      first,
    ),
  ];
}

function good(name: string, comment: string, setup: Setup, request: Vector['request']): Named {
  return [name, { comment, expect: 'ok', setup, request, reply: REPLY }];
}

function wrap(name: string, comment: string, setup: Setup, request: string, packet: Vector['packet'] & {}): Named {
  return [name, { comment, expect: 'ok', setup, request, packet }];
}
