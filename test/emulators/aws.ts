/** What both emulators of AWS KMS are asked: by our backend, and by an administrator who makes keys. */
import assert from 'node:assert/strict';
import { parseKeyUri } from '../../src/base/key-uri.ts';
import { openAwsKms } from '../../src/kms/awskms/key.ts';
import type { Kek } from '../../src/kms/kek.ts';

const REGION = 'eu-west-1';
const environment = { AWS_ACCESS_KEY_ID: 'AKIAEXAMPLE', AWS_SECRET_ACCESS_KEY: 'secret-of-nobody' };

export function awsOf(endpoint: string) {
  /** Neither of them checks a signature. */
  async function call(operation: string, message: object): Promise<string> {
    const scope = `Credential=AKIAEXAMPLE/20260101/${REGION}/kms/aws4_request`;
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
    assert.ok(response.ok, `${operation}: ${text}`);
    return text;
  }
  return {
    call,
    /** Makes a key and returns its ARN. */
    async createKey(options: object = {}): Promise<string> {
      return JSON.parse(await call('CreateKey', options)).KeyMetadata.Arn;
    },
    open(key: string): Kek {
      const uri = parseKeyUri(key);
      assert.ok(uri.scheme === 'awskms');
      return openAwsKms(uri, { endpoint, environment, region: REGION });
    },
  };
}
