// Key services to measure against: the fakes of the tests, in a thread of their own so that they answer while we wait.

import { once } from 'node:events';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { startGoogle } from '../test/end-to-end/google.ts';
import { createWorkspace } from '../test/end-to-end/workspace.ts';

/** How a command finds a service. */
export type Service = {
  readonly key: string;
  /** Our own options. */
  readonly options: readonly string[];
  /** Leads any program there by the service's own name: a proxy, an authority, credentials. */
  readonly environment: Readonly<Record<string, string>>;
};

/** A service that runs, and how it is ended. */
export type RunningService = Service & { readonly close: () => Promise<void> };

type Cleanup = () => void | Promise<void>;

/** Google Cloud KMS with one key and a service account. */
export async function startGoogleService(): Promise<RunningService> {
  const worker = new Worker(new URL(import.meta.url), { workerData: 'google' });
  const [service]: Service[] = await once(worker, 'message');
  if (service === undefined) throw new Error('the service did not start');
  return {
    ...service,
    async close() {
      worker.postMessage('close');
      await once(worker, 'exit');
    },
  };
}

if (!isMainThread && parentPort !== null && workerData === 'google') {
  const cleanups: Cleanup[] = [];
  const context = { after: (cleanup: Cleanup) => void cleanups.push(cleanup) };
  const google = await startGoogle(context, await createWorkspace(context));
  const environment = { ...(await google.internet()), GOOGLE_APPLICATION_CREDENTIALS: google.credentials };
  parentPort.postMessage({ key: google.key, options: google.options, environment } satisfies Service);
  await once(parentPort, 'message');
  for (const cleanup of cleanups.toReversed()) await cleanup();
  parentPort.close();
}
