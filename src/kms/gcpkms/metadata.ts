// The credentials of a machine in Google Cloud: tokens from the metadata server of Compute Engine, GKE and Cloud Run.
// https://cloud.google.com/compute/docs/access/authenticate-workloads#applications
//
// Not by Google's library: its client of the metadata server is one for the whole process, cannot be given a transport
// or a signal, pings for as long as one attempt of ours may take, and remembers for ever that there was no answer.

import { OcicryptError } from '../../base/errors.ts';
import type { HttpClient, HttpResponse } from '../../base/http/contract.ts';
import { asNumber, asText, readObject } from '../../base/json.ts';
import { setting } from '../../base/setting.ts';
import { notNow } from '../answers.ts';
import { askMetadataServer, firmwareSays } from '../metadata-server.ts';
import { TokenCache } from '../token-cache.ts';
import { type TokenSource, UNIVERSE } from './credentials-file.ts';

const DEFAULT_HOST = '169.254.169.254';
const TOKEN_PATH = '/computeMetadata/v1/instance/service-accounts/default/token';
const UNIVERSE_PATH = '/computeMetadata/v1/universe/universe-domain';
/** The server hands out a new token five minutes before the old one ends, and not earlier. */
const RESERVE_MILLISECONDS = 4 * 60 * 1000;

/**
 * The metadata server at GCE_METADATA_IP or GCE_METADATA_HOST, or at its own address. METADATA_SERVER_DETECTION is
 * read as Google's libraries read it: `none`, `assume-present`, `bios-only`, `ping-only`.
 */
export function openMetadataServer(http: HttpClient, environment: NodeJS.ProcessEnv, now?: () => number): TokenSource {
  const host = environment.GCE_METADATA_IP || environment.GCE_METADATA_HOST;
  const server = new MetadataServer(http, host || DEFAULT_HOST);
  const isPresent = chooseDetection(server, environment, host !== undefined && host !== '');
  let domain: string | undefined;
  return {
    tokens: new TokenCache(async (signal) => {
      if (!(await isPresent(signal))) throw noCredentials();
      const { access, lifetime } = await server.readToken(signal);
      return { token: `Bearer ${access}`, lifetime, reserve: RESERVE_MILLISECONDS };
    }, now),
    async universe(signal) {
      if (domain === undefined && !(await isPresent(signal))) throw noCredentials();
      domain ??= await server.readUniverse(signal);
      return domain;
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
  /** For errors. */
  readonly #source: string;

  constructor(http: HttpClient, host: string) {
    this.#http = http;
    this.#host = host.replace(/^https?:\/\//, '');
    this.#source = `the metadata server ${this.#host}`;
  }

  /** Whether it is one of Google's. */
  async ping(signal: AbortSignal): Promise<boolean> {
    const server = { host: this.#host, isExpected: false, none: NONE, hint: noneHint() };
    const answer = await askMetadataServer(server, signal, (end) => this.#get('/', end));
    return answer.headers['metadata-flavor'] === 'Google';
  }

  /** The domain of the cloud that this machine is in: servers that say nothing of it are in the usual one. */
  async readUniverse(signal: AbortSignal): Promise<string> {
    const answer = await this.#get(UNIVERSE_PATH, signal);
    if (answer.status === 404) return UNIVERSE;
    const passing = notNow(this.#source, 'universe domain', answer);
    if (passing !== undefined) throw passing;
    const domain = new TextDecoder('latin1').decode(answer.body).trim();
    if (answer.status === 200 && domain === '') return UNIVERSE;
    if (answer.status === 200 && /^[a-z0-9-]+(?:\.[a-z0-9-]+)+$/.test(domain)) return domain;
    throw new OcicryptError('unauthenticated', `${this.#source} names no universe domain (${answer.status})`, {
      hint: 'something that is not the metadata server of Google answers there: check GCE_METADATA_HOST',
    });
  }

  /** @returns the token, and its lifetime in milliseconds */
  async readToken(signal: AbortSignal): Promise<{ readonly access: string; readonly lifetime: number }> {
    const answer = await this.#get(TOKEN_PATH, signal);
    if (answer.status === 404) {
      throw new OcicryptError('unauthenticated', `this machine has no service account, says ${this.#source}`, {
        hint: 'attach one to the instance, or to the Kubernetes service account by workload identity',
      });
    }
    const passing = notNow(this.#source, 'token', answer);
    if (passing !== undefined) throw passing;
    const token = answer.status === 200 ? readObject(answer.body) : undefined;
    const access = asText(token?.get('access_token'));
    const seconds = asNumber(token?.get('expires_in'));
    if (access !== undefined && /^[!-~]{1,16384}$/.test(access) && seconds !== undefined) {
      return { access, lifetime: seconds * 1000 };
    }
    throw new OcicryptError('unauthenticated', `${this.#source} gives no token (${answer.status})`, {
      hint: 'check the service account of this machine and its access scopes',
    });
  }

  #get(path: string, signal: AbortSignal): Promise<HttpResponse> {
    const url = `http://${this.#host}${path}`;
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
  return firmwareSays('/sys/class/dmi/id/product_name', /^Google/);
}

const NONE = 'there are no Google credentials';
const noneHint = () =>
  `name a file with ${setting('gcpkms.credentialsFile')} FILE or GOOGLE_APPLICATION_CREDENTIALS, or run: gcloud auth application-default login; METADATA_SERVER_DETECTION=assume-present makes the wait for a metadata server longer`;

function noCredentials(): OcicryptError {
  return new OcicryptError('unauthenticated', NONE, { hint: noneHint() });
}
