// Vectors of every kind of recipient without its service: what the service must be asked, and what it then answers.

import {
  AGE,
  BROKER_KEY,
  type Context,
  canonicalJson,
  contextOf,
  counting,
  DATA_KEY,
  type Entry,
  labelledContext,
  OPTSDATA,
  packetV1,
  type Sealing,
  SWAPPED,
  sealMembers,
  thumbprint,
} from '../test/fixtures/packets.ts';
import { base64 } from './vectors-shape.ts';

export type ServiceVector = {
  readonly comment: string;
  readonly expect: 'integrity' | 'not-allowed' | 'ok';
  /** The operator's only entry. */
  readonly allow: string;
  /** The labels that the operator demands, where any are. */
  readonly labels?: Context;
  readonly packet: string;
  /** The one ciphertext that the service opens: under `context`, or under any where that is null. */
  readonly service: {
    readonly key: string;
    readonly algorithm: string;
    readonly version?: string;
    readonly wrapped: string;
    readonly context: Context | null;
    readonly plaintext: string;
  };
  /** What is released. */
  readonly optsdata?: string;
};

type Kind = {
  readonly key: string;
  readonly algorithm: string;
  readonly version?: string;
  readonly wrapped: Uint8Array;
  readonly bindsContext: boolean;
};

const GCP = 'gcpkms://projects/test-project/locations/global/keyRings/ring/cryptoKeys/first';
const ARN = 'arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab';
const AZURE = `azurekms://testvault.vault.azure.net/image/${'0123456789abcdef'.repeat(2)}`;
const opaque = (length: number) => counting(11, length);

/** Every row of the table in docs/packet.md section 4.6; ciphertexts are arbitrary bytes of the right layout. */
export const KINDS: Readonly<Record<string, Kind>> = {
  keyfile: { key: thumbprint(counting(3)), algorithm: 'AES-256-GCM', wrapped: opaque(60), bindsContext: true },
  'google-symmetric': {
    ...{ key: GCP, algorithm: 'GOOGLE_SYMMETRIC_ENCRYPTION', version: '1' },
    ...{ wrapped: opaque(113), bindsContext: true },
  },
  'google-rsa': {
    ...{ key: GCP, algorithm: 'RSA_DECRYPT_OAEP_3072_SHA256', version: '2' },
    ...{ wrapped: opaque(384), bindsContext: false },
  },
  'aws-symmetric': {
    key: `awskms:///${ARN}`,
    algorithm: 'SYMMETRIC_DEFAULT',
    wrapped: opaque(184),
    bindsContext: true,
  },
  'aws-rsa': { key: `awskms:///${ARN}`, algorithm: 'RSAES_OAEP_SHA_256', wrapped: opaque(256), bindsContext: false },
  'azure-rsa': { key: AZURE, algorithm: 'RSA-OAEP-256', wrapped: opaque(256), bindsContext: false },
  'azure-gcm': { key: AZURE, algorithm: 'A256GCM', wrapped: opaque(60), bindsContext: true },
  'azure-kw': { key: AZURE, algorithm: 'A256KW', wrapped: opaque(40), bindsContext: false },
  'vault-aead': {
    ...{ key: 'hashivault://image', algorithm: 'transit-aead', version: '3' },
    ...{ wrapped: Buffer.from(`vault:v3:${base64(opaque(60))}`), bindsContext: true },
  },
  'vault-rsa': {
    ...{ key: 'hashivault://image?engine=team/transit', algorithm: 'transit-rsa-oaep', version: '3' },
    ...{ wrapped: Buffer.from(`vault:v3:${base64(opaque(256))}`), bindsContext: false },
  },
  'pkcs11-aes': { key: 'pkcs11:object=image;token=t', algorithm: 'AES-GCM', wrapped: opaque(60), bindsContext: true },
  'pkcs11-rsa': {
    ...{ key: 'pkcs11:object=image;token=t', algorithm: 'RSA-OAEP-SHA256' },
    ...{ wrapped: opaque(256), bindsContext: false },
  },
  age: { key: AGE.recipient, algorithm: 'X25519', wrapped: Buffer.from(AGE.wrapped, 'base64'), bindsContext: false },
};

/** Every vector by the name of its file. */
export function makeServiceVectors(): ReadonlyMap<string, ServiceVector> {
  const kinds = Object.entries(KINDS).flatMap(([name, kind]) => kindVectors(name, kind));
  return new Map([...kinds, ...packetsOfOthers()]);
}

type NamedVector = readonly [name: string, vector: ServiceVector];

