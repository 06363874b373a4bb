// Vectors with one fault in what is named: key URIs, provider names, key files, policy.

import type { ErrorCode } from '../src/base/errors.ts';
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
import {
  base64,
  FIRST,
  FIRST_KEY,
  GCP,
  GCP_SECOND,
  type Named,
  PACKET,
  SECOND_KEY,
  type Setup,
  unwrapRequest,
  wrapRequest,
} from './vectors-shape.ts';

const RING = 'projects/test-project/locations/global/keyRings/ring';
const GOOGLE_PACKET = canonicalJson(sealMembers({ recipients: [googleEntry(GOOGLE.first)] }));

export function keyFaults(): readonly Named[] {
  const named = (name: string, comment: string, key: string): Named =>
    fault(name, comment, 'bad-input', {}, wrapRequest([key]));
  const parameters = (text: string) => wrapRequest([]).replace('{"kmscrypt":[]}', text);
  return [
    named('uri-scheme-unknown', 'a scheme that no backend has', 'http://169.254.169.254/latest'),
    named('uri-scheme-case', 'schemes are lower case', GCP.replace('gcpkms', 'GCPKMS')),
    named('uri-dialect', 'another tool’s spelling', GCP.replace('gcpkms', 'gcp-kms')),
    named('uri-dots', 'a path that climbs', `gcpkms://${RING}/cryptoKeys/first/../second`),
    named('uri-percent', 'a percent escape', `gcpkms://${RING}/cryptoKeys/fir%73t`),
    named('uri-host', 'a host before the resource', GCP.replace('gcpkms://', 'gcpkms://evil.example/')),
    named('uri-user', 'user information', 'awskms://user@localhost/alias/a'),
    named('uri-query', 'a query that names additional data', `${GCP}?additional_authenticated_data=YQ==`),
    named('uri-fragment', 'a fragment', `${GCP}#x`),
    named('uri-comma', 'a comma, which clients split at', `${GCP},x`),
    named('uri-newline', 'a newline at the end', `${GCP}\n`),
    named('uri-space', 'a space at the start', ` ${GCP}`),
    named('uri-non-ascii', 'a character that is not ASCII', GCP.replace('first', 'fïrst')),
    named('uri-version-zero', 'versions start at 1', `${GCP}/cryptoKeyVersions/0`),
    named('uri-segment-empty', 'an empty segment', GCP.replace('/ring/', '//')),
    named('uri-long', 'longer than 2048 characters', `keyfile:///${'a'.repeat(2048)}`),
    named('uri-pin', 'a PIN', 'pkcs11:token=t;object=k?pin-value=1234'),
    named('uri-key-inside', 'a key instead of its name', 'base64key://smGbjm71Nxd1Ig5FS0wj9SlbzAIrnolCz9bQQ6uAhl4='),
    named('uri-keyfile-relative', 'a key file without an absolute path', 'keyfile://key'),
    named('uri-keyfile-dots', 'a key file whose path climbs', 'keyfile:///a/../b'),
    named('uri-thumbprint-short', 'a thumbprint of 31 bytes', FIRST_KEY.slice(0, -2)),
    named('uri-thumbprint-case', 'a thumbprint in upper case', `keyfile:sha256:${FIRST_KEY.slice(15).toUpperCase()}`),
    named('uri-age-short', 'an age recipient that is cut', 'age1qqqqqqqqqqqqqqqqqqqqqq'),
    fault(
      'kbs-no-file',
      'a key of Confidential Containers that no file here holds',
      'configuration',
      {},
      wrapRequest(['kbs:///repository/type/tag']),
    ),
    fault('parameter-not-base64', 'a value that is not base64', 'bad-input', FIRST, parameters('{"kmscrypt":["***"]}')),
    fault('parameter-number', 'a value that is a number', 'bad-input', FIRST, parameters('{"kmscrypt":[1]}')),
    fault('parameter-null', 'a value that is null', 'bad-input', FIRST, parameters('{"kmscrypt":[null]}')),
    fault('parameter-binary', 'a value that is not text', 'bad-input', FIRST, parameters('{"kmscrypt":["/wAB"]}')),
    fault(
      'name-two-carry',
      'two providers carry key URIs',
      'bad-input',
      FIRST,
      parameters(`{"a":["${base64(GCP)}"],"b":["${base64(GCP)}"]}`),
    ),
    fault('no-key-enabled', 'no key named and none allowed', 'bad-input', {}, wrapRequest(['Enabled'])),
    fault('no-key-empty', 'an empty value and no key allowed', 'bad-input', {}, wrapRequest([''])),
    fault('no-key-list', 'no values: kills the reference provider', 'bad-input', {}, wrapRequest([])),
    fault('no-key-null', 'no parameters', 'bad-input', {}, parameters('null')),
    fault(
      'no-key-two-allowed',
      'no key named and two allowed',
      'bad-input',
      { allow: [GCP, GCP_SECOND] },
      wrapRequest(['Enabled']),
    ),
    fault(
      'no-key-prefix',
      'no key named and only a prefix allowed',
      'bad-input',
      { allow: ['gcpkms://projects/test-project/*'] },
      wrapRequest(['Enabled']),
    ),
    fault(
      'kmsuri-conflict-wrap',
      'the caller names another key than --kmsURI',
      'bad-input',
      { command: 'kms_oci_crypt', kmsURI: GCP },
      wrapRequest([GCP_SECOND]),
    ),
    fault(
      'kmsuri-conflict-unwrap',
      'the same on unwrap',
      'bad-input',
      { command: 'kms_oci_crypt', kmsURI: GCP },
      unwrapRequest(GOOGLE_PACKET, [GCP_SECOND]),
    ),
    fault(
      'kmsuri-conflict-one',
      'one of two named keys is another',
      'bad-input',
      { command: 'kms_oci_crypt', kmsURI: GCP },
      wrapRequest([GCP, GCP_SECOND]),
    ),
    fault(
      'kmsuri-version',
      'versions are different keys under our own name',
      'bad-input',
      { kmsURI: `${GCP}/cryptoKeyVersions/1` },
      wrapRequest([`${GCP}/cryptoKeyVersions/2`]),
    ),
    fault(
      'recipients-17',
      'seventeen keys',
      'bad-input',
      {},
      wrapRequest(Array.from({ length: 17 }, (_, index) => `${GCP}${index}`)),
    ),
    fault('v1-keyfile', 'v1 for a key file', 'bad-input', { ...FIRST, packet: 'v1' }, wrapRequest([FIRST_KEY])),
    fault('v1-two', 'v1 for two keys', 'bad-input', { packet: 'v1' }, wrapRequest([GCP, GCP_SECOND])),
    fault('v1-labels', 'v1 with labels', 'bad-input', { packet: 'v1', context: { env: 'prod' } }, wrapRequest([GCP])),
    fault(
      'keyfile-missing',
      'a key file that is not there',
      'not-found',
      {},
      wrapRequest(['keyfile:///proc/nonexistent/key']),
    ),
    fault('keyfile-unknown', 'a thumbprint that no key file here has', 'configuration', {}, wrapRequest([FIRST_KEY])),
    fault('keyfile-short', 'a key file of 31 bytes', 'configuration', { keys: ['short'] }, unwrapRequest(PACKET)),
    fault('keyfile-long', 'a key file of 33 bytes', 'configuration', { keys: ['long'] }, unwrapRequest(PACKET)),
    fault('keyfile-empty', 'an empty key file', 'configuration', { keys: ['empty'] }, unwrapRequest(PACKET)),
    fault(
      'keyfile-readable',
      'a key file that others can read',
      'configuration',
      { keys: ['readable'] },
      unwrapRequest(PACKET),
    ),
    fault(
      'keyfile-equal',
      'a key file of 32 equal bytes, whose thumbprint anybody can compute',
      'configuration',
      { keys: ['equal'] },
      unwrapRequest(PACKET),
    ),
    fault(
      'keyfile-printable',
      'a key file of 32 printable characters',
      'configuration',
      { keys: ['printable'] },
      unwrapRequest(PACKET),
    ),
    fault('keyfile-directory', 'a directory', 'configuration', { keys: ['directory'] }, unwrapRequest(PACKET)),
    fault('keyfile-gone', 'the only key file is gone', 'not-found', { keys: ['missing'] }, unwrapRequest(PACKET)),
    fault(
      'google-missing',
      'a Google key that does not exist',
      'not-found',
      {},
      wrapRequest([`gcpkms://${RING}/cryptoKeys/third`]),
    ),
    fault(
      'all-or-none',
      'the second of two recipients does not exist',
      'not-found',
      FIRST,
      wrapRequest([FIRST_KEY, `gcpkms://${RING}/cryptoKeys/third`]),
    ),
    fault('allow-star', 'everything', 'configuration', { allow: ['*'] }, unwrapRequest(PACKET)),
    fault(
      'allow-boundary',
      'a prefix within a segment',
      'configuration',
      { allow: ['gcpkms://projects/test*'] },
      unwrapRequest(PACKET),
    ),
    fault('allow-scheme', 'a whole scheme', 'configuration', { allow: ['azurekms:///*'] }, unwrapRequest(PACKET)),
    fault(
      'allow-dots',
      'a prefix that climbs',
      'configuration',
      { allow: ['gcpkms://projects/a/../*'] },
      unwrapRequest(PACKET),
    ),
    fault(
      'allow-unknown',
      'an unknown scheme',
      'configuration',
      { allow: ['http://localhost/key'] },
      unwrapRequest(PACKET),
    ),
  ];
}

