// The one table of environment variables that the project reads, and the only code that judges what stands in them.

import { OcicryptError } from './errors.ts';
import { readFileName, readInputFileName, readSecretText, type TextProblem, trimWord } from './operator-text.ts';

/**
 * What a variable holds. `file` and `directory` are names of those, `directories` several of them. A `word` has no
 * blanks, `text` may have them inside: what stands around both by accident is taken off. A `secret` is a password,
 * which may hold anything that can be typed. `any` is for others to judge.
 */
type VariableKind = 'any' | 'directories' | 'directory' | 'file' | 'secret' | 'text' | 'word';

/** Variables of Vault, each of which OpenBao has under its own prefix too. */
const VAULT = {
  ADDR: 'word',
  AGENT_ADDR: 'word',
  CACERT: 'file',
  CACERT_BYTES: 'any',
  CAPATH: 'directory',
  CLIENT_CERT: 'file',
  CLIENT_KEY: 'file',
  NAMESPACE: 'word',
  PROXY_ADDR: 'word',
  SKIP_VERIFY: 'word',
  TLS_SERVER_NAME: 'word',
  TOKEN: 'word',
} as const satisfies Readonly<Record<string, VariableKind>>;

/** By name. A variable that is not here is not read: a test compares this with the source. */
export const VARIABLES: ReadonlyMap<string, VariableKind> = new Map<string, VariableKind>(
  Object.entries({
    ...Object.fromEntries(
      ['BAO', 'VAULT'].flatMap((prefix) => Object.entries(VAULT).map(([name, kind]) => [`${prefix}_${name}`, kind])),
    ),
    AWS_ACCESS_KEY_ID: 'word',
    AWS_CA_BUNDLE: 'file',
    AWS_CONFIG_FILE: 'file',
    AWS_CONTAINER_AUTHORIZATION_TOKEN: 'text',
    AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE: 'file',
    AWS_CONTAINER_CREDENTIALS_FULL_URI: 'word',
    AWS_CONTAINER_CREDENTIALS_RELATIVE_URI: 'word',
    AWS_DEFAULT_PROFILE: 'text',
    AWS_DEFAULT_REGION: 'word',
    AWS_EC2_METADATA_DISABLED: 'word',
    AWS_EC2_METADATA_SERVICE_ENDPOINT: 'word',
    AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE: 'word',
    AWS_EC2_METADATA_V1_DISABLED: 'word',
    AWS_ENDPOINT_URL: 'word',
    AWS_ENDPOINT_URL_KMS: 'word',
    AWS_ENDPOINT_URL_SSO: 'word',
    AWS_ENDPOINT_URL_SSO_OIDC: 'word',
    AWS_ENDPOINT_URL_STS: 'word',
    AWS_IGNORE_CONFIGURED_ENDPOINT_URLS: 'word',
    AWS_LOGIN_CACHE_DIRECTORY: 'directory',
    AWS_PROFILE: 'text',
    AWS_REGION: 'word',
    AWS_ROLE_ARN: 'word',
    AWS_ROLE_SESSION_NAME: 'word',
    AWS_SECRET_ACCESS_KEY: 'word',
    AWS_SESSION_TOKEN: 'word',
    AWS_SHARED_CREDENTIALS_FILE: 'file',
    AWS_USE_DUALSTACK_ENDPOINT: 'word',
    AWS_USE_FIPS_ENDPOINT: 'word',
    AWS_WEB_IDENTITY_TOKEN_FILE: 'file',
    AZURE_AUTHORITY_HOST: 'word',
    AZURE_CLIENT_CERTIFICATE_PASSWORD: 'secret',
    AZURE_CLIENT_CERTIFICATE_PATH: 'file',
    AZURE_CLIENT_ID: 'word',
    AZURE_CLIENT_SECRET: 'secret',
    AZURE_FEDERATED_TOKEN_FILE: 'file',
    AZURE_POD_IDENTITY_AUTHORITY_HOST: 'word',
    AZURE_TENANT_ID: 'word',
    AZURE_TOKEN_CREDENTIALS: 'word',
    BAO_TOKEN_PATH: 'file',
    CI: 'any',
    CLOUDSDK_CONFIG: 'directory',
    CLOUD_RUN_JOB: 'text',
    DEFAULT_IDENTITY_CLIENT_ID: 'word',
    DOCKER_CONFIG: 'directory',
    GCE_METADATA_HOST: 'word',
    GCE_METADATA_IP: 'word',
    GOOGLE_APPLICATION_CREDENTIALS: 'file',
    GOOGLE_CLOUD_QUOTA_PROJECT: 'word',
    GOOGLE_CLOUD_UNIVERSE_DOMAIN: 'word',
    GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES: 'word',
    HOME: 'directory',
    HTTPS_PROXY: 'word',
    IDENTITY_ENDPOINT: 'word',
    IDENTITY_HEADER: 'secret',
    IDENTITY_SERVER_THUMBPRINT: 'word',
    IMDS_ENDPOINT: 'word',
    KUBERNETES_SERVICE_HOST: 'word',
    KUBERNETES_SERVICE_PORT: 'word',
    K_SERVICE: 'text',
    LISTEN_FDNAMES: 'any',
    LISTEN_FDS: 'word',
    LISTEN_PID: 'word',
    METADATA_SERVER_DETECTION: 'word',
    MSI_ENDPOINT: 'word',
    MSI_SECRET: 'secret',
    NODE_TLS_REJECT_UNAUTHORIZED: 'any',
    NOTIFY_SOCKET: 'any',
    NO_PROXY: 'text',
    OCICRYPT_KEYPROVIDER_CONFIG: 'file',
    PATH: 'any',
    REGISTRY_AUTH_FILE: 'file',
    SSL_CERT_DIR: 'directories',
    SSL_CERT_FILE: 'file',
    STREAM_PROCESSOR_MEDIATYPE: 'any',
    TERM: 'any',
    XDG_CONFIG_HOME: 'directory',
    XDG_DATA_HOME: 'directory',
    XDG_RUNTIME_DIR: 'directory',
    https_proxy: 'word',
    no_proxy: 'text',
  } as const satisfies Readonly<Record<string, VariableKind>>),
);

/**
 * The same environment, in which every variable of the table is judged when it is read, so that one which is not needed
 * breaks nothing: blanks and line ends around words are gone.
 *
 * @returns an environment that throws OcicryptError `configuration`, naming the variable, for a name of a file that is
 * its content or no regular file, and for what a value of its kind cannot hold
 */
export function checkedEnvironment(environment: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  return new Proxy(environment, {
    get: (target, name) => (typeof name === 'string' ? readVariable(target, name) : undefined),
  });
}

function readVariable(environment: NodeJS.ProcessEnv, name: string): string | undefined {
  const value = environment[name];
  const kind = VARIABLES.get(name);
  if (value === undefined || value === '' || kind === undefined) return value;
  const read = READERS[kind](value);
  if (typeof read === 'string') return read;
  throw new OcicryptError('configuration', `${name} ${read.problem}`, { hint: read.hint });
}

const READERS: { readonly [kind in VariableKind]: (value: string) => string | TextProblem } = {
  any: (value) => value,
  directories: readFileName,
  directory: readFileName,
  file: readInputFileName,
  secret: readSecretText,
  text: (value) => trimWord(value, true),
  word: (value) => trimWord(value, false),
};
