// The walkthrough works as it is written: every `bash` block is run, against a registry and a Google KMS on this machine.

import assert from 'node:assert/strict';
import { copyFile, mkdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { startGoogle } from '../end-to-end/google.ts';
import { createWorkspace } from '../end-to-end/workspace.ts';
import { realClients } from '../real-clients/tools.ts';
import { blocksOf, createPlayground, findFreePort, readDocument, runTranscript } from './transcript.ts';

test('every command of the walkthrough works in the order in which it stands', async (t) => {
  if (!(await realClients(t, ['skopeo', 'docker-registry']))) return;
  const document = await readDocument('docs/walkthrough.md');
  const playground = await createPlayground(t, ['skopeo', 'docker-registry']);
  const google = await startGoogle(t, await createWorkspace(t));
  // Where `gcloud auth application-default login` writes it.
  const credentials = join(playground.home, '.config/gcloud/application_default_credentials.json');
  await mkdir(dirname(credentials), { recursive: true });
  await copyFile(google.credentials, credentials);

  const outputs = await runTranscript(document, playground, {
    ...(await google.internet()),
    PROJECT_ID: 'acme',
    REGISTRY: `localhost:${await findFreePort()}`,
    PORT: String(await findFreePort()),
  });
  assert.ok(outputs.length > 10);
  assert.ok(google.kms.server.requests.some((request) => request.endsWith(':decrypt')));
});

test('blocks are run, compared, or said to be for illustration', async () => {
  const known = new Set(['bash', 'text', 'console', 'json']);
  for (const { language, line } of blocksOf(await readDocument('docs/walkthrough.md'))) {
    assert.ok(known.has(language), `line ${line}: ${language}`);
  }
});
