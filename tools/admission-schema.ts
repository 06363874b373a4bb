// The admission policy as JSON Schema: docs/admission.schema.json.

import { MODES, NODE_RUNTIMES, PINS } from '../src/admission/policy.ts';
import type { POLICY_MEMBERS } from '../src/admission/policy-file.ts';

type Schema = { readonly [member: string]: unknown };
type Members<Of extends keyof typeof POLICY_MEMBERS> = {
  readonly [name in (typeof POLICY_MEMBERS)[Of][number]]: Schema;
};

const texts = { type: 'array', minItems: 1, items: { type: 'string', minLength: 1 } };
const labels = { type: 'object', minProperties: 1, additionalProperties: { type: 'string' } };
const truth = { type: 'boolean', default: false };
const oneOf = (words: readonly string[], usual: string) => ({ enum: [...words], default: usual });
const closed = (properties: Schema, required: readonly string[]) => ({
  type: 'object',
  additionalProperties: false,
  required,
  properties,
});

/** Exhaustive by type: a member that the policy has does not compile until it is here. */
const RULE: Members<'rule'> = {
  name: { type: 'string', pattern: '^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$', description: 'in messages and audit' },
  namespaces: { ...texts, description: 'names, or beginnings of names that end in *' },
  'namespace-labels': { ...labels, description: 'that the namespace has' },
  'pod-labels': { ...labels, description: 'that the pod has; its author writes them' },
  mode: { ...oneOf(MODES, 'enforce'), description: 'what becomes of a pod whose images are not as they must be' },
  require: { ...texts, description: 'keys that every layer must be encrypted to' },
  only: { ...texts, description: 'no recipient but these (KEY or PREFIX/*) may be able to open a layer' },
  'post-quantum': { ...truth, description: 'whether every recipient must resist quantum computers' },
  unwrap: { ...truth, description: 'whether layer keys are really opened' },
  unknown: {
    ...oneOf(['deny', 'allow'], 'deny'),
    description: 'what becomes of a pod if nothing can be known of an image',
  },
  pin: { ...oneOf(PINS, 'possible'), description: 'whether names are replaced by such as stand for one image' },
  'pull-secrets': { ...truth, description: 'whether registries are shown the pull secrets of the pod' },
};

const NODE: Members<'node'> = {
  runtime: { enum: [...NODE_RUNTIMES] },
  labels: { ...labels, description: 'that these nodes have; without them it is all nodes' },
};

const POLICY: Members<'policy'> = {
  default: { ...oneOf(['deny', 'allow'], 'deny'), description: 'what becomes of pods that no rule is for' },
  nodes: { type: 'array', minItems: 1, items: closed(NODE, ['runtime']) },
  registries: { ...texts, description: 'HOST, HOST:PORT or HOST/NAME: the only places where images may be' },
  rules: {
    type: 'array',
    minItems: 1,
    items: closed(RULE, ['name']),
    description: 'the first that is for a pod counts',
  },
};

/** The file and its content. */
export function admissionSchema(): readonly [string, string] {
  const schema = {
    $schema: 'https://json-schema.org/draft/2020-12/schema',
    title: 'ocicrypt-kms admission policy',
    ...closed(POLICY, ['rules']),
  };
  return ['docs/admission.schema.json', `${JSON.stringify(schema, null, 2)}\n`];
}
