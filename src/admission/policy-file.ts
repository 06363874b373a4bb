// Reads a policy file whole, or says in one line what is wrong with it.

import { OcicryptError } from '../base/errors.ts';
import { asKeyUri } from '../base/key-uri.ts';
import { nearest } from '../base/nearest.ts';
import { printable, showPath, showValue } from '../base/shown.ts';
import { isRecord, readYamlFile, type UnknownRecord } from '../base/yaml-file.ts';
import { createRecipientMatcher } from '../image/verify.ts';
import { formatImageName, parseImageName } from './image-name.ts';
import {
  type AdmissionPolicy,
  includes,
  type Labels,
  MODES,
  NODE_RUNTIMES,
  type NodeRule,
  PINS,
  type Rule,
} from './policy.ts';

const MAXIMUM_FILE_BYTES = 1024 * 1024;

/** The members that a file may have, and what each of its rules and nodes may have; docs/admission.md. */
export const POLICY_MEMBERS = {
  policy: ['default', 'nodes', 'registries', 'rules'],
  rule: [
    ...['name', 'namespaces', 'namespace-labels', 'pod-labels', 'mode', 'require', 'only', 'post-quantum'],
    ...['unwrap', 'unknown', 'pin', 'pull-secrets'],
  ],
  node: ['runtime', 'labels'],
} as const;

/**
 * Reads a policy.
 *
 * @throws OcicryptError `configuration`, naming the file and the member: also for a policy that contradicts itself, or that
 * has a rule which no pod ever comes to
 */
export async function readPolicyFile(file: string): Promise<AdmissionPolicy> {
  const document = await readYamlFile(file, 'the policy', MAXIMUM_FILE_BYTES);
  try {
    return await parsePolicy(document);
  } catch (error) {
    throw error instanceof OcicryptError
      ? error.with({ code: 'configuration', before: `the policy file ${showPath(file)}: ` })
      : error;
  }
}

/** @throws OcicryptError `configuration` */
export async function parsePolicy(document: UnknownRecord): Promise<AdmissionPolicy> {
  await checkMembers(document, POLICY_MEMBERS.policy, '');
  const rules: Rule[] = [];
  const entries = list(document.rules, 'rules');
  if (entries === undefined) throw wrong('rules', 'is missing: without a rule no pod is judged');
  for (const [index, entry] of entries.entries()) rules.push(await parseRule(entry, `rules[${index}]`));
  checkOrder(rules);
  const nodes: NodeRule[] = [];
  for (const [index, entry] of (list(document.nodes, 'nodes') ?? []).entries())
    nodes.push(await parseNode(entry, `nodes[${index}]`));
  checkNodes(nodes);
  const registries = texts(document.registries, 'registries');
  const bad = registries?.find((entry) => !REPOSITORY.test(entry));
  if (bad !== undefined) {
    throw wrong('registries', `holds ${showValue(bad)}, which is no registry`, 'write HOST, HOST:PORT or HOST/NAME');
  }
  const idle = registries?.find((entry) => !isNamedSo(entry));
  if (idle !== undefined) {
    throw wrong(
      'registries',
      `holds ${showValue(idle)}, and no image's name is read so`,
      'write a host with a dot or a port; Docker Hub is docker.io',
    );
  }
  return { rules, nodes, registries, fallback: word(document.default, 'default', ['deny', 'allow']) ?? 'deny' };
}

/** Whether images have names that begin so, once they are read: the hosts of Docker Hub become one, and `app` is no host. */
function isNamedSo(entry: string): boolean {
  try {
    return formatImageName(parseImageName(`${entry}/x`)).startsWith(`${entry}/`);
  } catch {
    return false;
  }
}

const REPOSITORY = /^(?:[A-Za-z0-9.-]+|\[[0-9a-f:]+\])(?::\d{1,5})?(?:\/[a-z0-9._-]+)*$/;
/** RFC 1123, as Kubernetes has it. */
const NAMESPACE = /^(?:[a-z0-9][a-z0-9-]{0,61}[a-z0-9]?|[a-z0-9][a-z0-9-]{0,61}\*)$/;

async function parseRule(value: unknown, path: string): Promise<Rule> {
  if (!isRecord(value)) throw wrong(path, 'must hold members');
  await checkMembers(value, POLICY_MEMBERS.rule, `${path}.`);
  const at = (member: string) => `${path}.${member}`;
  const { name } = value;
  if (typeof name !== 'string' || !/^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/.test(name)) {
    throw wrong(
      at('name'),
      'must be a word of letters, digits, ".", "_" and "-"',
      'messages and metrics name the rule by it',
    );
  }
  const namespaces = texts(value.namespaces, at('namespaces'));
  const bad = namespaces?.find((one) => !NAMESPACE.test(one));
  if (bad !== undefined) throw wrong(at('namespaces'), `holds ${showValue(bad)}, which no namespace is called`);
  const rule: Rule = {
    name,
    namespaces,
    namespaceLabels: labels(value['namespace-labels'], at('namespace-labels')),
    podLabels: labels(value['pod-labels'], at('pod-labels')),
    mode: word(value.mode, at('mode'), MODES) ?? 'enforce',
    demands: {
      require: texts(value.require, at('require')) ?? [],
      only: texts(value.only, at('only')),
      postQuantum: truth(value['post-quantum'], at('post-quantum')),
    },
    unwrap: truth(value.unwrap, at('unwrap')),
    unknown: word(value.unknown, at('unknown'), ['deny', 'allow']) ?? 'deny',
    pin: word(value.pin, at('pin'), PINS) ?? 'possible',
    pullSecrets: truth(value['pull-secrets'], at('pull-secrets')),
  };
  checkDemands(rule, at);
  if (rule.mode === 'exempt') {
    const idle = POLICY_MEMBERS.rule.slice(5).find((member) => value[member] !== undefined);
    if (idle !== undefined)
      throw wrong(at(idle), 'has no effect: the rule exempts its pods', 'leave it or the mode out');
  }
  return rule;
}

