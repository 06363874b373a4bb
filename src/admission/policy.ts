// What an admission policy says: which pods a rule is for, and what it asks of their images.

import type { VerifyOptions } from '../image/verify.ts';

export const MODES = ['enforce', 'warn', 'dry-run', 'exempt'] as const;
export const PINS = ['never', 'possible', 'required'] as const;
export const NODE_RUNTIMES = ['containerd', 'cri-o'] as const;
export type NodeRuntime = (typeof NODE_RUNTIMES)[number];

export type Labels = Readonly<Record<string, string>>;

/** What is asked of the images of some pods. */
export type Rule = {
  readonly name: string;
  /** Names, or beginnings of names that end in `*`; undefined for every namespace. */
  readonly namespaces: readonly string[] | undefined;
  /** A namespace, and a pod, that the rule is for has all of these. */
  readonly namespaceLabels: Labels;
  readonly podLabels: Labels;
  /** To refuse the pod, to warn its author, only to count and record it, or not to look at its images at all. */
  readonly mode: (typeof MODES)[number];
  readonly demands: Required<Pick<VerifyOptions, 'require' | 'only' | 'postQuantum'>>;
  /** Whether layer keys are really opened. */
  readonly unwrap: boolean;
  /** What becomes of an image of which nothing can be known. */
  readonly unknown: 'deny' | 'allow';
  /** Whether names are replaced by such as stand for what was judged, and whether other names are refused. */
  readonly pin: (typeof PINS)[number];
  /** Whether registries are shown the pull secrets that a pod names. */
  readonly pullSecrets: boolean;
};

/** Nodes with these labels, or all nodes if there are none, have this runtime. */
export type NodeRule = { readonly runtime: NodeRuntime; readonly labels: Labels };

export type AdmissionPolicy = {
  /** The first that is for a pod counts. */
  readonly rules: readonly Rule[];
  /** What becomes of pods that no rule is for. */
  readonly fallback: 'allow' | 'deny';
  /** Hosts, or beginnings of repositories, that images may be in; undefined if they may be anywhere. */
  readonly registries: readonly string[] | undefined;
  readonly nodes: readonly NodeRule[];
};

/** What of a pod rules are chosen by. */
export type PodIdentity = { readonly namespace: string; readonly labels: Labels };

/**
 * The rule for a pod.
 *
 * @param namespaceLabels asked for only if a rule depends on them
 * @throws what that throws: then it is not known which rule counts
 */
export async function findRule(
  { rules }: AdmissionPolicy,
  pod: PodIdentity,
  namespaceLabels: () => Promise<Labels>,
): Promise<Rule | undefined> {
  let known: Labels | undefined;
  for (const rule of rules) {
    if (!isInNamespace(rule, pod.namespace) || !hasLabels(pod.labels, rule.podLabels)) continue;
    if (Object.keys(rule.namespaceLabels).length > 0) {
      known ??= await namespaceLabels();
      if (!hasLabels(known, rule.namespaceLabels)) continue;
    }
    return rule;
  }
  return undefined;
}

/** Whether all of the wanted labels are there, with these values. */
function hasLabels(labels: Labels, wanted: Labels): boolean {
  return Object.entries(wanted).every(([name, value]) => Object.hasOwn(labels, name) && labels[name] === value);
}

/** Whether every pod that the other rule is for is one of this rule's. */
export function includes(rule: Rule, other: Rule): boolean {
  return (
    hasLabels(other.podLabels, rule.podLabels) &&
    hasLabels(other.namespaceLabels, rule.namespaceLabels) &&
    (rule.namespaces === undefined ||
      other.namespaces?.every((name) => rule.namespaces?.some((pattern) => covers(pattern, name))) === true)
  );
}

/** The runtime of all nodes that a pod may come to, if that is known. @param bound the labels that those nodes have */
export function runtimeOf({ nodes }: AdmissionPolicy, bound: Labels): NodeRuntime | undefined {
  const runtimes = new Set(nodes.filter(({ labels }) => hasLabels(bound, labels)).map(({ runtime }) => runtime));
  const [runtime] = runtimes;
  return runtimes.size === 1 ? runtime : undefined;
}

/** Whether images may be in this repository. */
export function isListed(registries: readonly string[], repository: string): boolean {
  return registries.some((entry) => repository === entry || repository.startsWith(`${entry}/`));
}

function isInNamespace({ namespaces }: Rule, namespace: string): boolean {
  return namespaces === undefined || namespaces.some((pattern) => covers(pattern, namespace));
}

/** @param name of a namespace, or another pattern */
function covers(pattern: string, name: string): boolean {
  return pattern.endsWith('*') ? name.startsWith(pattern.slice(0, -1)) : name === pattern;
}
