// What is known to go wrong with containerd, as far as its configuration shows it.
// https://github.com/containerd/imgcrypt

import { readFileSync, statSync } from 'node:fs';
import type { Finding } from './doctor-finding.ts';

/** Looks at stream processors for encrypted layers; a machine without containerd has nothing to look at. */
export function findContainerdTraps(file: string): readonly Finding[] {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch {
    return [];
  }
  const tables = readTables(text);
  const processors = [...tables].filter(
    ([name, table]) => /stream_processors\./.test(name) && /\+encrypted/.test(table.get('accepts') ?? ''),
  );
  if (processors.length === 0) return [];
  const subject = 'containerd';
  return [
    ...processors.flatMap(([name, table]) => examineProcessor(name, table, tables)),
    ...(/^\s*use_local_image_pull\s*=\s*true\b/m.test(text)
      ? []
      : [
          {
            level: 'warn',
            subject,
            message: `${file} does not set use_local_image_pull: containerd 2.1 and later would call no provider`,
            hint: `add use_local_image_pull = true below [plugins."io.containerd.cri.v1.images"]`,
          } as const,
        ]),
  ];
}

function examineProcessor(name: string, table: Table, tables: ReadonlyMap<string, Table>): readonly Finding[] {
  const id = name.replace(/^.*stream_processors\./, '').replace(/^"|"$/g, '');
  const subject = `containerd ${id}`;
  const findings: Finding[] = [];
  const args = strings(table.get('args') ?? '');
  const keys = args[args.indexOf('--decryption-keys-path') + 1];
  if (args.includes('--decryption-keys-path') && (keys === undefined || !isDirectory(keys))) {
    findings.push({
      level: 'fail',
      subject,
      message: `--decryption-keys-path ${keys ?? ''} is not a directory: layers fail before any provider is called`,
      hint: `mkdir -p ${keys ?? '/etc/containerd/ocicrypt/keys'}`,
    });
  }
  if (/zstd/.test(table.get('accepts') ?? '') && !/\.tar(?:\.gzip)?$/.test(id)) {
    findings.push({
      level: 'fail',
      subject,
      message: 'its id ends in neither .tar nor .tar.gzip: it is given no parameters',
      hint: 'accept zstd layers in a processor whose id ends in .tar.gzip',
    });
  }
  const environment = strings(`${table.get('env') ?? ''} ${tables.get(`${name}.env`)?.get('env') ?? ''}`);
  const variable = environment.find((one) => one.startsWith('OCICRYPT_KEYPROVIDER_CONFIG='));
  const config = variable?.slice('OCICRYPT_KEYPROVIDER_CONFIG='.length);
  if (config === undefined) {
    findings.push({
      level: 'warn',
      subject,
      message: 'has no OCICRYPT_KEYPROVIDER_CONFIG of its own',
      hint: 'add env = ["OCICRYPT_KEYPROVIDER_CONFIG=/etc/containerd/ocicrypt.json"], or set it in the unit',
    });
  } else if (!isFile(config)) {
    const message = `OCICRYPT_KEYPROVIDER_CONFIG names ${config}, which is no file: no provider is called`;
    findings.push({ level: 'fail', subject, message, hint: `ocicrypt-kms config ocicrypt > ${config}` });
  }
  return findings.length > 0 ? findings : [{ level: 'ok', subject, message: 'is complete' }];
}

/** Values as they are written. */
type Table = ReadonlyMap<string, string>;

/** As much of TOML as containerd's file has: tables, and values that may go over several lines in brackets. */
function readTables(text: string): ReadonlyMap<string, Table> {
  const tables = new Map<string, Map<string, string>>();
  let table = new Map<string, string>();
  tables.set('', table);
  let key = '';
  for (const line of text.split(/\r?\n/)) {
    const bare = line.replace(/^\s+/, '');
    if (bare === '' || bare.startsWith('#')) continue;
    const open = key !== '' && !isClosed(table.get(key) ?? '');
    const header = /^\[([^[\]]+)\]/.exec(bare)?.[1];
    const pair = /^([A-Za-z0-9_.-]+|"[^"]*")\s*=\s*(.*)$/.exec(bare);
    if (open) table.set(key, `${table.get(key)} ${bare}`);
    else if (header !== undefined) {
      table = tables.get(header) ?? new Map<string, string>();
      tables.set(header, table);
      key = '';
    } else if (pair !== null) {
      key = pair[1] ?? '';
      table.set(key, pair[2] ?? '');
    }
  }
  return tables;
}

function isClosed(value: string): boolean {
  const bare = value.replace(/"[^"]*"|'[^']*'/g, '');
  return bare.split('[').length === bare.split(']').length;
}

/** The quoted texts in a value. */
function strings(value: string): readonly string[] {
  return [...value.matchAll(/"([^"]*)"|'([^']*)'/g)].map(([, double, single]) => double ?? single ?? '');
}

function isDirectory(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false;
}

function isFile(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isFile() ?? false;
}
