// AWS KMS as moto plays it: the conformance suite against somebody else's idea of the service. Started by
// `npm run test:emulators`, which says in MOTO_URL where moto is.
import assert from 'node:assert/strict';
import { parseKeyUri } from '../../src/base/key-uri.ts';
import { openAwsKms } from '../../src/kms/awskms.ts';
import { describeKek } from '../kms/kek-conformance.ts';

const endpoint = process.env.MOTO_URL ?? '';
const environment = { AWS_ACCESS_KEY_ID: 'AKIAEXAMPLE', AWS_SECRET_ACCESS_KEY: 'secret-of-nobody' };

async function call(operation: string, message: object): Promise<string> {
  const scope = 'Credential=AKIAEXAMPLE/20260101/eu-west-1/kms/aws4_request';
  const response = await fetch(endpoint, {
    method: 'POST',
    headers: {
      'content-type': 'application/x-amz-json-1.1',
      'x-amz-target': `TrentService.${operation}`,
      authorization: `AWS4-HMAC-SHA256 ${scope}, SignedHeaders=host, Signature=0`,
    },
    body: JSON.stringify(message),
  });
  const text = await response.text();
  assert.ok(response.ok, text);
  return text;
}

async function createKey(): Promise<string> {
  return JSON.parse(await call('CreateKey', {})).KeyMetadata.Arn;
}

function open(key: string) {
  const uri = parseKeyUri(key);
  assert.ok(uri.scheme === 'awskms');
  return openAwsKms(uri, { endpoint, environment, region: 'eu-west-1' });
}

describeKek('moto', async () => {
  const [first, second] = [await createKey(), await createKey()];
  return { harness: { bindsContext: true, openFirst: () => open(first), openSecond: () => open(second) }, close() {} };
});

describeKek('moto, by an alias', async () => {
  const [first, second] = [await createKey(), await createKey()];
  await call('CreateAlias', { AliasName: 'alias/images', TargetKeyId: first });
  const harness = {
    bindsContext: true,
    openFirst: () => open('awskms:///alias/images'),
    openSecond: () => open(second),
  };
  return { harness, close() {} };
});
