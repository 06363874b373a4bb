// Who we are to Google: application default credentials, found as Google's own tools find them.
// https://cloud.google.com/docs/authentication/application-default-credentials

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { OcicryptError } from '../../base/errors.ts';
import type { HttpClient } from '../../base/http/contract.ts';
import { showValue } from '../../base/shown.ts';
import { type CredentialsJson, invalidFile, readCredentials, type TokenSource, UNIVERSE } from './credentials-file.ts';

/** What the operator says about the credentials, and the client by which tokens are asked for. */
export type GoogleCredentialsSettings = {
  readonly credentialsFile?: string | undefined;
  readonly quotaProject?: string | undefined;
  readonly universeDomain?: string | undefined;
  readonly environment: NodeJS.ProcessEnv;
  readonly http: HttpClient;
};

/** Credentials that make the headers of a call. */
export interface GoogleCredentials {
  /**
   * The domain of the services that these credentials are good for; they must not be sent anywhere else.
   *
   * @throws OcicryptError `configuration` if another one was asked for
   */
  universe(signal: AbortSignal): Promise<string>;
  /**
   * `authorization`, and `x-goog-user-project` if a quota project is known. Asks for a token if there is none
   * that still lives for a while.
   *
   * @throws OcicryptError `unauthenticated` if no token can be had, `unavailable`, `deadline-exceeded`, `configuration`
   */
  headers(signal: AbortSignal): Promise<Record<string, string>>;
  /** Throws away the token, because a service did not take it. */
  forget(): void;
}

/**
 * Opens the credentials of `credentialsFile`, else of GOOGLE_APPLICATION_CREDENTIALS, else of gcloud's file, else of
 * the metadata server. The process's environment is never changed.
 *
 * @throws OcicryptError `configuration` or `not-found` for a file that cannot be used, `unauthenticated` if there are none
 */
export async function openGoogleCredentials(settings: GoogleCredentialsSettings): Promise<GoogleCredentials> {
  const { environment } = settings;
  const path = findFile(settings);
  const json = path === undefined ? undefined : readCredentials(path);
  const own = json === undefined ? undefined : (asText(json.universe_domain) ?? UNIVERSE);
  if (own !== undefined) checkUniverse(settings, own);
  const quotaProject =
    settings.quotaProject ?? environment.GOOGLE_CLOUD_QUOTA_PROJECT ?? asText(json?.quota_project_id);
  const source = await openSource(path, json, settings);
  return {
    async universe(signal) {
      return own ?? checkUniverse(settings, (await source.universe?.(signal)) ?? UNIVERSE);
    },
    forget: () => source.tokens.forget(),
    async headers(signal) {
      const authorization = await source.tokens.read(signal);
      return { authorization, ...(quotaProject ? { 'x-goog-user-project': quotaProject } : {}) };
    },
  };
}

async function openSource(
  path: string | undefined,
  json: CredentialsJson | undefined,
  settings: GoogleCredentialsSettings,
): Promise<TokenSource> {
  if (path !== undefined && json?.type === 'service_account') {
    const { openServiceAccount } = await import('./service-account.ts');
    const tokens = openServiceAccount(json);
    if (tokens === undefined) throw invalidFile(path);
    return { tokens };
  }
  if (path === undefined || json === undefined) {
    const { openMetadataServer } = await import('./metadata.ts');
    return openMetadataServer(settings.http, settings.environment);
  }
  const { openTokens } = await import('./tokens.ts');
  return { tokens: await openTokens(path, json, settings.http, settings.environment) };
}

function findFile({ credentialsFile, environment }: GoogleCredentialsSettings): string | undefined {
  const named = credentialsFile ?? environment.GOOGLE_APPLICATION_CREDENTIALS;
  if (named) return named;
  const directory = environment.CLOUDSDK_CONFIG || (environment.HOME && join(environment.HOME, '.config', 'gcloud'));
  const path = directory ? join(directory, 'application_default_credentials.json') : undefined;
  return path !== undefined && existsSync(path) ? path : undefined;
}

/** A token for one universe must not reach the services of another: that is how credentials leak. */
function checkUniverse(settings: GoogleCredentialsSettings, own: string): string {
  const asked = settings.universeDomain ?? settings.environment.GOOGLE_CLOUD_UNIVERSE_DOMAIN;
  if (asked && asked !== own) {
    throw new OcicryptError(
      'configuration',
      `the credentials are for ${showValue(own)} and not for ${showValue(asked)}`,
      {
        hint: 'name the universe domain of the credentials, or other credentials',
      },
    );
  }
  return own;
}

function asText(value: unknown): string | undefined {
  return typeof value === 'string' && value !== '' ? value : undefined;
}
