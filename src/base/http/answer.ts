// Reads answers of HTTP/1.1 (RFC 9112), and reads each in one way only: what could be taken for
// another length, another answer, or for none at all, is refused.

import { asBuffer, wipe } from '../bytes.ts';
import type { HttpResponse } from './contract.ts';
import { answeredTooMuch, brokenOff, notHttp } from './errors.ts';

/** More than any service sends; a head is kept in memory until it is whole. */
const MAXIMUM_HEAD = 64 * 1024;

const STATUS_LINE = /^HTTP\/1\.([01]) ([1-9]\d\d)(?: [\t\x20-\x7e\x80-\xff]*)?$/;
const FIELD =
  /^([!#$%&'*+.^_`|~0-9A-Za-z-]+):[\t ]*((?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?)[\t ]*$/;
const CHUNK_SIZE = /^([0-9a-fA-F]{1,8})[\t ]*(?:;[\t\x20-\x7e\x80-\xff]*)?$/;

type Head = { readonly status: number; readonly headers: Readonly<Record<string, string>>; readonly persists: boolean };

/** Where in the answer the next byte is. A length counts what is left. */
type Place =
  | { readonly at: 'chunk end' | 'chunk size' | 'done' | 'head' | 'rest' | 'trailers' }
  | { readonly at: 'body' | 'chunk'; left: number };

/** One answer, as its bytes come. */
export class AnswerReader {
  readonly #url: URL;
  readonly #method: string;
  readonly #maximumBytes: number;
  readonly #body: Buffer<ArrayBuffer>[] = [];
  #length = 0;
  /** What has come and cannot be understood yet. */
  #pending: Buffer = Buffer.alloc(0);
  #place: Place = { at: 'head' };
  #head: Head | undefined;
  #hasBegun = false;

  /** @param request of which it is the answer */
  constructor(url: URL, request: { readonly method: string; readonly maximumBytes: number }) {
    this.#url = url;
    this.#method = request.method;
    this.#maximumBytes = request.maximumBytes;
  }

  /** Whether nothing of the answer has come. */
  get isUnanswered(): boolean {
    return !this.#hasBegun;
  }

  /** Whether nothing has come behind the answer, which would be the answer to nothing. */
  get isClean(): boolean {
    return this.#place.at === 'done' && this.#pending.length === 0;
  }

  /** Whether the connection may carry another request. */
  get isReusable(): boolean {
    return this.isClean && this.#head?.persists === true;
  }

  /**
   * Takes bytes, which are wiped.
   *
   * @returns the answer if that is whole
   * @throws OcicryptError `unavailable`
   */
  push(bytes: Uint8Array): HttpResponse | undefined {
    this.#hasBegun = true;
    const input = asBuffer(bytes);
    const whole = this.#pending.length === 0 ? input : Buffer.concat([this.#pending, input]);
    if (whole !== input) wipe(this.#pending, input);
    this.#pending = whole;
    while (this.#step());
    return this.#place.at === 'done' ? this.#finish() : undefined;
  }

  /** The connection has ended, which ends an answer that has no length of its own. @throws OcicryptError */
  end(cause: unknown): HttpResponse {
    if (this.#place.at !== 'rest' || cause !== undefined) throw brokenOff(this.#url, cause);
    return this.#finish();
  }

  /** Wipes what has been read of an answer that no caller gets. */
  discard(): void {
    wipe(this.#pending, ...this.#body);
  }

  #finish(): HttpResponse {
    const head = this.#head;
    if (head === undefined) throw brokenOff(this.#url);
    const body = this.#joinBody();
    this.discard();
    return { status: head.status, headers: head.headers, body };
  }

  /** Most answers come in one piece, which is not copied. */
  #joinBody(): Buffer<ArrayBuffer> {
    const only = this.#body.length === 1 ? this.#body.pop() : undefined;
    if (only !== undefined) return only;
    const body = Buffer.alloc(this.#length);
    let offset = 0;
    for (const part of this.#body) offset += part.copy(body, offset);
    return body;
  }

  /** One step further in the answer; whether there may be another. */
  #step(): boolean {
    const place = this.#place;
    switch (place.at) {
      case 'done':
        return false;
      case 'head':
        return this.#readHead();
      case 'rest':
        this.#take(this.#pending.length);
        return false;
      case 'body':
      case 'chunk': {
        const length = Math.min(place.left, this.#pending.length);
        this.#take(length);
        place.left -= length;
        if (place.left > 0) return false;
        this.#place = { at: place.at === 'body' ? 'done' : 'chunk end' };
        return true;
      }
      default: {
        const line = this.#readLine();
        if (line === undefined) return false;
        this.#place = this.#afterLine(place.at, line);
        return true;
      }
    }
  }

  #afterLine(at: 'chunk end' | 'chunk size' | 'trailers', line: string): Place {
    if (at === 'chunk end') {
      if (line !== '') throw notHttp(this.#url);
      return { at: 'chunk size' };
    }
    if (at === 'trailers') {
      if (line !== '' && !FIELD.test(line)) throw notHttp(this.#url);
      return { at: line === '' ? 'done' : 'trailers' };
    }
    const size = CHUNK_SIZE.exec(line)?.[1];
    if (size === undefined) throw notHttp(this.#url);
    const left = Number.parseInt(size, 16);
    this.#expect(left);
    return left === 0 ? { at: 'trailers' } : { at: 'chunk', left };
  }

  #readHead(): boolean {
    const end = this.#pending.indexOf('\r\n\r\n');
    // A server that does not speak HTTP may wait for us to speak again.
    if (end < 0 && !'HTTP/1.'.startsWith(this.#pending.toString('latin1', 0, 7))) throw notHttp(this.#url);
    if (end < 0 ? this.#pending.length > MAXIMUM_HEAD : end > MAXIMUM_HEAD) throw notHttp(this.#url);
    if (end < 0) return false;
    const [line = '', ...lines] = this.#pending.toString('latin1', 0, end).split('\r\n');
    this.#drop(end + 4);
    const [, minor, status = ''] = STATUS_LINE.exec(line) ?? [];
    if (minor === undefined) throw notHttp(this.#url);
    const headers = this.#readFields(lines);
    // Others that come before the answer are passed over; 101 would make something else of the connection.
    if (status.startsWith('1')) {
      if (status === '101') throw notHttp(this.#url);
      return true;
    }
    const options = (headers.connection ?? '').toLowerCase().split(/[\t ]*,[\t ]*/);
    const persists = minor === '1' ? !options.includes('close') : options.includes('keep-alive');
    this.#head = { status: Number(status), headers, persists };
    this.#place = this.#findBody(Number(status), headers);
    return true;
  }

  #readFields(lines: readonly string[]): Readonly<Record<string, string>> {
    const fields = new Map<string, string>();
    for (const line of lines) {
      const [, name, value = ''] = FIELD.exec(line) ?? [];
      if (name === undefined) throw notHttp(this.#url);
      const key = name.toLowerCase();
      const before = fields.get(key);
      fields.set(key, before === undefined ? value : `${before}, ${value}`);
    }
    return Object.fromEntries(fields);
  }

  /** RFC 9112 section 6.3. */
  #findBody(status: number, headers: Readonly<Record<string, string>>): Place {
    const { 'content-length': length, 'transfer-encoding': encoding } = headers;
    // Of a proxy's answer to CONNECT nothing but the status matters.
    if (this.#method === 'HEAD' || this.#method === 'CONNECT' || status === 204 || status === 304)
      return { at: 'done' };
    if (encoding !== undefined) {
      // Two ways to say where it ends are one too many.
      if (length !== undefined || encoding.toLowerCase() !== 'chunked') throw notHttp(this.#url);
      return { at: 'chunk size' };
    }
    if (length === undefined) return { at: 'rest' };
    if (!/^\d{1,15}$/.test(length)) throw notHttp(this.#url);
    const left = Number(length);
    this.#expect(left);
    return left === 0 ? { at: 'done' } : { at: 'body', left };
  }

  /** Refuses what is announced to be too long, before it comes. */
  #expect(more: number): void {
    if (this.#length + more > this.#maximumBytes) throw answeredTooMuch(this.#url, this.#maximumBytes);
  }

  /** Makes the first bytes that are pending part of the body. */
  #take(length: number): void {
    this.#expect(length);
    this.#length += length;
    const part = Buffer.alloc(length);
    part.set(this.#pending.subarray(0, length));
    this.#body.push(part);
    this.#drop(length);
  }

  #drop(length: number): void {
    wipe(this.#pending.subarray(0, length));
    this.#pending = this.#pending.subarray(length);
  }

  #readLine(): string | undefined {
    const end = this.#pending.indexOf('\r\n');
    if (end < 0 ? this.#pending.length > MAXIMUM_HEAD : end > MAXIMUM_HEAD) throw notHttp(this.#url);
    if (end < 0) return undefined;
    const line = this.#pending.toString('latin1', 0, end);
    this.#drop(end + 2);
    return line;
  }
}
