// The level of the protocol: what any key provider can be asked, with its own name, recipients and packets.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Exchange } from '../../test/fixtures/vectors/exchanges.ts';
import { type Door, firstLine, type Outcome } from '../../tools/conformance/doors.ts';
import type { Result } from '../../tools/conformance/report.ts';
import { PROJECT } from '../../tools/process.ts';

const DIRECTORY = join(PROJECT, 'test/vectors');

/** What the provider under test is asked for. */
export type Subject = { readonly door: Door; readonly name: string; readonly recipients: readonly string[] };

type Places = Readonly<Record<string, string>>;

/** The exchanges of test/vectors/protocol.json. */
function readExchanges(): readonly Exchange[] {
  return JSON.parse(readFileSync(join(DIRECTORY, 'protocol.json'), 'utf8')).exchanges;
}

/**
 * Plays exchanges, a few at a time: the first one alone, since it makes the packet that the others ask for.
 *
 * @param chosen whether an exchange is played; the first one is in any case
 */
export async function playExchanges(subject: Subject, chosen: (name: string) => boolean): Promise<readonly Result[]> {
  const [first, ...others] = readExchanges();
  if (first === undefined) throw new Error('there are no exchanges');
  const record = Buffer.from(JSON.parse(readFileSync(join(DIRECTORY, 'requests.json'), 'utf8')).optsdata);
  const player = new Player(subject, record, requestNamed(others, 'skopeo-unwrap'));
  const play = async (exchange: Exchange): Promise<Result> => {
    const { name, comment, expect } = exchange;
    const verdict = await player.play(exchange);
    return { level: 'protocol', name: `protocol/${name}`, comment, expected: WORDS[expect], ...verdict };
  };
  return [
    await play(first),
    ...(await inParallel(
      others.filter(({ name }) => chosen(name)),
      play,
    )),
  ];
}

/** A few at a time: a command mostly waits for its own start. */
export async function inParallel<Item, Value>(
  items: readonly Item[],
  play: (item: Item) => Promise<Value>,
): Promise<readonly Value[]> {
  const results: Value[] = [];
  const waiting = items.entries();
  const work = async () => {
    for (const [index, item] of waiting) results[index] = await play(item);
  };
  await Promise.all([work(), work(), work()]);
  return results;
}

const WORDS = {
  packet: 'a packet that opens again',
  record: 'the record',
  refused: 'a failure',
  either: 'the right reply or a failure',
} as const;

function requestNamed(exchanges: readonly Exchange[], wanted: string): Exchange['request'] {
  const found = exchanges.find(({ name }) => name === wanted);
  if (found === undefined) throw new Error(`there is no exchange ${wanted}`);
  return found.request;
}

type Verdict = Pick<Result, 'result' | 'detail'>;

const PASS: Verdict = { result: 'pass', detail: '' };

function fail(detail: string): Verdict {
  return { result: 'fail', detail };
}

class Player {
  readonly #subject: Subject;
  readonly #record: Buffer;
  readonly #unwrapRequest: Exchange['request'];
  #packet: Buffer | undefined;

  constructor(subject: Subject, record: Buffer, unwrapRequest: Exchange['request']) {
    this.#subject = subject;
    this.#record = record;
    this.#unwrapRequest = unwrapRequest;
  }