export function policyFaults(): readonly Named[] {
  const wrapped = wrapWithGoogle(GOOGLE.first, OPTSDATA, {}, counting(208, 12));
  const v1 = (key: string) => unwrapRequest(packetV1(key, wrapped));
  const packetFor = (members: Readonly<Record<string, string>>) =>
    unwrapRequest(canonicalJson(sealMembers({ recipients: [{ ...googleEntry(GOOGLE.first), ...members }] })));
  const keyOnly = (key: string) => {
    const { version: _, ...entry } = googleEntry(GOOGLE.first);
    return unwrapRequest(canonicalJson(sealMembers({ recipients: [{ ...entry, key }] })));
  };
  const labelledWith = (labels: Readonly<Record<string, string>>) =>
    unwrapRequest(canonicalJson(sealMembers({ labels, recipients: [keyfileEntry(KEYFILES.first, { labels })] })));
  const labelled = labelledWith({ env: 'prod' });
  const denied = (name: string, comment: string, setup: Setup, request: string): Named =>
    fault(name, comment, 'not-allowed', setup, request);
  const ARN = 'arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab';
  return [
    denied('policy-nothing-v1', 'no list, the packet names its key', {}, v1(GCP)),
    denied('policy-nothing-v2', 'no list, the packet names its key', {}, packetFor({})),
    denied('policy-nothing-keyfile', 'no list, a key file', {}, unwrapRequest(PACKET)),
    denied('policy-other-key', 'another key is allowed', { allow: [GCP_SECOND] }, v1(GCP)),
    denied('policy-longer-name', 'an allowed name is the start of the packet’s', { allow: [GCP] }, v1(`${GCP}2`)),
    denied(
      'policy-prefix-sibling',
      'a project whose name starts alike',
      { allow: ['gcpkms://projects/test/*'] },
      v1(GCP),
    ),
    denied(
      'policy-prefix-other',
      'a prefix of another ring',
      { allow: ['gcpkms://projects/test-project/locations/global/keyRings/rin/*'] },
      v1(GCP),
    ),
    denied('policy-version', 'an entry with another version', { allow: [`${GCP}/cryptoKeyVersions/2`] }, packetFor({})),
    denied(
      'policy-version-symmetric',
      'an entry with a version of a symmetric Google key allows wrapping only: the ciphertext names its version, the call does not',
      { allow: [`${GCP}/cryptoKeyVersions/1`] },
      packetFor({}),
    ),
    denied(
      'policy-version-symmetric-v1',
      'the same where key_url of v1 says that version',
      { allow: [`${GCP}/cryptoKeyVersions/2`] },
      v1(`${GCP}/cryptoKeyVersions/2`),
    ),
    denied(
      'policy-version-symmetric-named',
      'the same where the caller names the version',
      { allow: [GCP] },
      unwrapRequest(GOOGLE_PACKET, [`${GCP}/cryptoKeyVersions/1`]),
    ),
    denied(
      'policy-version-unknown',
      'an entry with a version, a packet without',
      { allow: [`${GCP}/cryptoKeyVersions/1`] },
      v1(GCP),
    ),
    denied(
      'policy-named-other',
      'the caller names a key that the packet has not',
      { allow: [GCP] },
      unwrapRequest(GOOGLE_PACKET, [GCP_SECOND]),
    ),
    denied(
      'policy-named-keyfile',
      'the caller names another key file',
      { keys: ['first', 'second'] },
      unwrapRequest(PACKET, [SECOND_KEY]),
    ),
    denied('policy-keyfile-other', 'another key file', { keys: ['second'] }, unwrapRequest(PACKET)),
    denied('policy-keyfile-path', 'a packet that names a path: never opened', FIRST, keyOnly('keyfile:///etc/passwd')),
    denied(
      'policy-endpoint-named',
      'a caller that names an endpoint',
      {},
      wrapRequest(['awskms://localhost:1/alias/a']),
    ),
    denied(
      'policy-module-named',
      'a caller that names a PKCS#11 module',
      {},
      wrapRequest(['pkcs11:token=t;object=k?module-path=/tmp/evil.so']),
    ),
    denied(
      'policy-aws-account',
      'the key of another account',
      { allow: ['awskms:///arn:aws:kms:us-east-1:111122223333:key/*'] },
      keyOnly(`awskms:///${ARN.replace('111122223333', '444455556666')}`),
    ),
    denied(
      'policy-azure-vault',
      'another vault',
      { allow: ['azurekms://mine.vault.azure.net/*'] },
      keyOnly('azurekms://evil.example/key'),
    ),
    denied(
      'policy-vault-engine',
      'another mount',
      { allow: ['hashivault://key'] },
      keyOnly('hashivault://key?engine=other'),
    ),
    denied('policy-age', 'an age recipient', FIRST, keyOnly(`age1${'q'.repeat(58)}`)),
    denied('policy-kbs', 'a key of Confidential Containers', FIRST, keyOnly('kbs:///repository/type/tag')),
    denied(
      'labels-comma-one',
      'two labels are demanded, the packet has one whose value reads like both',
      { ...FIRST, context: { env: 'prod', team: 'a' } },
      labelledWith({ env: 'prod,team=a' }),
    ),
    denied(
      'labels-comma-two',
      'one label is demanded whose value reads like the packet’s two',
      { ...FIRST, context: { env: 'prod,team=a' } },
      labelledWith({ env: 'prod', team: 'a' }),
    ),
    denied(
      'labels-space-two',
      'the same with a space',
      { ...FIRST, context: { env: 'prod team=a' } },
      labelledWith({ env: 'prod', team: 'a' }),
    ),
    denied('labels-other', 'another value is demanded', { ...FIRST, context: { env: 'dev' } }, labelled),
    denied(
      'labels-missing',
      'a label that the packet has not',
      { ...FIRST, context: { env: 'prod', team: 'a' } },
      labelled,
    ),
    denied(
      'labels-none',
      'labels are demanded of a packet that has none',
      { ...FIRST, context: { env: 'prod' } },
      unwrapRequest(PACKET),
    ),
    denied(
      'labels-v1',
      'labels are demanded of v1, which has none',
      { allow: [GCP], context: { env: 'prod' } },
      v1(GCP),
    ),
  ];
}

function fault(name: string, comment: string, expect: ErrorCode, setup: Setup, request: string): Named {
  return [name, { comment, expect, setup, request }];
}
