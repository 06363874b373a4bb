// Where AWS KMS is asked: regions, partitions, FIPS, dual-stack, endpoints of the operator's.
import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { parseKeyUri } from '../../../src/base/key-uri.ts';
import { type AwsPlaceSettings, findAwsPlace } from '../../../src/kms/awskms/endpoint.ts';
import { readAwsProfiles } from '../../../src/kms/awskms/profiles.ts';

const ID = '1234abcd-12ab-34cd-56ef-1234567890ab';
const arnOf = (partition: string, region: string) => `arn:${partition}:kms:${region}:111122223333:key/${ID}`;

async function place(key: string, environment: NodeJS.ProcessEnv = {}, more: Partial<AwsPlaceSettings> = {}) {
  const uri = parseKeyUri(key);
  assert.ok(uri.scheme === 'awskms');
  const { endpoint, region } = findAwsPlace(uri, { environment, ...more }, readAwsProfiles(environment));
  return `${endpoint} ${region}`;
}

describe('the place of an AWS key', () => {
  for (const [partition, region, plain, dualStack] of [
    ['aws', 'eu-west-1', 'amazonaws.com', 'api.aws'],
    ['aws', 'ap-southeast-5', 'amazonaws.com', 'api.aws'],
    ['aws-cn', 'cn-north-1', 'amazonaws.com.cn', 'api.amazonwebservices.com.cn'],
    ['aws-us-gov', 'us-gov-west-1', 'amazonaws.com', 'api.aws'],
    ['aws-eusc', 'eusc-de-east-1', 'amazonaws.eu', 'api.amazonwebservices.eu'],
    ['aws-iso', 'us-iso-east-1', 'c2s.ic.gov', 'api.aws.ic.gov'],
    ['aws-iso-b', 'us-isob-east-1', 'sc2s.sgov.gov', 'api.aws.scloud'],
    ['aws-iso-e', 'eu-isoe-west-1', 'cloud.adc-e.uk', 'api.cloud-aws.adc-e.uk'],
    ['aws-iso-f', 'us-isof-south-1', 'csp.hci.ic.gov', 'api.aws.hci.ic.gov'],
  ] as const) {
    test(`in ${region} is of ${partition}`, async () => {
      const arn = arnOf(partition, region);
      const [fips, dual] = [{ AWS_USE_FIPS_ENDPOINT: 'true' }, { AWS_USE_DUALSTACK_ENDPOINT: 'TRUE' }];
      assert.equal(await place(arn), `https://kms.${region}.${plain} ${region}`);
      assert.equal(await place(arn, fips), `https://kms-fips.${region}.${plain} ${region}`);
      assert.equal(await place(arn, dual), `https://kms.${region}.${dualStack} ${region}`);
      assert.equal(await place(arn, { ...fips, ...dual }), `https://kms-fips.${region}.${dualStack} ${region}`);
    });
  }

  test('is nowhere where region and partition differ, or there is no such region', async () => {
    for (const [partition, region] of [
      ['aws-cn', 'eu-west-1'],
      ['aws', 'cn-north-1'],
      ['aws', 'us-gov-west-1'],
      ['aws', 'nowhere'],
    ] as const) {
      await assert.rejects(place(arnOf(partition, region)), { code: 'configuration' });
    }
    for (const region of ['evil.test', 'eu-west-1.evil.test', 'eu-west-1/', '']) {
      await assert.rejects(place(`awskms:///${ID}`, {}, { region }), { code: 'configuration' });
    }
  });

  test('is what the operator says: in the URI, by an option, by a variable', async () => {
    const arn = arnOf('aws', 'eu-west-1');
    const variables = { AWS_ENDPOINT_URL_KMS: 'https://kms.test', AWS_ENDPOINT_URL: 'https://all.test/' };
    const option = { endpoint: 'option.test:8443' };
    assert.equal(await place(`awskms://uri.test:9/${arn}`, variables, option), 'https://uri.test:9 eu-west-1');
    assert.equal(await place(arn, variables, option), 'https://option.test:8443 eu-west-1');
    assert.equal(await place(arn, variables), 'https://kms.test eu-west-1');
    assert.equal(await place(arn, { ...variables, AWS_ENDPOINT_URL_KMS: '' }), 'https://all.test eu-west-1');
    const ignored = { ...variables, AWS_IGNORE_CONFIGURED_ENDPOINT_URLS: 'true' };
    assert.equal(await place(arn, ignored), 'https://kms.eu-west-1.amazonaws.com eu-west-1');
    assert.equal(await place(arn, ignored, option), 'https://option.test:8443 eu-west-1');
  });

  test('of a bare id is in the region of the option, a variable, or the profile', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'aws-endpoint-'));
    const file = join(directory, 'config');
    await writeFile(file, '[default]\nregion = eu-west-2\n[profile other]\nregion = eu-west-3\n');
    const files = { AWS_CONFIG_FILE: file, AWS_SHARED_CREDENTIALS_FILE: join(directory, 'none') };
    const at = (region: string) => `https://kms.${region}.amazonaws.com ${region}`;
    for (const key of [`awskms:///${ID}`, 'awskms:///alias/x']) {
      assert.equal(await place(key, { ...files, AWS_REGION: 'us-east-1' }, { region: 'us-west-2' }), at('us-west-2'));
      assert.equal(await place(key, { ...files, AWS_REGION: 'us-east-1' }), at('us-east-1'));
      assert.equal(await place(key, { ...files, AWS_DEFAULT_REGION: 'us-east-2' }), at('us-east-2'));
      assert.equal(await place(key, files), at('eu-west-2'));
      assert.equal(await place(key, { ...files, AWS_PROFILE: 'other' }), at('eu-west-3'));
      await assert.rejects(place(key, { ...files, AWS_PROFILE: 'nobody' }), { code: 'configuration' });
    }
    await rm(directory, { recursive: true });
  });

  test('is what the profile says: endpoints, services, FIPS and dual stack, each after its variable', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'aws-endpoint-'));
    const file = join(directory, 'config');
    await writeFile(
      file,
      `[profile all]
endpoint_url = https://all.test
[profile one]
endpoint_url = https://all.test
services = private
[services private]
s3 =
  endpoint_url = https://s3.test
kms =
  endpoint_url = https://kms.test/
[profile ignored]
services = private
ignore_configured_endpoint_urls = true
[profile fips]
use_fips_endpoint = true
use_dualstack_endpoint = TRUE
`,
    );
    const arn = arnOf('aws', 'eu-west-1');
    const at = (AWS_PROFILE: string, more: NodeJS.ProcessEnv = {}) =>
      place(arn, { AWS_CONFIG_FILE: file, AWS_SHARED_CREDENTIALS_FILE: '/dev/null', AWS_PROFILE, ...more });
    const regional = 'https://kms.eu-west-1.amazonaws.com eu-west-1';
    assert.equal(await at('all'), 'https://all.test eu-west-1');
    assert.equal(await at('one'), 'https://kms.test eu-west-1');
    assert.equal(await at('one', { AWS_ENDPOINT_URL: 'https://variable.test' }), 'https://variable.test eu-west-1');
    assert.equal(await at('one', { AWS_IGNORE_CONFIGURED_ENDPOINT_URLS: 'true' }), regional);
    assert.equal(await at('ignored'), regional);
    assert.equal(await at('ignored', { AWS_IGNORE_CONFIGURED_ENDPOINT_URLS: 'false' }), 'https://kms.test eu-west-1');
    assert.equal(await at('fips'), 'https://kms-fips.eu-west-1.api.aws eu-west-1');
    const off = { AWS_USE_FIPS_ENDPOINT: 'false', AWS_USE_DUALSTACK_ENDPOINT: 'false' };
    assert.equal(await at('fips', off), regional);
    for (const name of ['AWS_IGNORE_CONFIGURED_ENDPOINT_URLS', 'AWS_USE_FIPS_ENDPOINT', 'AWS_USE_DUALSTACK_ENDPOINT']) {
      await assert.rejects(at('ignored', { AWS_IGNORE_CONFIGURED_ENDPOINT_URLS: 'true', [name]: 'yes' }), {
        code: 'configuration',
        message: `${name} takes true or false`,
      });
    }
    await rm(directory, { recursive: true });
  });
});
