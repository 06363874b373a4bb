// Who we are to AWS: the first credentials that are configured, in the order of AWS's SDK, kept until shortly before
// they end. What is configured is final: another source is not tried because one fails.
// https://docs.aws.amazon.com/sdkref/latest/guide/standardized-credentials.html

import { OcicryptError } from '../../base/errors.ts';
import type { HttpClient } from '../../base/http/contract.ts';
import { TokenCache } from '../token-cache.ts';
import { serviceEndpoint } from './endpoint.ts';
import { type AwsIdentity, type AwsSources, checkIdentity } from './identity.ts';
import { type AwsProfiles, readAwsProfiles } from './profiles.ts';

/** As long before their end as AWS's SDKs renew temporary credentials. */
const RESERVE_MILLISECONDS = 5 * 60 * 1000;

/**
 * Opens the credentials that AWS's SDK would find, in its order: AWS_ACCESS_KEY_ID (unless a profile is named), the
 * profile in the shared files (keys, assumed role, web identity, process, single sign-on, login), web identity of
 * AWS_WEB_IDENTITY_TOKEN_FILE (EKS), container endpoints (ECS, EKS Pod Identity), the instance's role (IMDSv2).
 *
 * Reading throws `unauthenticated` if there are none, `configuration`, `unavailable`, `deadline-exceeded`.
 *
 * @param region where STS is asked if nothing else says so
 */
export function openAwsCredentials(
  environment: NodeJS.ProcessEnv,
  http: HttpClient,
  region: string,
  now?: () => number,
): TokenCache<AwsIdentity> {
  return new TokenCache(async (signal) => {
    const token = readEnvironment(environment) ?? (await find(environment, http, region, signal));
    const end = token.expiration?.getTime() ?? Number.POSITIVE_INFINITY;
    return { token, lifetime: end - Date.now(), reserve: RESERVE_MILLISECONDS };
  }, now);
}

/** Undefined if a profile is named, which goes first as in the SDK, or there are none. */
function readEnvironment(environment: NodeJS.ProcessEnv, named?: string): AwsIdentity | undefined {
  const { AWS_PROFILE, AWS_DEFAULT_PROFILE, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN } = environment;
  if (named === undefined && (AWS_PROFILE || AWS_DEFAULT_PROFILE)) return undefined;
  const [accessKeyId, secretAccessKey, sessionToken] = [
    AWS_ACCESS_KEY_ID,
    AWS_SECRET_ACCESS_KEY,
    AWS_SESSION_TOKEN,
  ].map((value) => value?.trim() || undefined);
  if (accessKeyId === undefined && secretAccessKey === undefined) return undefined;
  if (accessKeyId === undefined || secretAccessKey === undefined) {
    const both = ['AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY'];
    const [set, unset] = accessKeyId === undefined ? both.toReversed() : both;
    throw new OcicryptError('configuration', `${set} is set and ${unset} is not`, { hint: 'set both, or neither' });
  }
  return checkIdentity('the environment', { accessKeyId, secretAccessKey, sessionToken });
}

async function find(
  environment: NodeJS.ProcessEnv,
  http: HttpClient,
  region: string,
  signal: AbortSignal,
): Promise<AwsIdentity> {
  const profiles = readAwsProfiles(environment);
  const sources = openSources(environment, profiles, http, region);
  const { readProfileCredentials } = await import('./profile-credentials.ts');
  const found = await readProfileCredentials(profiles, sources, signal);
  if (found !== undefined) return found;
  const { AWS_WEB_IDENTITY_TOKEN_FILE: tokenFile, AWS_ROLE_ARN: role, AWS_ROLE_SESSION_NAME: session } = environment;
  if (tokenFile) {
    if (role)
      return sources.webIdentity({ tokenFile, role, session: session || undefined, named: 'AWS_ROLE_ARN' }, signal);
    throw new OcicryptError('configuration', 'AWS_WEB_IDENTITY_TOKEN_FILE is set and AWS_ROLE_ARN is not', {
      hint: 'annotate the service account with eks.amazonaws.com/role-arn, or set AWS_ROLE_ARN',
    });
  }
  const { hasContainerCredentials } = await import('./metadata.ts');
  if (hasContainerCredentials(environment)) return sources.container(signal);
  if ((environment.AWS_EC2_METADATA_DISABLED ?? 'false').toLowerCase() !== 'false') {
    throw new OcicryptError('unauthenticated', 'there are no AWS credentials in the environment or in a profile', {
      hint: 'set AWS_PROFILE, or see which are found with: aws sts get-caller-identity; AWS_EC2_METADATA_DISABLED forbids those of an instance',
    });
  }
  return sources.instance(false, signal);
}

/** Each source by the file of its name, which nothing else loads. */
function openSources(
  environment: NodeJS.ProcessEnv,
  profiles: AwsProfiles,
  http: HttpClient,
  region: string,
): AwsSources {
  const place = (service: 'oidc' | 'portal.sso' | 'sts', where = region) =>
    serviceEndpoint(service, where, environment, profiles);
  return {
    environment(named) {
      const identity = readEnvironment(environment, named);
      if (identity !== undefined) return identity;
      throw new OcicryptError('configuration', `${named} takes its credentials from variables that are not set`, {
        hint: 'set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY',
      });
    },
    async assumeRole(role, source, signal) {
      const where = role.region ?? region;
      const { assumeRole } = await import('./sts.ts');
      return assumeRole(role, source, where, place('sts', where), http, signal);
    },
    async webIdentity(role, signal) {
      const { assumeRoleWithWebIdentity } = await import('./sts.ts');
      return assumeRoleWithWebIdentity(role, place('sts', role.region), http, signal);
    },
    async process(name, command, signal) {
      const { readProcessCredentials } = await import('./process.ts');
      return readProcessCredentials(name, command, signal);
    },
    async sso(sso, signal) {
      const { readSsoCredentials } = await import('./sso.ts');
      const endpoints = { portal: place('portal.sso', sso.region), oidc: place('oidc', sso.region) };
      return readSsoCredentials(sso, endpoints, environment, http, signal);
    },
    async login(profile, signal) {
      const { readLoginCredentials } = await import('./login.ts');
      const section = profiles.profile(profile);
      const session = section?.get('login_session') ?? '';
      return readLoginCredentials(profile, session, section?.get('region') ?? region, environment, http, signal);
    },
    async container(signal) {
      const { readContainerCredentials } = await import('./metadata.ts');
      return readContainerCredentials(environment, http, signal);
    },
    async instance(isExpected, signal) {
      const { readInstanceCredentials } = await import('./metadata.ts');
      return readInstanceCredentials(environment, profiles.profile(profiles.name), http, isExpected, signal);
    },
  };
}
