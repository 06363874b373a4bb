// Finds the address of Vault or OpenBao and the authorities to trust there, and sends requests.
// https://developer.hashicorp.com/vault/docs/commands#environment-variables

import { parseUnix, readEndpoint } from '../../base/address.ts';
import { OcicryptError } from '../../base/errors.ts';
import { createHttpClient } from '../../base/http/client.ts';
import type { HttpResponse } from '../../base/http/contract.ts';
import { setting } from '../../base/setting.ts';

export type VaultConnectionSettings = {
  readonly address?: string | undefined;
  readonly caFiles?: readonly string[] | undefined;
  readonly environment: NodeJS.ProcessEnv;
};

type VaultRequest = {
  /** Segments below `/v1`; they are escaped here, so that none can be more than one. */
  readonly path: readonly string[];
  /** Undefined if an agent adds its own. */
  readonly token?: string | undefined;
  readonly namespace?: string | undefined;
  readonly body: Uint8Array;
  readonly signal: AbortSignal;
  readonly maximumBytes?: number;
  /** A login, which has a clock of its own. */
  readonly role?: 'token service';
};

export interface VaultConnection {
  /** The namespace of the environment (VAULT_NAMESPACE). */
  readonly namespace: string | undefined;
  /** Whether requests go to an agent or proxy of Vault's, which may authenticate for us. */
  readonly viaAgent: boolean;
  /** Makes one POST request. Errors as of {@link createHttpClient}. */
  send(request: VaultRequest): Promise<HttpResponse>;
  close(): void;
}

/**
 * Reads the environment as Vault's and OpenBao's own clients do: `BAO_X` before `VAULT_X`, even if it is empty.
 *
 * @throws OcicryptError `configuration` if there is no usable address, and for variables that would turn TLS off
 */
export function openVaultConnection(settings: VaultConnectionSettings): VaultConnection {
  const { environment } = settings;
  refuseUnsafe(environment);
  const named = (name: string) => [vaultVariable(environment, name), nameOfVariable(environment, name)] as const;
  const agents = [named('AGENT_ADDR'), named('PROXY_ADDR')];
  const address = readAddress([[settings.address, setting('hashivault.address')], ...agents, named('ADDR')]);
  const certificate = vaultVariable(environment, 'CLIENT_CERT');
  const privateKey = vaultVariable(environment, 'CLIENT_KEY');
  if ((certificate === undefined) !== (privateKey === undefined)) {
    throw new OcicryptError('configuration', 'a client certificate for Vault needs both of its files', {
      hint: 'set VAULT_CLIENT_CERT and VAULT_CLIENT_KEY',
    });
  }
  const caFile = vaultVariable(environment, 'CACERT');
  const http = createHttpClient({
    environment,
    caFiles: [...(settings.caFiles ?? []), ...(caFile === undefined ? [] : [caFile])],
    caDirectory: caFile === undefined ? vaultVariable(environment, 'CAPATH') : undefined,
    serverName: vaultVariable(environment, 'TLS_SERVER_NAME'),
    clientCertificate: certificate === undefined || privateKey === undefined ? undefined : { certificate, privateKey },
  });
  return {
    namespace: vaultVariable(environment, 'NAMESPACE'),
    viaAgent: settings.address === undefined && agents.some(([agent]) => agent !== undefined),
    send({ path, token, namespace, body, signal, maximumBytes, role }) {
      return http.request({
        method: 'POST',
        url: `${address}/v1/${path.map(encodeURIComponent).join('/')}`,
        headers: {
          'content-type': 'application/json',
          accept: 'application/json',
          // An agent refuses requests without it, against forgery across sites.
          'x-vault-request': 'true',
          'x-vault-token': token,
          'x-vault-namespace': namespace,
        },
        body,
        signal,
        maximumBytes,
        role,
      });
    },
    close: () => http.close(),
  };
}

/** `BAO_NAME`, else `VAULT_NAME`; undefined if the one that counts is empty. */
export function vaultVariable(environment: NodeJS.ProcessEnv, name: string): string | undefined {
  return environment[nameOfVariable(environment, name)] || undefined;
}

/** Which of the two counts, as an error names it. */
function nameOfVariable(environment: NodeJS.ProcessEnv, name: string): string {
  return environment[`BAO_${name}`] === undefined ? `VAULT_${name}` : `BAO_${name}`;
}

/** As Go's `strconv.ParseBool` reads it: nothing else means no. */
const FALSE = /^(?:0|f|F|false|False|FALSE)$/;

function refuseUnsafe(environment: NodeJS.ProcessEnv): void {
  const skip = vaultVariable(environment, 'SKIP_VERIFY');
  if (skip !== undefined && !FALSE.test(skip)) {
    throw new OcicryptError(
      'configuration',
      `${nameOfVariable(environment, 'SKIP_VERIFY')} turns the check of certificates off, which is refused`,
      {
        hint: `unset it, and name the issuer of the certificate with VAULT_CACERT or ${setting('caFiles')} FILE`,
      },
    );
  }
  if (vaultVariable(environment, 'CACERT_BYTES') !== undefined) {
    throw new OcicryptError('configuration', `${nameOfVariable(environment, 'CACERT_BYTES')} is not supported`, {
      hint: `write it to a file and name that with VAULT_CACERT or ${setting('caFiles')} FILE`,
    });
  }
}

/** The first that is given, of those with their names. */
function readAddress(named: readonly (readonly [string | undefined, string])[]): string {
  for (const [address, name] of named) {
    if (address === undefined) continue;
    if (parseUnix(address) !== undefined) {
      throw new OcicryptError('configuration', `${name} names a socket (unix://), which is not supported`, {
        hint: 'let the agent or proxy listen on this machine: listener "tcp" { address = "127.0.0.1:8100", tls_disable = true }',
      });
    }
    // The path of the API belongs to the request: Vault would be asked for /v1/v1.
    return readEndpoint(address, name).replace(/\/v1$/, '');
  }
  throw new OcicryptError('configuration', 'the address of Vault or OpenBao is not set', {
    hint: `set VAULT_ADDR or BAO_ADDR, or give ${setting('hashivault.address')}=https://HOST:8200`,
  });
}