  async play({ request, expect, method }: Exchange): Promise<Verdict> {
    const text = JSON.stringify(request);
    const { door, recipients } = this.#subject;
    if (method !== undefined && door.kind === 'cmd')
      return { result: 'not-played', detail: 'a command has no methods' };
    const several = text.includes('{{recipient-2}}');
    if (several && recipients.length < 2) return { result: 'not-played', detail: 'needs a second --recipient' };
    if (/\{\{packet/.test(text) && this.#packet === undefined) return fail('the first request made no packet');
    const wraps =
      method === undefined ? /\\"keywrap\\"/.test(text) && !/\\"keyunwrap\\"/.test(text) : method === 'WrapKey';
    const outcome = await door.call(fill(request, this.#places(this.#packet)), wraps ? 'wrap' : 'unwrap');
    if (outcome.kind === 'broken') return fail(outcome.why);
    if (outcome.kind === 'failure') {
      return expect === 'refused' || expect === 'either' ? PASS : fail(describe(outcome));
    }
    if (expect === 'refused') return fail('it succeeded');
    if (expect === 'packet') return this.#checkPacket(outcome.reply, several);
    const packet = readBytes(outcome.reply, 'keywrapresults', 'annotation');
    if (expect === 'either' && packet !== undefined && packet.length > 0) return PASS;
    return this.#checkRecord(outcome.reply);
  }

  /** Each recipient opens the packet alone. */
  async #checkPacket(reply: Buffer, several: boolean): Promise<Verdict> {
    const packet = readBytes(reply, 'keywrapresults', 'annotation');
    if (packet === undefined || packet.length === 0) return fail('the reply holds no packet');
    this.#packet ??= packet;
    for (const recipient of this.#subject.recipients.slice(0, several ? 2 : 1)) {
      const places = { ...this.#places(packet), recipient: base64(recipient) };
      const outcome = await this.#subject.door.call(fill(this.#unwrapRequest, places), 'unwrap');
      if (outcome.kind !== 'reply') return fail(`its packet does not open for ${recipient}: ${describe(outcome)}`);
      const verdict = this.#checkRecord(outcome.reply);
      if (verdict.result === 'fail') return fail(`its packet, opened for ${recipient}: ${verdict.detail}`);
    }
    return PASS;
  }

  #checkRecord(reply: Buffer): Verdict {
    const record = readBytes(reply, 'keyunwrapresults', 'optsdata');
    if (record === undefined) return fail('the reply holds no record');
    return record.equals(this.#record) ? PASS : fail('the reply holds another record');
  }

  #places(packet: Buffer = Buffer.alloc(0)): Places {
    const [one = '', two = ''] = this.#subject.recipients;
    return {
      name: JSON.stringify(this.#subject.name).slice(1, -1),
      recipient: base64(one),
      'recipient-2': base64(two),
      record: base64(this.#record),
      'record-text': JSON.stringify(this.#record.toString()).slice(1, -1),
      'record-numbers': [...this.#record].join(','),
      packet: base64(packet),
      'packet-numbers': [...packet].join(','),
    };
  }
}

/** The bytes of a request, its places filled. */
export function fill(request: Exchange['request'], places: Places = {}): Buffer {
  const bytes: Buffer[] = [];
  for (const part of typeof request === 'string' ? [request] : request) {
    if (typeof part === 'string') {
      bytes.push(Buffer.from(part.replace(/\{\{([a-z0-9-]+)\}\}/g, (place, name) => places[name] ?? place)));
    } else if ('hex' in part) bytes.push(Buffer.from(part.hex, 'hex'));
    else if ('repeat' in part) bytes.push(Buffer.from(part.repeat.repeat(part.times)));
    else bytes.push(Buffer.from(part.pad.repeat(part.to - bytes.reduce((length, one) => length + one.length, 0))));
  }
  return Buffer.concat(bytes);
}

/** A member of a reply, in either spelling of bytes, as Go reads both; undefined where the reply is not as it must be. */
export function readBytes(reply: Buffer, outer: string, inner: string): Buffer | undefined {
  try {
    const value: unknown = JSON.parse(reply.toString())[outer][inner];
    if (typeof value === 'string') return Buffer.from(value, 'base64');
    return Array.isArray(value) ? Buffer.from(value) : undefined;
  } catch {
    return undefined;
  }
}

/** An outcome as a report says it: the first line is enough. */
export function describe(outcome: Outcome): string {
  if (outcome.kind === 'reply') return 'it succeeded';
  return outcome.kind === 'broken' ? outcome.why : `status ${outcome.status}: ${firstLine(outcome.text)}`;
}

function base64(bytes: Uint8Array | string): string {
  return Buffer.from(bytes).toString('base64');
}
