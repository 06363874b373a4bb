// docs/images.md works as it is written: its commands are run with a Google and an AWS key service on this machine.

import assert from 'node:assert/strict';
import { copyFile, mkdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { startGoogle } from '../end-to-end/google.ts';
import { createWorkspace } from '../end-to-end/workspace.ts';
import { startFakeAwsKms } from '../fakes/aws-kms.ts';
import { createCertificateAuthority } from '../fixtures/certificates.ts';
import { createPlayground, readDocument, runTranscript } from './transcript.ts';

test('an image for two clouds is encrypted, verified and rewrapped as docs/images.md shows it', async (t) => {
  const workspace = await createWorkspace(t);
  const google = await startGoogle(t, workspace);
  const authority = await createCertificateAuthority(workspace.directory);
  const aws = await startFakeAwsKms({ tls: await authority.issue('server') });
  t.after(() => aws.close());
  const playground = await createPlayground(t, []);
  const credentials = join(playground.home, '.config/gcloud/application_default_credentials.json');
  await mkdir(dirname(credentials), { recursive: true });
  await copyFile(google.credentials, credentials);

  const outputs = await runTranscript(await readDocument('docs/images.md'), playground, {
    ...(await google.internet()),
    NO_PROXY: '127.0.0.1',
    SSL_CERT_FILE: authority.certificate,
    AWS_ENDPOINT_URL_KMS: aws.endpoint,
    AWS_REGION: 'eu-west-1',
    AWS_ACCESS_KEY_ID: aws.accessKey.id,
    AWS_SECRET_ACCESS_KEY: aws.accessKey.secret,
    GOOGLE_KEY: google.key,
    AWS_KEY: `awskms:///${aws.createKey()}`,
  });
  assert.ok(outputs.length > 6);
});
