// Reads the configuration of AWS's tools: ~/.aws/config and ~/.aws/credentials.
// https://docs.aws.amazon.com/sdkref/latest/guide/file-format.html

import { readFileSync, statSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { OcicryptError, showSystemCode, systemCode } from '../../base/errors.ts';
import { isSecret } from '../../base/shown.ts';

/** The settings of one section, by their names in lower case; those below another as `kms.endpoint_url`. */
export type AwsSection = ReadonlyMap<string, string>;

export type AwsProfiles = {
  /** The profile in use: AWS_PROFILE, else AWS_DEFAULT_PROFILE, else `default`. */
  readonly name: string;
  /** Whether one of the variables names it. */
  readonly isNamed: boolean;
  readonly names: readonly string[];
  /** What both files say of a profile; the credentials file has the last word. */
  profile(name: string): AwsSection | undefined;
  /** `[sso-session NAME]`, `[services NAME]`. */
  section(kind: 'services' | 'sso-session', name: string): AwsSection | undefined;
};

/** Longer than any that people keep. */
const MAXIMUM_FILE_BYTES = 1024 * 1024;

/**
 * Reads both files; one that is missing is empty, as for every tool of AWS's.
 *
 * @throws OcicryptError `configuration` for a file that is there and cannot be read
 */
export function readAwsProfiles(environment: NodeJS.ProcessEnv): AwsProfiles {
  const { AWS_CONFIG_FILE: configFile, AWS_SHARED_CREDENTIALS_FILE: credentialsFile } = environment;
  const config = parse(readFile(environment, 'config', 'AWS_CONFIG_FILE', configFile));
  const credentials = parse(readFile(environment, 'credentials', 'AWS_SHARED_CREDENTIALS_FILE', credentialsFile));
  const profiles = new Map<string, Map<string, string>>();
  const add = (name: string, section: AwsSection) => {
    profiles.set(name, new Map([...(profiles.get(name) ?? []), ...section]));
  };
  for (const [title, section] of config) {
    const name = title === 'default' ? title : /^profile (.+)$/.exec(title)?.[1];
    if (name !== undefined) add(name, section);
  }
  for (const [title, section] of credentials) add(title, section);
  const named = environment.AWS_PROFILE || environment.AWS_DEFAULT_PROFILE;
  if (named && isSecret(named)) {
    throw new OcicryptError('configuration', 'AWS_PROFILE is not the name of a profile: it may hold a secret', {
      hint: 'see the profiles that there are with: aws configure list-profiles',
    });
  }
  return {
    name: named || 'default',
    isNamed: Boolean(named),
    names: [...profiles.keys()],
    profile: (name) => profiles.get(name),
    section: (kind, name) => config.get(`${kind} ${name}`),
  };
}

/**
 * A switch of a profile or a variable; undefined if it says nothing. As for the SDKs, a demand for FIPS that is misspelt
 * is none that may vanish.
 *
 * @throws OcicryptError `configuration` for another word
 */
export function asSwitch(text: string | undefined, name: string): boolean | undefined {
  const lower = text?.trim().toLowerCase() ?? '';
  if (lower === '') return undefined;
  if (lower === 'true' || lower === 'false') return lower === 'true';
  throw new OcicryptError('configuration', `${name} takes true or false`, {
    hint: 'write one of the two, or leave it out',
  });
}

/** A path as the files and variables of AWS's tools have it. */
export function expandHome(path: string, environment: NodeJS.ProcessEnv): string {
  return path.startsWith('~/') ? join(homeOf(environment), path.slice(2)) : path;
}

/** Where `.aws` is. */
export function homeOf(environment: NodeJS.ProcessEnv): string {
  return environment.HOME || homedir();
}

/** Where the files are, for code of AWS's own. */
export function sharedFiles(environment: NodeJS.ProcessEnv): {
  readonly filepath?: string;
  readonly configFilepath?: string;
  readonly ignoreCache: true;
} {
  const { AWS_SHARED_CREDENTIALS_FILE: credentials, AWS_CONFIG_FILE: config } = environment;
  return {
    ...(credentials ? { filepath: credentials } : {}),
    ...(config ? { configFilepath: config } : {}),
    ignoreCache: true,
  };
}

function readFile(environment: NodeJS.ProcessEnv, name: string, variable: string, named: string | undefined): string {
  const shown = named ? `the file of ${variable}` : `~/.aws/${name}`;
  const path = named ? expandHome(named, environment) : join(homeOf(environment), '.aws', name);
  try {
    const status = statSync(path);
    // /dev/null is how people say that there is none; a pipe could keep us waiting.
    if (status.isCharacterDevice()) return '';
    if (!status.isFile() || status.size > MAXIMUM_FILE_BYTES) {
      throw new OcicryptError('configuration', `${shown} is not a file of AWS's tools`, {
        hint: `it must be a regular file; ${variable} names another one`,
      });
    }
    return readFileSync(path, 'utf8');
  } catch (cause) {
    if (cause instanceof OcicryptError) throw cause;
    if (['ENOENT', 'ENOTDIR'].includes(systemCode(cause) ?? '')) return '';
    throw new OcicryptError('configuration', `cannot read ${shown}${showSystemCode(cause)}`, {
      cause,
      hint: 'let this user read it, or name another one',
    });
  }
}

/** Sections by their titles, quotes removed: `profile x`, `sso-session x`, `services x`, `default`, or a bare name. */
function parse(text: string): ReadonlyMap<string, AwsSection> {
  const sections = new Map<string, Map<string, string>>();
  let section: Map<string, string> | undefined;
  let above = '';
  for (const line of text.replace(/^\uFEFF/, '').split(/\r?\n/)) {
    const content = (line.split(/(?:^|\s)[;#]/)[0] ?? '').trim();
    const title = /^\[(.*)\]$/.exec(content)?.[1];
    if (title !== undefined) {
      const name = title
        .trim()
        .replace(/\s+/, ' ')
        .replace(/(['"])(.*)\1$/, '$2');
      section = sections.get(name) ?? new Map<string, string>();
      sections.set(name, section);
      above = '';
      continue;
    }
    const equals = content.indexOf('=');
    if (equals < 1) continue;
    const name = content.slice(0, equals).trim().toLowerCase();
    const value = content.slice(equals + 1).trim();
    if (!/^\s/.test(line)) above = value === '' ? `${name}.` : '';
    if (value !== '') section?.set(`${above}${name}`, value);
  }
  return sections;
}
