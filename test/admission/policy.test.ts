// Policy files: read whole, or refused in one line that names the file and the member.
import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { parse } from 'yaml';
import { POLICY_MEMBERS, parsePolicy, readPolicyFile } from '../../src/admission/policy-file.ts';
import { rejects, scratch } from '../image/harness.ts';

const KEY = 'gcpkms://projects/p/locations/l/keyRings/r/cryptoKeys/k';
const AGE = 'age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kudkdcqsqyg9w4x';

test('what a policy says, and what holds where it says nothing', async (t) => {
  const file = join(await scratch(t), 'policy.yaml');
  await writeFile(file, `rules: [{name: all, require: ['${KEY}'], only: ['gcpkms://projects/p/*']}]`);
  assert.deepEqual(await readPolicyFile(file), {
    rules: [
      {
        name: 'all',
        namespaces: undefined,
        namespaceLabels: {},
        podLabels: {},
        mode: 'enforce',
        demands: { require: [KEY], only: ['gcpkms://projects/p/*'], postQuantum: false },
        unwrap: false,
        unknown: 'deny',
        pin: 'possible',
        pullSecrets: false,
      },
    ],
    nodes: [],
    registries: undefined,
    fallback: 'deny',
  });
});

test('what is wrong, contradictory or of no effect is refused', async (t) => {
  const file = join(await scratch(t), 'policy.yaml');
  const refused = async (text: string, expected: RegExp) => {
    await writeFile(file, text);
    const error = await rejects('configuration', readPolicyFile(file));
    assert.match(error.message, expected, text);
    assert.match(error.message, /policy\.yaml/, text);
  };
  await refused('', /rules is missing/);
  await refused('rules: []', /rules must be a list that is not empty/);
  await refused('rules: {}', /rules must be a list/);
  await refused('rules: [{name: a', /is not valid YAML/);
  await refused('rules: [{name: a}]\nrules: [{name: b}]', /is not valid YAML/);
  await refused('rules: [x]', /rules\[0\] must hold members/);
  await refused('rule: [{name: a}]', /unknown member "rule"/);
  await refused('rules: [{name: a, requires: []}]', /unknown member "rules\[0\]\.requires"/);
  await refused('rules: [{}]', /rules\[0\]\.name must be a word/);
  await refused('rules: [{name: "a\\nb"}]', /rules\[0\]\.name must be a word/);
  await refused('rules: [{name: a, namespaces: [A_b]}]', /no namespace is called/);
  await refused('rules: [{name: a, namespaces: ["*"]}]', /no namespace is called/);
  await refused('rules: [{name: a, mode: off}]', /rules\[0\]\.mode must be one of enforce, warn, dry-run, exempt/);
  await refused('rules: [{name: a, pin: on}]', /rules\[0\]\.pin must be one of/);
  await refused('rules: [{name: a, unwrap: "true"}]', /rules\[0\]\.unwrap must be true or false/);
  await refused('rules: [{name: a, only: []}]', /rules\[0\]\.only must be a list that is not empty/);
  await refused('rules: [{name: a, only: [" x"]}]', /rules\[0\]\.only must be a list of texts/);
  await refused('rules: [{name: a, pod-labels: {x: true}}]', /a value for "x" that is no text/);
  await refused('rules: [{name: a, pod-labels: {}}]', /must hold names and texts/);
  await refused('rules: [{name: a, require: [nonsense]}]', /rules\[0\]\.require: /);
  await refused('rules: [{name: a, require: ["awskms:///alias/x"]}]', /cannot be compared/);
  await refused('rules: [{name: a, require: ["keyfile:///etc/key"]}]', /cannot be compared/);
  await refused(`rules: [{name: a, require: ['${KEY}'], only: ['${KEY}2']}]`, /which only leaves out/);
  await refused(`rules: [{name: a, require: ['${AGE}'], post-quantum: true}]`, /which is not post-quantum/);
  await refused(`rules: [{name: a, mode: exempt, require: ['${KEY}']}]`, /require has no effect/);
  await refused('rules: [{name: a, namespaces: [x]}, {name: a}]', /a is taken already/);
  await refused('rules: [{name: a}, {name: b, namespaces: [x]}]', /b is never reached/);
  await refused(
    'rules: [{name: a, namespaces: ["x*"]}, {name: b, namespaces: [xy], pod-labels: {p: q}}]',
    /b is never reached/,
  );
  await refused('{rules: [{name: a}], default: maybe}', /default must be one of deny, allow/);
  await refused('{rules: [{name: a}], registries: ["https://r.example"]}', /which is no registry/);
  for (const entry of ['index.docker.io', 'registry-1.docker.io/team', 'team', 'team/app', 'r.example/-'])
    await refused(`{rules: [{name: a}], registries: [${entry}]}`, /no image's name is read so/);
  await refused(
    '{rules: [{name: a}], nodes: [{runtime: docker}]}',
    /nodes\[0\]\.runtime must be one of containerd, cri-o/,
  );
  await refused('{rules: [{name: a}], nodes: [{labels: {a: b}}]}', /nodes\[0\]\.runtime is missing/);
  await refused(
    '{rules: [{name: a}], nodes: [{runtime: cri-o}, {runtime: containerd, labels: {a: b}}]}',
    /is for all nodes/,
  );
  await refused(
    '{rules: [{name: a}], nodes: [{runtime: cri-o, labels: {a: b}}, {runtime: containerd, labels: {a: b}}]}',
    /another runtime/,
  );
  await refused(`a: &a [1]\nrules: [*a]`, /is not valid YAML/);
});

test('rules that differ in one thing are both reached', async (t) => {
  const file = join(await scratch(t), 'policy.yaml');
  await writeFile(
    file,
    'rules: [{name: a, namespaces: [x], pod-labels: {p: q}}, {name: b, namespaces: [x]}, {name: c, namespaces: ["x*"]}, {name: d}]',
  );
  assert.equal((await readPolicyFile(file)).rules.length, 4);
});

test('the document has an example that is a policy, and tells of every member', async () => {
  const document = await readFile(new URL('../../docs/admission.md', import.meta.url), 'utf8');
  const blocks = [...document.matchAll(/```yaml\n(.*?)```/gs)].map(([, yaml = '']) => yaml);
  const [example = '', nodes = ''] = blocks.filter((yaml) => /^(?:rules|nodes):/.test(yaml));
  assert.equal((await parsePolicy(parse(example))).rules.length, 3);
  assert.equal((await parsePolicy({ ...parse(nodes), rules: [{ name: 'all' }] })).nodes.length, 2);
  const told = new Set([...document.matchAll(/^\| `([a-z-]+)` \|/gm)].map(([, name]) => name));
  for (const name of [...POLICY_MEMBERS.rule, 'default', 'nodes', 'registries']) assert.ok(told.has(name), name);
});
