// Credentials that a machine has by itself: the role of a container (ECS, EKS Pod Identity) and of an instance (IMDSv2).
// https://docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html
// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instance-metadata-security-credentials.html
//
// Not by AWS's SDK, whose client for both has limits of a second, obeys NODE_TLS_REJECT_UNAUTHORIZED and takes no signal.

import { readFileSync } from 'node:fs';
import { bareHost, isLoopback } from '../../base/address.ts';
import { OcicryptError, showSystemCode } from '../../base/errors.ts';
import type { HttpClient, HttpRequest, HttpResponse } from '../../base/http/contract.ts';
import { asText, readObject } from '../../base/json.ts';
import { notNow } from '../answers.ts';
import { askMetadataServer, firmwareSays } from '../metadata-server.ts';
import { type AwsIdentity, checkIdentity } from './identity.ts';
import { asSwitch } from './profiles.ts';

const CONTAINER_HOST = 'http://169.254.170.2';
/** The agents of ECS and EKS, which have no TLS. */
const CONTAINER_HOSTS: ReadonlySet<string> = new Set(['169.254.170.2', '169.254.170.23', 'fd00:ec2::23']);
const ROLE_PATH = '/latest/meta-data/iam/security-credentials/';

/** Whether the environment says that credentials come from the container's agent. */
export function hasContainerCredentials(environment: NodeJS.ProcessEnv): boolean {
  return Boolean(environment.AWS_CONTAINER_CREDENTIALS_RELATIVE_URI || environment.AWS_CONTAINER_CREDENTIALS_FULL_URI);
}

/** @throws OcicryptError */
export async function readContainerCredentials(
  environment: NodeJS.ProcessEnv,
  http: HttpClient,
  signal: AbortSignal,
): Promise<AwsIdentity> {
  const url = containerUrl(environment);
  const token = containerToken(environment);
  const answer = await http.request({
    method: 'GET',
    url: url.href,
    headers: { accept: 'application/json', authorization: token },
    signal,
    role: 'container agent',
    insecurePlaintext: CONTAINER_HOSTS.has(bareHost(url)),
  });
  const source = `the container agent ${url.host}`;
  if (answer.status !== 200) {
    throw refused(
      source,
      answer,
      'check the role of the task or pod; the agent wants the token of AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE',
    );
  }
  return readIdentity(source, answer);
}

function containerUrl(environment: NodeJS.ProcessEnv): URL {
  const { AWS_CONTAINER_CREDENTIALS_RELATIVE_URI: relative, AWS_CONTAINER_CREDENTIALS_FULL_URI: full } = environment;
  const text = relative ? `${CONTAINER_HOST}${relative}` : (full ?? '');
  const url = URL.canParse(text) ? new URL(text) : undefined;
  const host = url === undefined ? '' : bareHost(url);
  if (url?.protocol === 'https:' || (url?.protocol === 'http:' && (isLoopback(host) || CONTAINER_HOSTS.has(host))))
    return url;
  const variable = relative ? 'AWS_CONTAINER_CREDENTIALS_RELATIVE_URI' : 'AWS_CONTAINER_CREDENTIALS_FULL_URI';
  throw new OcicryptError('configuration', `${variable} is not an address that credentials may be asked of`, {
    hint: 'ECS and EKS set it; it must be https, this machine, or the agent of ECS or EKS',
  });
}

function containerToken(environment: NodeJS.ProcessEnv): string | undefined {
  const { AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE: file, AWS_CONTAINER_AUTHORIZATION_TOKEN: plain } = environment;
  const token = (file ? readToken('AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE', file) : plain)?.trim();
  if (!token || /^[ -~]{1,16384}$/.test(token)) return token || undefined;
  throw new OcicryptError('configuration', 'the authorization token for the container agent is not one line of text', {
    hint: 'see AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE and AWS_CONTAINER_AUTHORIZATION_TOKEN',
  });
}

/** The file that a variable or a profile names; read anew each time, because it is replaced every hour. */
export function readToken(named: string, path: string): string {
  try {
    return readFileSync(path, 'latin1');
  } catch (cause) {
    throw new OcicryptError('configuration', `cannot read the token file of ${named}${showSystemCode(cause)}`, {
      cause,
      hint: 'Kubernetes mounts it with the service account; check the volume and its permissions',
    });
  }
}

/**
 * @param isExpected whether the configuration says that this is an instance
 * @param vendorFile where the firmware says it
 * @throws OcicryptError
 */
