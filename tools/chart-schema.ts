// What the chart takes: values.schema.json, strict, with the policy as the configuration file has it.

type Schema = { readonly [member: string]: unknown };

const text: Schema = { type: 'string' };
const truth: Schema = { type: 'boolean' };
const port: Schema = { type: 'integer', minimum: 1, maximum: 65535 };
const time: Schema = { type: 'string', pattern: '^[0-9]{1,6}(ms|s|m|h)$' };
/** What Kubernetes itself checks. */
const anything: Schema = { type: 'object' };
const texts: Schema = { type: 'array', items: text };
const things: Schema = { type: 'array', items: anything };
const pairs: Schema = { type: 'object', additionalProperties: text };
/** RFC 1123, as Kubernetes names Secrets. */
const secretNames: Schema = {
  type: 'array',
  uniqueItems: true,
  items: { type: 'string', pattern: '^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$' },
};
const object = (properties: Schema): Schema => ({ type: 'object', additionalProperties: false, properties });
const resources = object({ requests: anything, limits: anything, claims: { type: 'array' } });

const account = { annotations: pairs };

/** @param policy the schema of the configuration file */
export function chartSchema(policy: object): object {
  return {
    $schema: 'http://json-schema.org/draft-07/schema#',
    title: 'values of the chart ocicrypt-kms',
    ...object({
      global: anything,
      fullnameOverride: text,
      image: object({
        repository: { type: 'string', minLength: 1 },
        tag: text,
        digest: { type: 'string', pattern: '^(sha256:[0-9a-f]{64})?$' },
        pullPolicy: { enum: ['Always', 'IfNotPresent', 'Never'] },
      }),
      imagePullSecrets: things,
      policy,
      existingPolicy: text,
      secrets: secretNames,
      volumes: {
        type: 'array',
        items: {
          type: 'object',
          required: ['name'],
          properties: {
            name: {
              type: 'string',
              pattern: '^[a-z0-9]([a-z0-9-]*[a-z0-9])?$',
              // What the chart and the agent have of their own.
              not: { pattern: '^(policy|secrets|bin|lock|socket|secret-[0-9]+)$' },
            },
          },
        },
      },
      node: object({
        enabled: truth,
        directory: { type: 'string', pattern: '^(/[A-Za-z0-9_-][A-Za-z0-9._-]*)+$' },
        period: time,
        port,
        restrictToOwnNode: truth,
        maxUnavailable: { type: ['integer', 'string'] },
        nodeSelector: pairs,
        tolerations: things,
        affinity: anything,
        podAnnotations: pairs,
        resources,
        uninstall: object({ enabled: truth, deadlineSeconds: { type: 'integer', minimum: 1 } }),
      }),
      server: object({
        enabled: truth,
        port,
        serviceAccount: object({ ...account, name: text, automountToken: truth }),
        podLabels: pairs,
        podAnnotations: pairs,
        env: things,
        resources,
      }),
      admission: object({
        enabled: truth,
        replicas: { type: 'integer', minimum: 1 },
        port,
        policy: anything,
        pin: truth,
        failurePolicy: { enum: ['Fail', 'Ignore'] },
        timeoutSeconds: { type: 'integer', minimum: 1, maximum: 30 },
        exemptNamespaces: texts,
        namespaceExpressions: things,
        certificate: object({
          certManager: object({ enabled: truth, issuerRef: anything }),
          secretName: text,
          caBundle: text,
        }),
        clientCA: text,
        auditLog: object({ enabled: truth, volume: anything }),
        registrySecret: text,
        readPullSecrets: truth,
        readNamespaces: truth,
        args: texts,
        secrets: secretNames,
        serviceAccount: object(account),
        nodeSelector: pairs,
        tolerations: things,
        podAnnotations: pairs,
        resources,
      }),
      priorityClassName: text,
      priority: { type: 'integer', maximum: 1_000_000_000 },
      monitoring: object({
        labels: pairs,
        podMonitor: object({ enabled: truth, interval: time }),
        rules: object({ enabled: truth }),
        dashboard: object({ enabled: truth, labels: pairs }),
      }),
      networkPolicy: object({
        enabled: truth,
        apiServer: things,
        keyServices: things,
        registries: things,
        webhookFrom: things,
        metricsFrom: things,
      }),
    }),
  };
}
