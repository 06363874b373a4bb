// What an HTTP client is asked and answers, and what carries its requests.

/** What a client trusts and how it reaches others. */
export type HttpSettings = {
  /** PEM files whose certificates are trusted beside the system's roots (`--ca`). */
  readonly caFiles?: readonly string[] | undefined;
  /** A directory of such files, those in the directories below it too. */
  readonly caDirectory?: string | undefined;
  /** PEM files by which we say who we are, if a service asks. */
  readonly clientCertificate?: { readonly certificate: string; readonly privateKey: string } | undefined;
  /** The name that the service's certificate must carry, if it is not the address's. */
  readonly serverName?: string | undefined;
  /** Where SSL_CERT_FILE, HTTPS_PROXY and NO_PROXY are read; the process's own if it is left out. */
  readonly environment?: NodeJS.ProcessEnv | undefined;
};

type RequestHeaders = Readonly<Record<string, string | undefined>>;

export type HttpRequest = {
  readonly method: 'DELETE' | 'GET' | 'HEAD' | 'PATCH' | 'POST' | 'PUT';
  readonly url: string;
  /**
   * Those without a value are left out. Headers that must be waited for, because they have a token, come from a function:
   * the connection is opened meanwhile. It fails as that does.
   */
  readonly headers?: RequestHeaders | (() => Promise<RequestHeaders>) | undefined;
  /** Sent as it is, with its length; the caller may wipe it once the promise is settled. */
  readonly body?: Uint8Array | undefined;
  /** Ends the request at once, wherever it is. */
  readonly signal: AbortSignal;
  /** The longest body that is accepted; 1 MiB if it is left out. */
  readonly maximumBytes?: number | undefined;
  /**
   * What the host is to us if it gives credentials: named in errors, and an attempt's clock is not charged with it.
   * Without it, the host is the key service itself.
   */
  readonly role?: CredentialRole | undefined;
  /** Permits `http:` to a host that is not this machine: metadata servers, which have no TLS. */
  readonly insecurePlaintext?: boolean | undefined;
};

export type CredentialRole = 'container agent' | 'identity agent' | 'metadata server' | 'token service';

export type HttpResponse = {
  /** 200 to 299, or 400 and above. */
  readonly status: number;
  /** Names in lower case; repeated headers are joined by a comma. */
  readonly headers: Readonly<Record<string, string>>;
  /** Undecoded. May hold a key: its reader wipes it. */
  readonly body: Uint8Array<ArrayBuffer>;
};

export interface HttpClient {
  /**
   * Makes one request and reads its whole answer; no retry, no redirect.
   *
   * @throws OcicryptError `unavailable` if no whole answer came, `deadline-exceeded` if the signal ended it,
   * `configuration` for an address that must not be asked or roots that cannot be read
   */
  request(request: HttpRequest): Promise<HttpResponse>;
  /** Closes idle connections. */
  close(): void;
}

/** A request as it is sent. */
export type BoundedRequest = Omit<HttpRequest, 'headers'> & {
  readonly headers: CheckedHeaders | (() => Promise<CheckedHeaders>);
  readonly maximumBytes: number;
};

export type CheckedHeaders = Readonly<Record<string, string>>;

/** One way to carry a request whose address has been checked; it answers redirects as they come. */
export interface HttpTransport {
  exchange(url: URL, request: BoundedRequest): Promise<HttpResponse>;
  close(): void;
}
