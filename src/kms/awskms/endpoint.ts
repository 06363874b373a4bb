// Where AWS KMS answers for a key: its region, and the address there. Only the operator and the ARN decide.

import { readEndpoint } from '../../base/address.ts';
import { parseAwsArn } from '../../base/aws-arn.ts';
import { OcicryptError } from '../../base/errors.ts';
import type { KeyUri } from '../../base/key-uri.ts';
import { setting } from '../../base/setting.ts';
import { type AwsProfiles, asSwitch } from './profiles.ts';

/** What the operator says about the place. */
export type AwsPlaceSettings = {
  /** `https://HOST[:PORT]`, for every key that does not name an endpoint itself. */
  readonly endpoint?: string | undefined;
  /** The region of keys that are named without one. */
  readonly region?: string | undefined;
  /** Where AWS_REGION, AWS_ENDPOINT_URL_KMS, AWS_USE_FIPS_ENDPOINT and their kin are read. */
  readonly environment: NodeJS.ProcessEnv;
};

/** `endpoint` is where requests go, `region` what they are signed for. */
export type AwsPlace = { readonly endpoint: string; readonly region: string };

type AwsKeyUri = Extract<KeyUri, { scheme: 'awskms' }>;

type Partition = { readonly id: string; readonly regions: RegExp; readonly suffix: string; readonly dualStack: string };

/** The partitions and their domains as the SDK of version 3.1164.0 has them. */
const PARTITIONS: readonly Partition[] = [
  { id: 'aws-cn', regions: /^cn-/, suffix: 'amazonaws.com.cn', dualStack: 'api.amazonwebservices.com.cn' },
  { id: 'aws-us-gov', regions: /^us-gov-/, suffix: 'amazonaws.com', dualStack: 'api.aws' },
  { id: 'aws-eusc', regions: /^eusc-/, suffix: 'amazonaws.eu', dualStack: 'api.amazonwebservices.eu' },
  { id: 'aws-iso', regions: /^us-iso-/, suffix: 'c2s.ic.gov', dualStack: 'api.aws.ic.gov' },
  { id: 'aws-iso-b', regions: /^us-isob-/, suffix: 'sc2s.sgov.gov', dualStack: 'api.aws.scloud' },
  { id: 'aws-iso-e', regions: /^eu-isoe-/, suffix: 'cloud.adc-e.uk', dualStack: 'api.cloud-aws.adc-e.uk' },
  { id: 'aws-iso-f', regions: /^us-isof-/, suffix: 'csp.hci.ic.gov', dualStack: 'api.aws.hci.ic.gov' },
  { id: 'aws', regions: /^[a-z]{2}-/, suffix: 'amazonaws.com', dualStack: 'api.aws' },
];

const REGION = /^[a-z]{2,4}(?:-[a-z]{1,12}){1,3}-\d{1,2}$/;

/**
 * The region is the ARN's; a bare id or alias takes the operator's, else AWS_REGION, AWS_DEFAULT_REGION or that of the
 * profile. The endpoint is the key URI's own, else the operator's, else as {@link serviceEndpoint} finds it.
 *
 * @throws OcicryptError `configuration`
 */
export function findAwsPlace(uri: AwsKeyUri, settings: AwsPlaceSettings, profiles: AwsProfiles): AwsPlace {
  const { environment } = settings;
  const arn = parseAwsArn(uri.key);
  const region = arn?.region ?? settings.region ?? findRegion(environment, profiles);
  if (region === undefined || !REGION.test(region)) {
    throw new OcicryptError('configuration', `no AWS region is known for key ${uri.key}`, {
      hint: 'name the key by its ARN, or set AWS_REGION',
    });
  }
  const partition = findPartition(region);
  if (partition === undefined || (arn !== undefined && arn.partition !== partition.id)) {
    throw new OcicryptError('configuration', `the region of ${uri.key} is not in its partition`, {
      hint: 'compare with: aws kms describe-key',
    });
  }
  if (uri.endpoint !== undefined) return { endpoint: `https://${uri.endpoint}`, region };
  if (settings.endpoint !== undefined)
    return { endpoint: readEndpoint(settings.endpoint, setting('awskms.endpoint')), region };
  return { endpoint: serviceEndpoint('kms', region, environment, profiles), region };
}

/** Services of AWS that we ask: what their variable and their section are called, and their host. */
const SERVICES = {
  kms: { variable: 'AWS_ENDPOINT_URL_KMS', section: 'kms', govCloudFips: 'kms-fips' },
  sts: { variable: 'AWS_ENDPOINT_URL_STS', section: 'sts', govCloudFips: 'sts' },
  'portal.sso': { variable: 'AWS_ENDPOINT_URL_SSO', section: 'sso', govCloudFips: 'portal.sso' },
  oidc: { variable: 'AWS_ENDPOINT_URL_SSO_OIDC', section: 'sso_oidc', govCloudFips: 'oidc' },
} as const;

/**
 * Where a service is: AWS_ENDPOINT_URL_SERVICE, AWS_ENDPOINT_URL, the `services` section that the profile names, the
 * profile's `endpoint_url`; else the region's own endpoint, which AWS_USE_FIPS_ENDPOINT and AWS_USE_DUALSTACK_ENDPOINT,
 * or the profile's settings of that name, choose. In each pair the variable goes first.
 * https://docs.aws.amazon.com/sdkref/latest/guide/feature-ss-endpoints.html
 *
 * @throws OcicryptError `configuration` for an address that is none, or a region of no partition
 */
export function serviceEndpoint(
  service: keyof typeof SERVICES,
  region: string,
  environment: NodeJS.ProcessEnv,
  profiles: AwsProfiles,
): string {
  const profile = profiles.profile(profiles.name);
  const choose = (variable: string, name: string) =>
    asSwitch(environment[variable], variable) ??
    asSwitch(profile?.get(name), `${name} of profile ${profiles.name}`) ??
    false;
  const { variable, section, govCloudFips } = SERVICES[service];
  if (!choose('AWS_IGNORE_CONFIGURED_ENDPOINT_URLS', 'ignore_configured_endpoint_urls')) {
    const services = profile?.get('services');
    const candidates = [
      [variable, environment[variable]],
      ['AWS_ENDPOINT_URL', environment.AWS_ENDPOINT_URL],
      [`services ${services}`, services && profiles.section('services', services)?.get(`${section}.endpoint_url`)],
      [`endpoint_url of profile ${profiles.name}`, profile?.get('endpoint_url')],
    ] as const;
    for (const [where, url] of candidates) if (url) return readEndpoint(url, where);
  }
  const partition = findPartition(region);
  if (partition === undefined || !REGION.test(region)) {
    throw new OcicryptError('configuration', `there is no AWS region ${region.slice(0, 40)}`, {
      hint: 'see region of the profile and AWS_REGION',
    });
  }
  const isFips = choose('AWS_USE_FIPS_ENDPOINT', 'use_fips_endpoint');
  const isDualStack = choose('AWS_USE_DUALSTACK_ENDPOINT', 'use_dualstack_endpoint');
  const host = !isFips ? service : partition.id === 'aws-us-gov' ? govCloudFips : `${service}-fips`;
  return `https://${host}.${region}.${isDualStack ? partition.dualStack : partition.suffix}`;
}

function findPartition(region: string): Partition | undefined {
  return PARTITIONS.find(({ regions }) => regions.test(region));
}

function findRegion(environment: NodeJS.ProcessEnv, profiles: AwsProfiles): string | undefined {
  return environment.AWS_REGION || environment.AWS_DEFAULT_REGION || profiles.profile(profiles.name)?.get('region');
}
