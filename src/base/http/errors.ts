// What went wrong between here and another host, as the operator should read it.

import { OcicryptError } from '../errors.ts';
import { setting } from '../setting.ts';

/** The signal ended it. */
export function deadlineExceeded(url: URL): OcicryptError {
  return new OcicryptError('deadline-exceeded', `${url.host} did not answer in time`, {
    hint: 'check that the host can be reached from here, and its proxy if there is one',
    retryable: true,
  });
}

/** The proxy did not open a tunnel; otherwise its refusal would pass for an answer of the service. */
export function refusedByProxy(url: URL, proxy: URL | undefined, status: number): OcicryptError {
  return new OcicryptError('unavailable', `the proxy ${proxy?.host} refuses to connect to ${url.host} (${status})`, {
    hint:
      status === 407
        ? 'HTTPS_PROXY takes credentials as http://USER:PASSWORD@HOST'
        : 'NO_PROXY names hosts to reach directly',
    retryable: status >= 500,
  });
}

/** A name that does not exist, and whatever a certificate may be refused for: trying again changes nothing. */
const NO_SUCH_HOST = /^(?:ENOTFOUND|DNS_ENOTFOUND)$/;
const NOT_TRUSTED = /CERT|ISSUER|SELF_SIGNED|UNABLE_TO_|ERR_TLS|HOSTNAME_MISMATCH|CRL|INVALID_CA|INVALID_PURPOSE/;

/** No connection was made: so it is if the host is starting, and if the address is wrong. Bun's `fetch` has two of its own, and a unix socket `ENOENT`. */
const UNREACHED =
  /^(?:ECONNREFUSED|ENOENT|ConnectionRefused|FailedToOpenSocket|EHOSTUNREACH|EHOSTDOWN|ENETUNREACH|ENETDOWN|EAI_AGAIN)$/;

/** Nothing that waiting changes: the name, the certificate, or the rights of this process. */
const LASTING = [NO_SUCH_HOST, NOT_TRUSTED, /^(?:EACCES|EPERM)$/];

/** What may become of a connection that failed with this code of the system, the runtime or OpenSSL. */
export function prospectsOf(code: string): { readonly retryable: boolean; readonly unreached: boolean } {
  return { retryable: !LASTING.some((codes) => codes.test(code)), unreached: UNREACHED.test(code) };
}

const OTHER_NAME = /ALTNAME|HOSTNAME_MISMATCH/;

/**
 * The runtime's error, by its code: both runtimes take theirs from the system and from OpenSSL.
 *
 * @param proxy if it happened before there was a tunnel: then the proxy is what failed
 */
export function networkError(url: URL, error: Error, proxy?: URL): OcicryptError {
  const code = 'code' in error ? String(error.code) : '';
  if (proxy !== undefined) {
    const isNamed = !NO_SUCH_HOST.test(code);
    const shown = /^[A-Z_0-9]{2,60}$/.test(code) ? ` (${code})` : '';
    const what = isNamed ? `cannot reach the proxy ${proxy.host}` : `no host is named ${proxy.hostname}, the proxy`;
    return new OcicryptError('unavailable', `${what} on the way to ${url.host}${isNamed ? shown : ''}`, {
      cause: error,
      hint: `check HTTPS_PROXY, or name ${url.hostname} in NO_PROXY to reach it directly`,
      ...prospectsOf(code),
    });
  }
  if (NO_SUCH_HOST.test(code)) {
    return new OcicryptError('unavailable', `no host is named ${url.hostname}`, {
      cause: error,
      hint: 'check the address and the name server',
    });
  }
  if (NOT_TRUSTED.test(code)) {
    return new OcicryptError('unavailable', `the certificate of ${url.host} is not trusted (${code})`, {
      cause: error,
      hint: OTHER_NAME.test(code)
        ? 'its subject alternative names do not have this host; a common name does not count'
        : `if its issuer is your own, name the issuer with ${setting('caFiles')} FILE`,
    });
  }
  if (isNotTls(error)) {
    return new OcicryptError('unavailable', `${url.host} answers without TLS, in plain HTTP`, {
      cause: error,
      hint: 'give it TLS: only addresses of this machine itself (127.0.0.1, [::1], localhost) may do without',
    });
  }
  return new OcicryptError(
    'unavailable',
    `cannot reach ${url.host}${/^[A-Z_0-9]{2,60}$/.test(code) ? ` (${code})` : ''}`,
    {
      cause: error,
      hint: 'check that the host can be reached from here, and its proxy if there is one',
      ...prospectsOf(code),
    },
  );
}

/** Whether an error of {@link networkError} says that the host speaks, but not TLS. */
export function isPlaintextAnswer(error: unknown): boolean {
  return error instanceof OcicryptError && error.cause instanceof Error && isNotTls(error.cause);
}

/** OpenSSL's reason, which Bun has in the code and Node in the text alone, under a code that stands for much else. */
function isNotTls(error: Error): boolean {
  const code = 'code' in error ? String(error.code) : '';
  return code === 'ERR_SSL_WRONG_VERSION_NUMBER' || (code === 'EPROTO' && /wrong version number/.test(error.message));
}

/** The connection ended before the answer did. */
export function brokenOff(url: URL, cause?: unknown): OcicryptError {
  return new OcicryptError('unavailable', `${url.host} broke off its answer`, {
    cause,
    hint: 'try again; a proxy or a firewall in between may cut connections',
    retryable: true,
  });
}

/** What came is no answer of HTTP/1.1, or one that could be read in two ways. */
export function notHttp(url: URL): OcicryptError {
  return new OcicryptError('unavailable', `${url.host} answered with what is not HTTP`, {
    hint: 'check that the address is that of the service, and what is between here and there',
    retryable: true,
  });
}

/** More than the caller has room for. */
export function answeredTooMuch(url: URL, maximumBytes: number): OcicryptError {
  return new OcicryptError('unavailable', `${url.host} answered with more than ${maximumBytes} bytes`, {
    hint: 'check that the address is that of the service',
  });
}

/** A redirect would carry credentials to a host that was not named. */
export function answeredRedirect(url: URL): OcicryptError {
  return new OcicryptError('unavailable', `${url.host} answered with a redirect`, {
    hint: 'redirects are not followed: name the address that answers',
  });
}
