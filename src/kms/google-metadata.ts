// The credentials of a machine in Google Cloud: tokens from the metadata server of Compute Engine, GKE and Cloud Run.
// https://cloud.google.com/compute/docs/access/authenticate-workloads#applications
//
// Not by Google's library: its client of the metadata server is one for the whole process, cannot be given a transport
// or a signal, pings for as long as one attempt of ours may take, and remembers for ever that nobody answered.

import { readFileSync } from 'node:fs';
import { eitherSignal } from '../base/deadline.ts';
import { OcicryptError } from '../base/errors.ts';
import type { HttpClient, HttpResponse } from '../base/http.ts';
import { asNumber, asText } from '../base/json.ts';
import { share } from '../base/share.ts';
import { readObject } from './answers.ts';
import type { TokenSource } from './google-credentials.ts';

const DEFAULT_HOST = '169.254.169.254';
const TOKEN_PATH = '/computeMetadata/v1/instance/service-accounts/default/token';
/** Where there is a server it answers within milliseconds; where there is none, packets vanish. */
const PING_MILLISECONDS = 1000;
/** The server hands out a new token five minutes before the old one ends, and not earlier. */
const REFRESH_MILLISECONDS = 4 * 60 * 1000;

/**
 * The metadata server at GCE_METADATA_IP or GCE_METADATA_HOST, or at its own address. METADATA_SERVER_DETECTION is
 * read as Google's libraries read it: `none`, `assume-present`, `bios-only`, `ping-only`.
 */
export function openMetadataServer(http: HttpClient, environment: NodeJS.ProcessEnv): TokenSource {
  const host = environment.GCE_METADATA_IP || environment.GCE_METADATA_HOST;
  const server = new MetadataServer(http, host || DEFAULT_HOST);
  const isPresent = chooseDetection(server, environment, host !== undefined && host !== '');
  let token: { readonly authorization: string; readonly end: number } | undefined;

  const refresh = share(async (signal) => {
    if (!(await isPresent(signal))) throw noCredentials();
    const { access, lifetime } = await server.readToken(signal);
    token = { authorization: `Bearer ${access}`, end: Date.now() + lifetime };
    return token.authorization;
  });
  return {
    async authorization(signal) {
      return token !== undefined && Date.now() < token.end - REFRESH_MILLISECONDS
        ? token.authorization
        : refresh(signal);
    },
    forget() {
      token = undefined;
    },
  };
}

type Detection = (signal: AbortSignal) => Promise<boolean>;

function chooseDetection(server: MetadataServer, environment: NodeJS.ProcessEnv, isNamed: boolean): Detection {
  const present: Detection = async () => true;
  const ping: Detection = (signal) => server.ping(signal);
  switch ((environment.METADATA_SERVER_DETECTION ?? '').trim().toLowerCase()) {
    case 'none':
      return async () => false;
    case 'assume-present':
      return present;
    case 'bios-only':
      return async () => isGoogleMachine();
    case 'ping-only':
      return ping;
    default:
      return isNamed || environment.K_SERVICE || environment.CLOUD_RUN_JOB || isGoogleMachine() ? present : ping;
  }
}

class MetadataServer {
  readonly #http: HttpClient;
  readonly #host: string;

  constructor(http: HttpClient, host: string) {
    this.#http = http;
    this.#host = host;
  }

  async ping(signal: AbortSignal): Promise<boolean> {
    try {
      const answer = await this.#get('/', eitherSignal(signal, AbortSignal.timeout(PING_MILLISECONDS)));
      return answer.headers['metadata-flavor'] === 'Google';
    } catch {
      return false;
    }
  }

  /** @returns the token, and its lifetime in milliseconds */
  async readToken(signal: AbortSignal): Promise<{ readonly access: string; readonly lifetime: number }> {
    const answer = await this.#get(TOKEN_PATH, signal);
    if (answer.status === 404) {
      throw new OcicryptError('unauthenticated', 'this machine has no service account', {
        hint: 'attach one to the instance, or to the Kubernetes service account by workload identity',
      });
    }
    if (answer.status === 429 || answer.status >= 500) {
      throw new OcicryptError('unavailable', `the metadata server is unavailable (${answer.status})`, {
        retryable: true,
        hint: 'try again later',
      });
    }
    const token = answer.status === 200 ? readObject(answer.body) : undefined;
    const access = asText(token?.get('access_token'));
    const seconds = asNumber(token?.get('expires_in'));
    if (access !== undefined && /^[!-~]{1,16384}$/.test(access) && seconds !== undefined) {
      return { access, lifetime: seconds * 1000 };
    }
    throw new OcicryptError('unauthenticated', `the metadata server gives no token (${answer.status})`, {
      hint: 'check the service account of this machine and its access scopes',
    });
  }

  #get(path: string, signal: AbortSignal): Promise<HttpResponse> {
    const url = `http://${this.#host.replace(/^https?:\/\//, '')}${path}`;
    const headers = { 'metadata-flavor': 'Google' };
    return this.#http.request({
      method: 'GET',
      url,
      headers,
      signal,
      role: 'metadata server',
      insecurePlaintext: true,
    });
  }
}

function isGoogleMachine(): boolean {
  try {
    return /^Google/.test(readFileSync('/sys/class/dmi/id/product_name', 'latin1'));
  } catch {
    return false;
  }
}

function noCredentials(): OcicryptError {
  return new OcicryptError('unauthenticated', 'there are no Google credentials', {
    hint: 'name a file with --adc FILE or GOOGLE_APPLICATION_CREDENTIALS, or run: gcloud auth application-default login',
  });
}
