// Where AWS KMS answers for a key: its region, and the address there. Only the operator and the ARN decide.

import { parseAwsArn } from '../base/aws-arn.ts';
import { readEndpoint } from '../base/endpoint.ts';
import { OcicryptError } from '../base/errors.ts';
import type { KeyUri } from '../base/key-uri.ts';

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
 * profile. The endpoint is the key URI's own, else the operator's, else AWS_ENDPOINT_URL_KMS or AWS_ENDPOINT_URL, else
 * the region's, which AWS_USE_FIPS_ENDPOINT and AWS_USE_DUALSTACK_ENDPOINT choose.
 *
 * @throws OcicryptError `configuration`
 */
export async function findAwsPlace(uri: AwsKeyUri, settings: AwsPlaceSettings): Promise<AwsPlace> {
  const arn = parseAwsArn(uri.key);
  const region = arn?.region ?? settings.region ?? (await findRegion(settings.environment));
  if (region === undefined || !REGION.test(region)) {
    throw new OcicryptError('configuration', `no AWS region is known for key ${uri.key}`, {
      hint: 'name the key by its ARN, or set AWS_REGION',
    });
  }
  const partition = PARTITIONS.find(({ regions }) => regions.test(region));
  if (partition === undefined || (arn !== undefined && arn.partition !== partition.id)) {
    throw new OcicryptError('configuration', `the region of ${uri.key} is not in its partition`, {
      hint: 'compare with: aws kms describe-key',
    });
  }
  return { endpoint: findEndpoint(uri, settings) ?? regionalEndpoint(region, partition, settings.environment), region };
}

function findEndpoint(uri: AwsKeyUri, { endpoint, environment }: AwsPlaceSettings): string | undefined {
  if (uri.endpoint !== undefined) return `https://${uri.endpoint}`;
  if (endpoint !== undefined) return readEndpoint(endpoint, '--aws-endpoint');
  if (isTrue(environment.AWS_IGNORE_CONFIGURED_ENDPOINT_URLS)) return undefined;
  for (const name of ['AWS_ENDPOINT_URL_KMS', 'AWS_ENDPOINT_URL']) {
    const named = environment[name];
    if (named) return readEndpoint(named, name);
  }
  return undefined;
}

function regionalEndpoint(region: string, partition: Partition, environment: NodeJS.ProcessEnv): string {
  const service = isTrue(environment.AWS_USE_FIPS_ENDPOINT) ? 'kms-fips' : 'kms';
  const suffix = isTrue(environment.AWS_USE_DUALSTACK_ENDPOINT) ? partition.dualStack : partition.suffix;
  return `https://${service}.${region}.${suffix}`;
}

async function findRegion(environment: NodeJS.ProcessEnv): Promise<string | undefined> {
  const named = environment.AWS_REGION || environment.AWS_DEFAULT_REGION;
  if (named) return named;
  const { loadSharedConfigFiles } = await import('@smithy/core/config');
  const { configFile, credentialsFile } = await loadSharedConfigFiles(sharedFiles(environment));
  const profile = environment.AWS_PROFILE || 'default';
  return credentialsFile[profile]?.region ?? configFile[profile]?.region;
}

/** Where AWS's tools keep profiles, read anew each time because they are renewed. */
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

function isTrue(value: string | undefined): boolean {
  return value?.toLowerCase() === 'true';
}
