// The credentials that a profile of AWS's tools names: keys, a role to assume, a token file, a program, single sign-on.
// https://docs.aws.amazon.com/sdkref/latest/guide/standardized-credentials.html

import { OcicryptError } from '../../base/errors.ts';
import { type AwsIdentity, type AwsSources, checkIdentity } from './identity.ts';
import type { AwsProfiles, AwsSection } from './profiles.ts';

/**
 * The credentials of the profile in use, or undefined if no file has such a profile or it names none. What it names
 * is final: credentials are chosen by what is configured, never by what fails.
 *
 * @throws OcicryptError `configuration` for a profile that is missing or cannot be followed; what its source says
 */
export async function readProfileCredentials(
  profiles: AwsProfiles,
  sources: AwsSources,
  signal: AbortSignal,
): Promise<AwsIdentity | undefined> {
  const section = profiles.profile(profiles.name);
  if (section === undefined && profiles.isNamed) throw await noProfile(profiles.name, profiles, 'AWS_PROFILE names');
  return section === undefined ? undefined : follow(profiles.name, section, [], { profiles, sources, signal });
}

type Way = { readonly profiles: AwsProfiles; readonly sources: AwsSources; readonly signal: AbortSignal };

/** @param visited the profiles on the way here; one that has keys of its own may name itself as its source */
async function follow(
  name: string,
  section: AwsSection,
  visited: readonly string[],
  way: Way,
): Promise<AwsIdentity | undefined> {
  const keys = readKeys(name, section);
  if (visited.includes(name)) {
    if (keys !== undefined) return keys;
    throw invalid(name, 'is its own source', 'end the circle of source_profile with a profile that has credentials');
  }
  if (visited.length > 0 && keys !== undefined) return keys;
  const role = section.get('role_arn');
  if (role !== undefined && !section.has('web_identity_token_file')) return assume(name, section, role, visited, way);
  if (keys !== undefined) return keys;
  const { sources, signal } = way;
  const tokenFile = section.get('web_identity_token_file');
  if (tokenFile !== undefined) {
    if (role === undefined) throw invalid(name, 'has web_identity_token_file and no role_arn', 'add role_arn');
    const session = readSession(name, section);
    return sources.webIdentity(
      { tokenFile, role, session, named: `profile ${name}`, region: section.get('region') },
      signal,
    );
  }
  const process = section.get('credential_process');
  if (process !== undefined) return sources.process(`the credential_process of profile ${name}`, process, signal);
  if (section.has('sso_session') || section.has('sso_start_url')) return readSso(name, section, way);
  return section.has('login_session') ? sources.login(name, signal) : undefined;
}

function readKeys(name: string, section: AwsSection): AwsIdentity | undefined {
  const [id, secret] = [section.get('aws_access_key_id'), section.get('aws_secret_access_key')];
  if (id === undefined && secret === undefined) return undefined;
  const missing = id === undefined ? 'aws_access_key_id' : 'aws_secret_access_key';
  if (id === undefined || secret === undefined)
    throw invalid(name, `lacks ${missing}`, `add ${missing}, or remove the other`);
  return checkIdentity(`profile ${name}`, {
    accessKeyId: id,
    secretAccessKey: secret,
    sessionToken: section.get('aws_session_token'),
  });
}

async function assume(
  name: string,
  section: AwsSection,
  role: string,
  visited: readonly string[],
  way: Way,
): Promise<AwsIdentity> {
  if (section.has('mfa_serial')) {
    throw invalid(
      name,
      'asks for the code of an MFA device, which cannot be entered here',
      'use a profile of single sign-on, or let credential_process give a session that was opened before',
    );
  }
  const seconds = section.get('duration_seconds') ?? '3600';
  if (!/^\d{3,5}$/.test(seconds)) throw invalid(name, 'has a duration_seconds that is no number', 'write 900 to 43200');
  const session = readSession(name, section);
  const source = await findSource(name, section, visited, way);
  const { sources, signal } = way;
  return sources.assumeRole(
    {
      role,
      session,
      seconds,
      externalId: section.get('external_id'),
      named: `profile ${name}`,
      region: section.get('region'),
    },
    source,
    signal,
  );
}

/** Who assumes the role. */
async function findSource(
  name: string,
  section: AwsSection,
  visited: readonly string[],
  way: Way,
): Promise<AwsIdentity> {
  const { profiles, sources, signal } = way;
  const [profile, source] = [section.get('source_profile'), section.get('credential_source')];
  if ((profile === undefined) === (source === undefined)) {
    throw invalid(
      name,
      profile === undefined ? 'has role_arn and nothing to assume it with' : 'has source_profile and credential_source',
      'give it one of source_profile and credential_source',
    );
  }
  switch (source) {
    case undefined:
      break;
    case 'Environment':
      return sources.environment(`profile ${name}`);
    case 'Ec2InstanceMetadata':
      return sources.instance(true, signal);
    case 'EcsContainer':
      return sources.container(signal);
    default:
      throw invalid(
        name,
        'has a credential_source that is not known',
        'it may be Environment, Ec2InstanceMetadata or EcsContainer',
      );
  }
  const next = profiles.profile(profile ?? '');
  if (next === undefined) throw await noProfile(profile ?? '', profiles, `source_profile of profile ${name} names`);
  const found = await follow(profile ?? '', next, [...visited, name], way);
  if (found !== undefined) return found;
  throw invalid(
    profile ?? '',
    `has no credentials, and profile ${name} takes them from there`,
    'see: aws configure list-profiles',
  );
}

async function readSso(name: string, section: AwsSection, { profiles, sources, signal }: Way): Promise<AwsIdentity> {
  const session = section.get('sso_session');
  const shared = session === undefined ? section : profiles.section('sso-session', session);
  if (shared === undefined) {
    throw invalid(name, `names sso_session ${session}, which is in no file`, 'see: aws configure sso-session');
  }
  const read = (from: AwsSection, member: string): string => {
    const value = from.get(member);
    if (value !== undefined) return value;
    throw invalid(name, `lacks ${member}`, `complete it with: aws configure sso --profile ${name}`);
  };
  return sources.sso(
    {
      profile: name,
      session,
      startUrl: read(shared, 'sso_start_url'),
      region: read(shared, 'sso_region'),
      account: read(section, 'sso_account_id'),
      role: read(section, 'sso_role_name'),
    },
    signal,
  );
}

/** https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html */
const SESSION = /^[\w+=,.@-]{2,64}$/;

function readSession(name: string, section: AwsSection): string | undefined {
  const session = section.get('role_session_name');
  if (session === undefined || SESSION.test(session)) return session;
  throw invalid(
    name,
    'has a role_session_name that AWS does not take',
    'it has 2 to 64 letters, digits and characters of _+=,.@- and no blank',
  );
}

function invalid(profile: string, fault: string, hint: string): OcicryptError {
  return new OcicryptError('configuration', `the AWS profile ${profile} ${fault}`, { hint });
}

async function noProfile(name: string, { names }: AwsProfiles, who: string): Promise<OcicryptError> {
  const { closest, distance } = await import('fastest-levenshtein');
  const near = names.length === 0 ? '' : closest(name, names);
  const isNear = near !== '' && distance(name, near) <= Math.max(2, name.length / 3);
  return new OcicryptError('configuration', `${who} ${name}, and there is no such AWS profile`, {
    hint: isNear ? `did you mean ${near}?` : 'see those that there are with: aws configure list-profiles',
  });
}
