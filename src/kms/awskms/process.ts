// Credentials that a program of the operator's writes: the `credential_process` of a profile.
// https://docs.aws.amazon.com/sdkref/latest/guide/feature-process-credentials.html

import { wipe } from '../../base/bytes.ts';
import { OcicryptError } from '../../base/errors.ts';
import { NOT_FOUND, runHelper } from '../../base/helper.ts';
import { asText, readObject } from '../../base/json.ts';
import { type AwsIdentity, checkIdentity } from './identity.ts';

/**
 * @param name as it stands in errors, since the command may hold a secret
 * @throws OcicryptError `unauthenticated`, `configuration` for a program that is not there
 */
export async function readProcessCredentials(name: string, command: string, signal: AbortSignal): Promise<AwsIdentity> {
  const { status, output } = await runHelper({ name, command }, signal);
  try {
    if (status === NOT_FOUND || status === 126) {
      throw new OcicryptError('configuration', `${name} is a program that is not there or cannot be run (${status})`, {
        hint: 'name it by its whole path',
      });
    }
    if (status !== 0) {
      throw new OcicryptError('unauthenticated', `${name} failed (exit status ${status})`, {
        hint: 'run it by hand to see why; it may want a login',
      });
    }
    const message = readObject(output);
    if (message?.get('Version') !== 1) {
      throw new OcicryptError('unauthenticated', `${name} does not write credentials of version 1`, {
        hint: 'it must write one JSON object with Version, AccessKeyId and SecretAccessKey',
      });
    }
    return checkIdentity(name, {
      accessKeyId: asText(message.get('AccessKeyId')),
      secretAccessKey: asText(message.get('SecretAccessKey')),
      sessionToken: asText(message.get('SessionToken')) || undefined,
      expiration: asText(message.get('Expiration')) || undefined,
    });
  } finally {
    wipe(output);
  }
}
