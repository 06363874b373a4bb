// What an ARN of AWS KMS says, and when two of them are one key.

/** The parts of `arn:PARTITION:kms:REGION:ACCOUNT:RESOURCE`; the resource is `key/ID` or `alias/NAME`. */
export type AwsArn = {
  readonly partition: string;
  readonly region: string;
  readonly account: string;
  readonly resource: string;
};

/** The parts of an ARN as {@link parseKeyUri} has checked it; undefined for a bare key id or alias. */
export function parseAwsArn(key: string): AwsArn | undefined {
  const [arn, partition = '', service, region = '', account = '', resource = '', ...more] = key.split(':');
  if (arn !== 'arn' || service !== 'kms' || more.length > 0) return undefined;
  return { partition, region, account, resource };
}

/**
 * Whether two key ARNs are one key: the same ARN, or replicas of one multi-Region key, which have the same key
 * material under the same `mrk-` id and unwrap for each other.
 * https://docs.aws.amazon.com/kms/latest/developerguide/multi-region-keys-overview.html
 */
export function isSameAwsKey(a: string, b: string): boolean {
  if (a === b) return true;
  const [one, other] = [parseAwsArn(a), parseAwsArn(b)];
  if (one === undefined || other === undefined) return false;
  return (
    one.resource.startsWith('key/mrk-') &&
    one.resource === other.resource &&
    one.partition === other.partition &&
    one.account === other.account
  );
}
