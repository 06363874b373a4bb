// What `--json` of each command prints, as JSON Schema: docs/schema, one file a command.

import { ERROR_STATUS } from '../src/base/errors.ts';
import { PACKET_FORMATS } from '../src/image/model/packets.ts';
import { NAME_KINDS, RUNTIMES } from '../src/image/runtimes.ts';
import { VERIFY_CODES } from '../src/image/verify-reason.ts';
import { FINDING_LEVELS } from '../src/node/finding.ts';

type Schema = { readonly [member: string]: unknown };
/** A member of an object; one that is not always there is marked. */
type Member = Schema & { readonly isOptional?: true };

const text = (description: string): Schema => ({ type: 'string', description });
const truth = (description: string): Schema => ({ type: 'boolean', description });
const whole = (description: string): Schema => ({ type: 'integer', minimum: 0, description });
const list = (items: Schema, description: string): Schema => ({ type: 'array', items, description });
const oneOf = (words: readonly string[], description: string): Schema => ({ enum: [...words], description });
const optional = (schema: Schema): Member => ({ ...schema, isOptional: true });

/** Members are added in later versions, so that others than these are permitted. */
function object(members: Readonly<Record<string, Member>>, description?: string): Schema {
  const entries = Object.entries(members);
  return {
    type: 'object',
    ...(description === undefined ? {} : { description }),
    properties: Object.fromEntries(entries.map(([name, { isOptional, ...schema }]) => [name, schema])),
    required: entries.filter(([, { isOptional }]) => isOptional !== true).map(([name]) => name),
  };
}

const digest = (description: string): Schema => ({ ...text(description), pattern: '^[a-z0-9]+(?:[.+_-][a-z0-9]+)*:' });
const mediaType = text('media type, as the manifest or index says it');
const platform = text('os/architecture[/variant], or unknown');
const code = oneOf(Object.keys(ERROR_STATUS), 'an error code, as in docs/errors.md');

const failure = {
  code,
  message: text('what went wrong, for people'),
  hint: optional(text('what to do next, for people')),
};

const packet = object(
  {
    scheme: text('under whose name it stands: provider.NAME, jwe, pgp or pkcs7'),
    format: oneOf(PACKET_FORMATS, 'what kind of packet it is'),
    recipients: list(
      object({
        key: optional(text('URI of the key, if the packet names it')),
        version: optional(text('version of the key')),
        algorithm: optional(text('by which the layer key was wrapped')),
        postQuantum: truth('whether recording the image today gives a quantum computer of the future nothing'),
      }),
      'who can open it alone, as it claims',
    ),
    labels: {
      type: 'object',
      description: 'what it is bound to (--context)',
      additionalProperties: { type: 'string' },
    },
    problem: optional(text('why it cannot be read')),
  },
  'a wrapped layer key',
);

const digestTag = optional(text('the name with the digest tag; with --digest-tag in a registry only'));
const referrers = {
  referrers: list(text('digest or tag'), 'signatures and the like that refer to the previous digests alone'),
  referrersComplete: truth('whether the source has told of all of them'),
};

const written = {
  digest: digest('of the new manifest or index'),
  mediaType,
  previousDigest: digest('of the source'),
  images: list(
    object({ platform, digest: digest('of the new manifest'), layers: whole('how many layers were changed') }),
    'the images that were changed',
  ),
};

const layer = object({
  digest: digest('of the layer as it is stored'),
  size: whole('in bytes'),
  mediaType,
  encrypted: truth('whether the media type says so'),
  cipher: optional(text('by which it is encrypted')),
  keys: list(packet, 'the wrapped keys of the layer'),
  shortcut: optional(text('the annotation by which clients skip the content of the layer')),
  problem: optional(text('why the annotations make no sense')),
});

const report = {
  name: text('of the image, as it was given'),
  digest: digest('of its manifest or index'),
  mediaType,
  platforms: list(
    object({ platform, digest: digest('of the manifest'), layers: list(layer, 'in their order') }),
    'the images',
  ),
  attachments: list(
    object({ digest: digest('of the manifest'), artifactType: text('what it is') }),
    'what lies beside the images, not encrypted: attestations',
  ),
  unknown: list(
    object({ digest: text('as the index says it'), mediaType }),
    'entries of an index that were not read, and that some clients run',
  ),
  absent: list(object({ digest: digest('of the manifest'), platform }), 'entries of an index that were not copied'),
};

const runtimeName = {
  name: text('of the image, as runtimes take it'),
  kind: oneOf(NAME_KINDS, 'what the name says'),
  runtimes: list(oneOf(RUNTIMES, 'a runtime'), 'those that decrypt the image by this name'),
  refusing: list(oneOf(RUNTIMES, 'a runtime'), 'those that do not'),
};

