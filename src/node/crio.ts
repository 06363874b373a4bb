// What goes wrong with CRI-O: its directory of keys, its configuration, and a service that was not restarted.
// https://github.com/cri-o/cri-o/blob/main/docs/crio.conf.5.md

import { existsSync, lstatSync } from 'node:fs';
import { join } from 'node:path';
import { parse } from 'smol-toml';
import { namePath } from '../base/shown.ts';
import { table } from './containerd-config.ts';
import { CRIO_KEYS, CRIO_UNIT_FILE, PROVIDERS_FILE } from './drop-in.ts';
import { namesIn, readText } from './files.ts';
import type { Finding } from './finding.ts';
import { isNewer } from './processes.ts';
import type { Crio } from './runtimes.ts';

const SUBJECT = 'CRI-O';
const VARIABLE = 'OCICRYPT_KEYPROVIDER_CONFIG';
const MAIN = '/etc/crio/crio.conf';
const DROP_INS = '/etc/crio/crio.conf.d';

/** What was found, and the file of key providers that the running CRI-O was told of. */
export type CrioFindings = { readonly findings: readonly Finding[]; readonly providersFile: string | undefined };

/** @param root `/`, or where a test has its files */
export function examineCrio(crio: Crio, root = '/'): CrioFindings {
  const files = [MAIN, ...namesIn(join(root, DROP_INS)).map((name) => join(DROP_INS, name))].filter(
    (path) => readText(join(root, path)) !== undefined,
  );
  const { keys, findings } = readKeysPath(files, root);
  findings.push(...examineKeys(keys, root));
  const { running } = crio;
  if (running === undefined) {
    findings.push({
      level: 'warn',
      subject: SUBJECT,
      message: 'does not run: what it was told of cannot be seen',
      hint: `systemctl start ${crio.unit ?? 'crio'}`,
    });
    return { findings, providersFile: undefined };
  }
  const providersFile = running.environment?.[VARIABLE];
  const restart = `systemctl daemon-reload && systemctl restart ${crio.unit ?? 'crio'}`;
  if (running.environment !== undefined && providersFile === undefined) {
    const hint =
      readText(join(root, CRIO_UNIT_FILE)) === undefined
        ? 'ocicrypt-kms config crio-unit prints what its unit lacks'
        : restart;
    findings.push({
      level: 'fail',
      subject: SUBJECT,
      message: `was started without ${VARIABLE}: it asks no key provider`,
      hint,
    });
  }
  const changed = [...files, PROVIDERS_FILE].find((path) => isNewer(join(root, path), running));
  if (changed !== undefined && (changed !== PROVIDERS_FILE || providersFile === PROVIDERS_FILE))
    findings.push({
      level: 'warn',
      subject: SUBJECT,
      message: `was started before ${changed} was changed, and reads it at its start alone`,
      hint: restart,
      reason: 'restart-needed',
    });
  if (findings.length === 0) findings.push({ level: 'ok', subject: SUBJECT, message: 'is complete' });
  return { findings, providersFile };
}

function readKeysPath(files: readonly string[], root: string): { readonly keys: string; readonly findings: Finding[] } {
  let keys = CRIO_KEYS;
  const findings: Finding[] = [];
  for (const path of files) {
    try {
      const said = table(table(parse(readText(join(root, path)) ?? '').crio).runtime).decryption_keys_path;
      if (typeof said === 'string') keys = said;
    } catch {
      findings.push({
        level: 'fail',
        subject: SUBJECT,
        message: `${path} is not valid TOML: CRI-O does not start with it`,
        hint: 'correct it: crio config prints what it reads',
      });
    }
  }
  return { keys, findings };
}

/**
 * Every file in it must be a private key, or every pull fails, of images that are not encrypted too. CRI-O takes a file in
 * its place, and refuses a link there, for one of them. If nothing is there, CRI-O asks its providers all the same.
 */
function examineKeys(keys: string, root: string): readonly Finding[] {
  const place = join(root, keys);
  if (keys === '' || !existsSync(place)) return [];
  const isInside = lstatSync(place).isDirectory();
  const hint = isInside ? `move it out of ${keys}` : 'name a directory of private keys: decryption_keys_path';
  return (isInside ? filesBelow(place) : ['']).flatMap((name): readonly Finding[] => {
    const path = join(place, name);
    const isLink = lstatSync(path, { throwIfNoEntry: false })?.isSymbolicLink() === true;
    if (!isLink && /-----BEGIN [A-Z0-9 ]*PRIVATE KEY/.test(readText(path) ?? '')) return [];
    const message = `${namePath(join(keys, name))} is ${isLink ? 'a link' : 'no private key'}: every pull fails while it is there`;
    return [{ level: 'fail', subject: SUBJECT, message, hint }];
  });
}

const DEPTH = 5;

function filesBelow(directory: string, depth = DEPTH): readonly string[] {
  return namesIn(directory).flatMap((name) => {
    const path = join(directory, name);
    if (lstatSync(path, { throwIfNoEntry: false })?.isDirectory() !== true) return [name];
    return depth === 0 ? [] : filesBelow(path, depth - 1).map((one) => join(name, one));
  });
}