export async function readInstanceCredentials(
  environment: NodeJS.ProcessEnv,
  section: ReadonlyMap<string, string> | undefined,
  http: HttpClient,
  isExpected: boolean,
  signal: AbortSignal,
  vendorFile = '/sys/class/dmi/id/sys_vendor',
): Promise<AwsIdentity> {
  const named = environment.AWS_EC2_METADATA_SERVICE_ENDPOINT || section?.get('ec2_metadata_service_endpoint');
  const mode =
    environment.AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE || section?.get('ec2_metadata_service_endpoint_mode') || '';
  const base = (named || (mode.toLowerCase() === 'ipv6' ? 'http://[fd00:ec2::254]' : 'http://169.254.169.254')).replace(
    /\/+$/,
    '',
  );
  if (!URL.canParse(base)) {
    throw new OcicryptError('configuration', 'AWS_EC2_METADATA_SERVICE_ENDPOINT is not an address', {
      hint: 'it looks like http://169.254.169.254',
    });
  }
  const { host } = new URL(base);
  const source = `the metadata server ${host}`;
  const ask = (method: 'GET' | 'PUT', path: string, headers: HttpRequest['headers'], end = signal) =>
    http.request({
      method,
      url: `${base}${path}`,
      headers,
      signal: end,
      role: 'metadata server',
      insecurePlaintext: true,
    });

  const ttl = { 'x-aws-ec2-metadata-token-ttl-seconds': '21600' };
  const opened = await askMetadataServer(
    {
      host,
      isExpected: named !== undefined || isExpected || firmwareSays(vendorFile, /^Amazon EC2/),
      none: 'there are no AWS credentials in the environment or in a profile',
      hint: 'set AWS_PROFILE, or see which are found with: aws sts get-caller-identity; on an instance, AWS_EC2_METADATA_SERVICE_ENDPOINT makes this wait longer',
    },
    signal,
    (end) => ask('PUT', '/latest/api/token', ttl, end),
  );
  const isFallback = [403, 404, 405].includes(opened.status);
  if (isFallback && asSwitch(environment.AWS_EC2_METADATA_V1_DISABLED, 'AWS_EC2_METADATA_V1_DISABLED') === true) {
    throw refused(
      source,
      opened,
      'it gives no session token (IMDSv2), and AWS_EC2_METADATA_V1_DISABLED forbids the older way',
    );
  }
  if (opened.status !== 200 && !isFallback) throw refused(source, opened, INSTANCE_HINT);
  const headers = { 'x-aws-ec2-metadata-token': isFallback ? undefined : readLine(opened) };
  const roles = await ask('GET', ROLE_PATH, headers);
  if (roles.status === 404) {
    throw new OcicryptError('unauthenticated', `this instance has no role, says ${source}`, {
      hint: 'attach one: aws ec2 associate-iam-instance-profile; or name a profile with AWS_PROFILE',
    });
  }
  if (roles.status !== 200) throw refused(source, roles, INSTANCE_HINT);
  const answer = await ask('GET', `${ROLE_PATH}${encodeURIComponent(readLine(roles))}`, headers);
  if (answer.status !== 200) throw refused(source, answer, INSTANCE_HINT);
  return readIdentity(source, answer);
}

const INSTANCE_HINT =
  'check the role of the instance; in a container its hop limit must be 2: aws ec2 modify-instance-metadata-options';

/** A token or the name of a role; it goes into a header or a path. */
function readLine({ body }: HttpResponse): string {
  const [line = ''] = new TextDecoder('latin1').decode(body).trim().split('\n');
  if (/^[!-~]{1,4096}$/.test(line)) return line;
  throw new OcicryptError('unauthenticated', 'something that is not the metadata server of AWS answered', {
    hint: 'check AWS_EC2_METADATA_SERVICE_ENDPOINT and the proxy of this machine',
  });
}

/** Both services answer alike. */
function readIdentity(source: string, { body }: HttpResponse): AwsIdentity {
  const message = readObject(body);
  const code = asText(message?.get('Code'));
  if (code !== undefined && code !== 'Success') {
    throw new OcicryptError(
      'unauthenticated',
      `${source} gives no AWS credentials${/^\w{1,60}$/.test(code) ? ` (${code})` : ''}`,
      {
        hint: 'check the role and whom it trusts',
      },
    );
  }
  return checkIdentity(source, {
    accessKeyId: asText(message?.get('AccessKeyId')),
    secretAccessKey: asText(message?.get('SecretAccessKey')),
    sessionToken: asText(message?.get('Token')),
    expiration: asText(message?.get('Expiration')),
  });
}

/** A source that refuses, or that may give credentials later. */
export function refused(source: string, answer: HttpResponse, hint: string): OcicryptError {
  const final = () =>
    new OcicryptError('unauthenticated', `${source} refuses AWS credentials (${answer.status})`, { hint });
  return notNow(source, 'AWS credentials', answer) ?? final();
}