function kindVectors(name: string, kind: Kind): readonly NamedVector[] {
  const labels = { env: 'prod' };
  const vector = (comment: string, sealing: Sealing): ServiceVector => {
    const { key, algorithm, version, wrapped } = kind;
    const wrapped_key = base64(wrapped);
    const entry: Entry = { algorithm, key, ...(version === undefined ? {} : { version }), wrapped_key };
    const service = {
      ...{ key, algorithm, ...(version === undefined ? {} : { version }), wrapped: wrapped_key },
      // The service has wrapped for the honest packet, whatever this one is.
      context: kind.bindsContext ? contextOf({ labels }) : null,
      plaintext: base64(DATA_KEY),
    };
    const packet = canonicalJson(sealMembers({ ...sealing, recipients: [entry] }));
    const isForged = sealing.optsdata !== undefined || sealing.labels === undefined;
    const released = { expect: 'ok', optsdata: base64(sealing.optsdata ?? OPTSDATA) } as const;
    const outcome = isForged && kind.bindsContext ? ({ expect: 'integrity' } as const) : released;
    return { comment, allow: key, ...(isForged ? {} : { labels }), packet, service, ...outcome };
  };
  const forged = kind.bindsContext
    ? 'refused, since the key binds the context'
    : 'opened, since the key binds no context';
  return [
    [`${name}-ok`, vector('a packet as it should be', { labels })],
    [`${name}-record`, vector(`another record beside the same wrapped key: ${forged}`, { labels, optsdata: SWAPPED })],
    [`${name}-labels`, vector(`the labels taken away: ${forged}`, {})],
  ];
}

function packetsOfOthers(): readonly NamedVector[] {
  const labels = { env: 'prod' };
  const context = labelledContext('coco-v2', labels);
  const wrapped = base64(opaque(340));
  const aws = { key: `awskms:///${ARN}`, algorithm: '', wrapped, plaintext: base64(OPTSDATA) };
  const coco = (encryption_context: Context) =>
    JSON.stringify({
      version: '0.1.0',
      kid: ARN,
      wrapped_data: wrapped,
      provider: 'aws',
      provider_settings: { region: 'eu-west-1' },
      annotations: { encryption_context },
    });
  const opened = { expect: 'ok', optsdata: base64(OPTSDATA) } as const;
  const dataKey = { ...aws, context: contextOf({ labels }), plaintext: base64(DATA_KEY) };
  return [
    [
      'coco-aws-ok',
      {
        comment: 'AWS KMS, with labels',
        allow: ARN,
        labels,
        packet: coco(context),
        service: { ...aws, context },
        ...opened,
      },
    ],
    [
      'coco-aws-others',
      {
        comment:
          'AWS KMS, as another program writes it: a bare key id, no context of ours, another case, unknown members',
        allow: ARN,
        packet: JSON.stringify({
          ...{ kid: ARN.replace(/^.*\//, ''), wrapped_data: wrapped, provider: 'AWS', wrap_type: '', iv: '' },
          ...{
            provider_settings: { region: 'evil.example' },
            annotations: { encryption_context: { a: '1' }, note: 1 },
          },
        }),
        service: { ...aws, key: `awskms:///${ARN.replace(/^.*\//, '')}`, context: { a: '1' } },
        ...opened,
      },
    ],
    [
      'coco-aws-labels',
      {
        ...{ comment: 'labels that are not those demanded', expect: 'not-allowed', allow: ARN, labels: { env: 'dev' } },
        ...{ packet: coco(context), service: { ...aws, context } },
      },
    ],
    [
      'coco-aws-changed',
      {
        ...{
          comment: 'labels that were changed in the packet',
          expect: 'integrity',
          allow: ARN,
          labels: { env: 'dev' },
        },
        ...{ packet: coco(labelledContext('coco-v2', { env: 'dev' })), service: { ...aws, context } },
      },
    ],
    [
      'coco-aws-data-key',
      {
        ...{ comment: 'the data key of a v2 packet in place of a record', expect: 'integrity', allow: ARN },
        ...{ packet: coco(contextOf({ labels })), service: dataKey },
      },
    ],
    [
      'aws-kms-ocicrypt-ok',
      {
        comment: 'hown3d’s provider, by the ARN',
        allow: ARN,
        packet: JSON.stringify({ key_url: ARN, wrapped_key: wrapped }),
        service: { ...aws, context: {} },
        ...opened,
      },
    ],
    [
      'aws-kms-ocicrypt-alias',
      {
        comment: 'hown3d’s provider, by an alias',
        allow: 'awskms:///alias/images',
        packet: JSON.stringify({ key_url: 'alias/images', wrapped_key: wrapped }),
        service: { ...aws, key: 'awskms:///alias/images', context: {} },
        ...opened,
      },
    ],
    [
      'v1-ok',
      {
        comment: 'the reference provider’s packet: no context at all',
        allow: GCP,
        packet: packetV1(GCP, opaque(250)),
        service: { key: GCP, algorithm: '', wrapped: base64(opaque(250)), context: {}, plaintext: base64(OPTSDATA) },
        ...opened,
      },
    ],
    [
      'coco-kbs-ok',
      {
        comment: 'a key of the broker: nonce, ciphertext and tag are one ciphertext here',
        allow: BROKER_KEY,
        packet: JSON.stringify({
          ...{ kid: BROKER_KEY, wrapped_data: base64(opaque(209)), iv: base64(counting(1, 12)), wrap_type: 'A256GCM' },
        }),
        service: {
          ...{ key: BROKER_KEY, algorithm: 'A256GCM', context: {}, plaintext: base64(OPTSDATA) },
          wrapped: base64(Buffer.concat([counting(1, 12), opaque(209)])),
        },
        ...opened,
      },
    ],
  ];
}
