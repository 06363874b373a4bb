// Our HTTP client inside a vendor's library, for one renewal: CA files, proxy, time limits and refusals hold there too.

import { OcicryptError } from '../base/errors.ts';
import type { HttpClient, HttpRequest, HttpResponse } from '../base/http/contract.ts';

export class LibraryHttp {
  /** What went wrong last: libraries obscure it, and their own errors hold requests and answers. */
  failure: OcicryptError | undefined;
  readonly #http: HttpClient;
  readonly #signal: AbortSignal;

  constructor(http: HttpClient, signal: AbortSignal) {
    this.#http = http;
    this.#signal = signal;
  }

  /** @param explain the error of an answer that is a failure */
  async send(
    request: Omit<HttpRequest, 'method' | 'signal'> & { readonly method: string },
    explain: (answer: HttpResponse) => OcicryptError | undefined,
  ): Promise<HttpResponse> {
    const { method } = request;
    try {
      if (method !== 'GET' && method !== 'POST' && method !== 'PUT') {
        throw new OcicryptError('internal', 'the authentication library made an unexpected request');
      }
      const answer = await this.#http.request({ ...request, method, signal: this.#signal });
      this.failure = explain(answer) ?? this.failure;
      return answer;
    } catch (error) {
      if (error instanceof OcicryptError) this.failure = error;
      throw error;
    }
  }
}