const probe = object({
  key: text('URI of the key'),
  backend: text('scheme of the URI'),
  ok: truth('whether the key wrapped and unwrapped'),
  phases: list(
    object({
      phase: oneOf(['open', 'wrap', 'unwrap'], 'what was done'),
      milliseconds: { type: 'number', minimum: 0, description: 'how long it took' },
    }),
    'what was done, in order; the last one failed if ok is false',
  ),
  wrapped: optional(
    object(
      {
        key: text('URI by which packets know the key'),
        algorithm: text('by which it wraps'),
        version: optional(text('of the key that wrapped')),
      },
      'what the key service said of the key',
    ),
  ),
  wrapsOnly: optional({ const: true, description: 'an entry with this URI allows wrapping only' }),
  error: optional(object(failure, 'why it failed')),
});

const imageProbe = object({
  image: text('name of the image, as it was given'),
  named: optional(object(runtimeName, 'what becomes of it under this name; for images in registries')),
  ok: truth('whether every group of layers was opened by some key'),
  groups: list(
    object({
      layers: list(object({ platform, index: whole('of the layer') }), 'layers with the same recipients'),
      recipients: list(packet, 'their wrapped keys; none if they are plain'),
      openedBy: list(text('who'), 'whose keys opened a layer of the group'),
      refusals: list(object({ by: text('who'), ...failure }), 'who could not, and why'),
    }),
    'layers by who can open them',
  ),
  error: optional(object(failure, 'why it failed')),
});

const finding = object({
  level: oneOf(FINDING_LEVELS, 'fail for what cannot work, warn for what may be intended'),
  subject: text('the variable, provider, runtime or file that was looked at'),
  message: text('what was found, as the rest of a sentence about the subject'),
  hint: optional(text('what to do next, for people')),
  reason: optional(
    oneOf(['restart-needed'], 'why, where programs decide by it: a service has not read what is on disk'),
  ),
});

/** By command. Every command with the option --json is here, and a test says so. */
const OUTPUTS: Readonly<Record<string, Schema>> = {
  encrypt: object({
    ...written,
    ...referrers,
    leftPlain: list(digest('of a layer'), 'plain layers that are still at the destination, which nothing there names'),
    foreign: list(digest('of a layer'), 'foreign layers, which stay plain'),
    digestTag,
  }),
  decrypt: object(written),
  rewrap: object({
    digest: digest('of the new manifest or index'),
    mediaType,
    previousDigest: digest('of the image before'),
    ...referrers,
    written: truth('whether anything was written: not with --dry-run'),
    layers: list(
      object({
        digest: digest('of the layer'),
        before: list(packet, 'its wrapped keys before'),
        after: list(packet, 'and now'),
      }),
      'every encrypted layer of the selected platforms',
    ),
    digestTag,
  }),
  inspect: object(report),
  verify: object({
    ok: truth('whether the image is as it should be'),
    reasons: list(
      object({
        code: oneOf(VERIFY_CODES, 'what is not as it should be; new codes come, so treat an unknown one as a failure'),
        message: text('the same, for people'),
      }),
      'why not, in the order of the image',
    ),
    proven: truth('whether keys were really used'),
    notProved: list(oneOf(['keys', 'content'], 'a claim'), 'what stays a claim'),
    digestTag: optional(oneOf(['missing', 'moved', 'ok'], 'what the digest tag is; with --digest-tag only')),
    report: object(report, 'what inspect prints of the image'),
    inClear: list(text('a part'), 'what of the image anybody can read'),
    deploy: list(
      object(runtimeName),
      'names that stand for this image alone; for images in registries that are as they should be',
    ),
  }),
  keygen: object({
    uri: text('to encrypt to, keyfile:///PATH'),
    key: text('by which packets know the key, keyfile:sha256:…'),
  }),
  doctor: object({
    keys: list(probe, 'the keys that were tried'),
    images: list(imageProbe, 'the images that were tried'),
    setup: list(finding, 'what was found in the set-up of clients and of this command'),
  }),
  node: object({ node: list(finding, 'what was found on the node') }),
  version: object({
    version: text('of the product'),
    runtime: text('node or bun, and its version'),
    target: text('platform: OS-ARCH, as linux-x64-musl'),
    commit: optional(text('that was built')),
    date: optional(text('of the commit')),
  }),
};

/** The files of docs/schema, by their paths. */
export function outputSchemas(): ReadonlyMap<string, string> {
  return new Map(
    Object.entries(OUTPUTS).map(([command, schema]) => [
      `docs/schema/${command}.schema.json`,
      `${JSON.stringify(
        {
          $schema: 'https://json-schema.org/draft/2020-12/schema',
          title: `what ocicrypt-kms ${command} --json prints`,
          ...schema,
        },
        null,
        2,
      )}\n`,
    ]),
  );
}
