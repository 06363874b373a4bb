// Obtains what reads charts: Helm 3 and 4, kustomize, kubeconform, and schemas of every kind of object that the chart has.
import { execFile } from 'node:child_process';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { parse } from 'yaml';
import { fetchGo, fetchGoPrograms, fetchGoSources } from './fetched.ts';

/** The Kubernetes that the chart is checked for, and what else brings kinds of its own. */
const KUBERNETES = 'k8s.io/kubernetes@v1.34.4';
const CERT_MANAGER = 'github.com/cert-manager/cert-manager@v1.18.2';
const PROMETHEUS_OPERATOR = 'github.com/prometheus-operator/prometheus-operator@v0.82.0';

const HELMS = { 3: 'helm.sh/helm/v3@v3.22.0', 4: 'helm.sh/helm/v4@v4.3.1' } as const;

/** Helm. It has no version of Kubernetes to render for: name one with `--kube-version`. */
export async function fetchHelm(major: keyof typeof HELMS): Promise<string> {
  return join(await fetchGoPrograms({ module: HELMS[major], programs: ['cmd/helm'] }), 'helm');
}

export function fetchKustomize(): Promise<string> {
  return fetchGo('sigs.k8s.io/kustomize/kustomize/v5@v5.7.1');
}

export async function fetchKubeconform(): Promise<string> {
  const directory = await fetchGoPrograms({
    module: 'github.com/yannh/kubeconform@v0.8.0',
    programs: ['cmd/kubeconform'],
  });
  return join(directory, 'kubeconform');
}

const run = promisify(execFile);
const CHART = fileURLToPath(new URL('../../deploy/helm/ocicrypt-kms', import.meta.url));

/** The chart rendered for the base of kustomize: agents alone, and a policy that the overlay brings. */
export async function renderBase(): Promise<string> {
  const values = ['existingPolicy=ocicrypt-kms-policy', 'node.uninstall.enabled=false'];
  const words = ['template', 'ocicrypt-kms', CHART, '--namespace=ocicrypt-kms', `--set=${values.join()}`];
  const { stdout } = await run(await fetchHelm(3), [...words, '--kube-version=1.34.0']);
  return `# Made by npm run docs kustomize from deploy/helm.\n${stdout}`;
}

type Schema = { readonly [member: string]: unknown };
type Kind = { readonly group: string; readonly version: string; readonly kind: string };

/**
 * Writes a schema of every kind into a directory, under the names that kubeconform looks for: strict, so that a member which
 * no version of the object has is a fault.
 */
export async function writeKubernetesSchemas(directory: string, kinds: readonly string[]): Promise<void> {
  await mkdir(directory, { recursive: true });
  const swagger = join(await fetchGoSources(KUBERNETES), 'api/openapi-spec/swagger.json');
  const { definitions }: { definitions: Record<string, Schema> } = JSON.parse(await readFile(swagger, 'utf8'));
  const strict = Object.fromEntries(Object.entries(definitions).map(([name, one]) => [name, strictly(name, one)]));
  for (const [name, one] of Object.entries(definitions)) {
    const [kind] = asKinds(one['x-kubernetes-group-version-kind']);
    if (kind === undefined || !kinds.includes(kind.kind)) continue;
    const schema = { $ref: `#/definitions/${name}`, definitions: strict };
    await writeFile(join(directory, schemaName(kind)), JSON.stringify(schema));
  }
  const resources = [
    ...['certificates', 'issuers'].map((name) => [CERT_MANAGER, `deploy/crds/crd-${name}.yaml`] as const),
    ...['podmonitors', 'prometheusrules'].map(
      (name) => [PROMETHEUS_OPERATOR, `example/prometheus-operator-crd/monitoring.coreos.com_${name}.yaml`] as const,
    ),
  ];
  for (const [module, file] of resources) {
    const { spec } = parse(await readFile(join(await fetchGoSources(module), file), 'utf8'));
    for (const { name: version, schema } of spec.versions) {
      const kind = { group: spec.group, version, kind: spec.names.kind };
      await writeFile(join(directory, schemaName(kind)), JSON.stringify(closed(schema.openAPIV3Schema, true)));
    }
  }
}

function schemaName({ group, version, kind }: Kind): string {
  const [first = ''] = group.split('.');
  return `${[kind, first, version]
    .filter((word) => word !== '')
    .join('-')
    .toLowerCase()}.json`;
}

function asKinds(value: unknown): readonly Kind[] {
  return Array.isArray(value) ? value : [];
}

/** What Kubernetes says of these in words alone. */
const SPECIAL: Readonly<Record<string, Schema>> = {
  'io.k8s.apimachinery.pkg.util.intstr.IntOrString': { type: ['integer', 'string'] },
  'io.k8s.apimachinery.pkg.api.resource.Quantity': { type: ['number', 'string'] },
};

function strictly(name: string, schema: Schema): Schema {
  return SPECIAL[name] ?? ('properties' in schema ? { ...schema, additionalProperties: false } : schema);
}

/** The same of a definition of others, whose schemas are in one piece. */
function closed(schema: unknown, isRoot = false): unknown {
  if (Array.isArray(schema)) return schema.map((one) => closed(one));
  if (typeof schema !== 'object' || schema === null) return schema;
  const members = Object.fromEntries(Object.entries(schema).map(([name, value]) => [name, closed(value)]));
  if ('x-kubernetes-int-or-string' in members) return { type: ['integer', 'string'] };
  const isObject = 'properties' in members && members.type === 'object';
  // Every object has metadata, which such a definition does not describe.
  const isOpen = isRoot || 'x-kubernetes-preserve-unknown-fields' in members || 'additionalProperties' in members;
  return isObject && !isOpen ? { ...members, additionalProperties: false } : members;
}
