// Which signatures podman, buildah and CRI-O read here: they decrypt no image that comes with one (docs/runtimes.md).
// containers-policy.json(5), containers-registries.d(5)

import { existsSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { asArray, asObject, asText, type JsonValue, parseJson } from '../../base/json.ts';
import { namesIn } from '../../node/files.ts';
import type { Finding } from '../../node/finding.ts';

const HINT =
  'check signatures elsewhere, or pull by skopeo copy --remove-signatures, which checks them first: docs/runtimes.md';
const MAXIMUM_FILE_BYTES = 1024 * 1024;

/**
 * Looks at the policy and at where signatures are to be found, in the first of the directories that has each.
 *
 * @param directories that hold `policy.json` and `registries.d`, the user's own before the machine's
 */
export function findSignatureTraps(directories: readonly string[]): readonly Finding[] {
  const policy = directories.map((directory) => join(directory, 'policy.json')).find((path) => existsSync(path));
  const registries = directories.map((directory) => join(directory, 'registries.d')).find((path) => existsSync(path));
  const findings: Finding[] = [];
  const scopes = policy === undefined ? [] : signedScopes(readFile(policy));
  if (policy !== undefined && scopes.length > 0) {
    const message = `demands signatures of images from ${scopes.join(', ')}: podman, buildah and CRI-O decrypt none of them`;
    findings.push({ level: 'warn', subject: policy, message, hint: HINT });
  }
  for (const path of registries === undefined ? [] : listFiles(registries)) {
    if (!/^\s*use-sigstore-attachments:\s*["']?true\b/im.test(new TextDecoder().decode(readFile(path)))) continue;
    const message = 'has signatures of cosign read: podman, buildah and CRI-O decrypt no image that has one';
    findings.push({ level: 'warn', subject: path, message, hint: HINT });
  }
  return findings;
}

/** The registries and repositories whose images a policy wants signed. */
function signedScopes(bytes: Uint8Array): readonly string[] {
  try {
    const policy = asObject(parseJson(bytes, 'policy.json'));
    const docker = asObject(asObject(policy?.get('transports'))?.get('docker'));
    const scopes = [...(docker ?? [])].map(
      ([scope, value]) => [scope === '' ? 'all registries' : scope, value] as const,
    );
    return [['registries without a rule of their own', policy?.get('default')] as const, ...scopes]
      .filter(([, requirements]) => asArray(requirements)?.some(demandsSignature) === true)
      .map(([scope]) => scope);
  } catch {
    return [];
  }
}

function demandsSignature(requirement: JsonValue): boolean {
  const type = asText(asObject(requirement)?.get('type'));
  return type === 'signedBy' || type === 'sigstoreSigned';
}

function listFiles(directory: string): readonly string[] {
  return namesIn(directory)
    .filter((name) => name.endsWith('.yaml'))
    .map((name) => join(directory, name));
}

/** Empty if there is nothing that could be read. */
function readFile(path: string): Uint8Array {
  try {
    return statSync(path).size > MAXIMUM_FILE_BYTES ? new Uint8Array() : readFileSync(path);
  } catch {
    return new Uint8Array();
  }
}