/** Keys can be compared with packets, and some image can be as it is demanded. */
function checkDemands({ demands: { require, only, postQuantum } }: Rule, at: (member: string) => string): void {
  const matchers = new Map<string, ReturnType<typeof createRecipientMatcher>>();
  for (const [member, keys] of [
    ['require', require],
    ['only', only ?? []],
  ] as const) {
    for (const key of keys) {
      try {
        matchers.set(key, createRecipientMatcher(key));
      } catch (error) {
        throw error instanceof OcicryptError ? error.with({ code: 'configuration', before: `${at(member)}: ` }) : error;
      }
    }
  }
  for (const key of require) {
    if (key.endsWith('/*')) continue;
    if (postQuantum && asKeyUri(key)?.scheme === 'age' && !key.startsWith('age1pq1')) {
      throw wrong(at('require'), `holds ${key}, which is not post-quantum`, 'no image can be as this rule demands');
    }
    const recipient = { key, version: undefined, algorithm: undefined, postQuantum: false };
    if (only === undefined || only.some((other) => other === key || matchers.get(other)?.(recipient) === true))
      continue;
    throw wrong(at('require'), `holds ${key}, which only leaves out`, 'no image can be as this rule demands');
  }
}

/** A rule that comes after another one for the same pods never counts, and its author thinks that it does. */
function checkOrder(rules: readonly Rule[]): void {
  for (const [index, rule] of rules.entries()) {
    const before = rules.slice(0, index);
    if (before.some(({ name }) => name === rule.name))
      throw wrong(`rules[${index}].name`, `${rule.name} is taken already`);
    const other = before.find((one) => includes(one, rule));
    if (other === undefined) continue;
    throw wrong(
      `rules[${index}]`,
      `${rule.name} is never reached: all of its pods are those of ${other.name} before it`,
      'put the narrower rule first',
    );
  }
}

async function parseNode(value: unknown, path: string): Promise<NodeRule> {
  if (!isRecord(value)) throw wrong(path, 'must hold members');
  await checkMembers(value, POLICY_MEMBERS.node, `${path}.`);
  const runtime = word(value.runtime, `${path}.runtime`, NODE_RUNTIMES);
  if (runtime === undefined) throw wrong(`${path}.runtime`, 'is missing', `it is ${NODE_RUNTIMES.join(' or ')}`);
  return { runtime, labels: labels(value.labels, `${path}.labels`) };
}

function checkNodes(nodes: readonly NodeRule[]): void {
  const all = nodes.findIndex((node) => Object.keys(node.labels).length === 0);
  if (all >= 0 && nodes.length > 1) {
    throw wrong(
      `nodes[${all}]`,
      'has no labels, so it is for all nodes, and others are named beside it',
      'give it labels',
    );
  }
  for (const [index, node] of nodes.entries()) {
    const other = nodes.find((one) => one.runtime !== node.runtime && sameLabels(one.labels, node.labels));
    if (other !== undefined) throw wrong(`nodes[${index}]`, 'has the labels of nodes with another runtime');
  }
}

function sameLabels(ours: Labels, theirs: Labels): boolean {
  const [one, other] = [ours, theirs].map((labels) => JSON.stringify(Object.entries(labels).sort()));
  return one === other;
}

async function checkMembers(value: UnknownRecord, known: readonly string[], before: string): Promise<void> {
  for (const name of Object.keys(value)) {
    if (known.includes(name)) continue;
    const near = await nearest(name, known);
    const hint = near === undefined ? `known are ${known.join(', ')}` : `did you mean ${near}?`;
    throw new OcicryptError('configuration', `unknown member ${showValue(`${before}${name}`)}`, { hint });
  }
}

function list(value: unknown, path: string): readonly unknown[] | undefined {
  if (value === undefined) return undefined;
  if (Array.isArray(value) && value.length > 0) return value;
  throw wrong(path, 'must be a list that is not empty', 'leave the member out if there is nothing to say');
}

function texts(value: unknown, path: string): readonly string[] | undefined {
  return list(value, path)?.map((item) => {
    if (typeof item === 'string' && item.trim() === item && item !== '' && printable(item) === item) return item;
    throw wrong(path, 'must be a list of texts, without blanks around them');
  });
}

function word<Word extends string>(value: unknown, path: string, choices: readonly Word[]): Word | undefined {
  if (value === undefined) return undefined;
  const found = choices.find((choice) => choice === value);
  if (found !== undefined) return found;
  const shown = typeof value === 'string' ? `, not ${showValue(value)}` : '';
  throw wrong(path, `must be one of ${choices.join(', ')}${shown}`);
}

function truth(value: unknown, path: string): boolean {
  if (value === undefined || typeof value === 'boolean') return value === true;
  throw wrong(path, 'must be true or false');
}

function labels(value: unknown, path: string): Labels {
  if (value === undefined) return {};
  if (!isRecord(value) || Object.keys(value).length === 0) throw wrong(path, 'must hold names and texts');
  const entries = Object.entries(value).map(([name, text]): [string, string] => {
    if (typeof text === 'string') return [name, text];
    throw wrong(path, `has a value for ${showValue(name)} that is no text`, 'put it in quotes');
  });
  return Object.fromEntries(entries);
}

function wrong(path: string, problem: string, hint?: string): OcicryptError {
  return new OcicryptError('configuration', `${path} ${problem}`, { hint });
}
