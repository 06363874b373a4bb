// Exchanges that any key provider can be asked, whatever its packets: requests of real clients, and the vectors of this
// layer, with places for the provider's own name, recipients and packet (test/vectors/README.md).

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { OPTSDATA } from '../test/fixtures/packets.ts';
import { PROJECT } from './process.ts';
import { goodVectors } from './vectors-good.ts';
import { jsonFaults, protocolFaults, sizeFaults } from './vectors-protocol.ts';
import { base64, FIRST_KEY, type Named, PACKET, type RequestPart, SECOND_KEY } from './vectors-shape.ts';

/** What must come of an exchange: `either` is the record or a failure, since readers may differ. */
export type Expectation = 'packet' | 'record' | 'refused' | 'either';

export type ExchangePart = RequestPart | { readonly pad: string; readonly to: number };

export type Exchange = {
  readonly name: string;
  readonly comment: string;
  readonly expect: Expectation;
  /** As in a vector, with places `{{…}}` in its texts. */
  readonly request: string | readonly ExchangePart[];
};

/** Every exchange, in the order in which they are played: the first one makes the packet of the others. */
export function makeExchanges(): readonly Exchange[] {
  return [...clientExchanges(), ...goodExchanges(), ...faults()];
}

/** The file that holds them. */
export function formatExchanges(exchanges: readonly Exchange[]): string {
  const note = 'Made by node scripts/vectors.ts; README.md says what the places in requests stand for.';
  return `${JSON.stringify({ note, exchanges }, null, 1)}\n`;
}

/** What becomes of each request of requests.json. A client that names no key is answered where the provider has a default. */
const CLIENTS: ReadonlyMap<string, readonly [name: string, expect: Expectation]> = new Map([
  ['skopeo 1.18 wrap, one recipient', ['skopeo-wrap', 'packet']],
  ['two recipients of one provider arrive in one call', ['skopeo-wrap-two', 'packet']],
  ['recipient without a parameter', ['skopeo-wrap-enabled', 'either']],
  ['empty parameter (provider:NAME:)', ['skopeo-wrap-empty', 'either']],
  ["other schemes' recipients in the same call", ['skopeo-wrap-other-scheme', 'packet']],
  ['two providers configured: each sees both names', ['skopeo-wrap-other-provider', 'packet']],
  ['adding a recipient (ctr-imgcrypt): DecryptConfig filled', ['imgcrypt-wrap-adding', 'packet']],
  ['ocicrypt-rs wrap: optsdata is raw JSON text, not base64', ['ocicrypt-rs-wrap', 'packet']],
  ['skopeo unwrap with the key named', ['skopeo-unwrap', 'record']],
  ['containerd CRI unwrap, node key model', ['containerd-unwrap', 'record']],
  ['ctr-imgcrypt pull without --key', ['imgcrypt-unwrap-pull', 'record']],
  ['containerd with an empty keys directory', ['containerd-unwrap-empty-directory', 'record']],
  ['ctr-imgcrypt images decrypt without --key', ['imgcrypt-unwrap-decrypt', 'record']],
  ['only a private key of another scheme given: it arrives here', ['skopeo-unwrap-other-scheme', 'record']],
  ['another provider was named, this one is still asked', ['skopeo-unwrap-other-provider', 'either']],
  ['dc is null', ['unwrap-dc-null', 'record']],
]);

function clientExchanges(): readonly Exchange[] {
  const file = readFileSync(join(PROJECT, 'test/vectors/requests.json'), 'utf8');
  const { requests }: { requests: readonly { name: string; request: string }[] } = JSON.parse(file);
  return requests.map(({ name: comment, request }) => {
    const [name, expect] = CLIENTS.get(comment) ?? [];
    if (name === undefined || expect === undefined) throw new Error(`what becomes of ${comment}?`);
    const { keywrapparams, keyunwrapparams } = JSON.parse(request);
    const named: Readonly<Record<string, readonly unknown[]>> =
      keywrapparams?.ec?.Parameters ?? keyunwrapparams?.dc?.Parameters ?? {};
    const [one, two] = named.kmscrypt ?? named.kp ?? [];
    const places: (readonly [string, string])[] = [
      ['"kmscrypt":', '"{{name}}":'],
      ['"kp":', '"{{name}}":'],
      ['"grpc-keyprovider":', '"another-provider":'],
      [JSON.stringify(OPTSDATA.toString()).slice(1, -1), '{{record-text}}'],
      [base64(OPTSDATA), '{{record}}'],
      [keyunwrapparams?.annotation ?? '\0', '{{packet}}'],
    ];
    for (const [value, place] of [[one, '{{recipient}}'] as const, [two, '{{recipient-2}}'] as const]) {
      // What names no key stays.
      if (typeof value === 'string' && value !== '' && value !== base64('Enabled')) places.push([value, place]);
    }
    return { name, comment, expect, request: places.reduce((text, [from, to]) => text.replaceAll(from, to), request) };
  });
}

/** Freedoms that every reader must allow: of ours, those that are about the request. */
const FREEDOMS = new Set([
  ...['ok-number-array', 'ok-member-case', 'ok-member-order', 'ok-unknown-members', 'ok-escaped-name'],
  ...['ok-prototype-members', 'ok-depth-16', 'ok-padded-to-limit', 'ok-wrap-array'],
]);

function goodExchanges(): readonly Exchange[] {
  const chosen = goodVectors().filter(([name]) => FREEDOMS.has(name));
  return chosen.map(([name, { comment, request, packet }]) => ({
    ...{ name: name.replace('ok-', 'free-'), comment },
    ...{ expect: packet === undefined ? 'record' : 'packet', request: templateOf(name, request) },
  }));
}

/** Where ocicrypt's own reader, Go's, is more lenient than docs/protocol.md wants ours to be. */
const LENIENT =
  /^(?:json-(?:utf8|depth-(?:17|objects)|duplicate|trailing|two-documents)|case-|base64-(?:newline|bits)|size-(?:request|json)|record-|optsdata-large)/;

function faults(): readonly Exchange[] {
  return [...protocolFaults(), ...jsonFaults(), ...sizeFaults()].flatMap(([name, { comment, request }]: Named) => {
    const template = templateOf(name, request);
    // What is cut or changed within our own packet says nothing about another provider.
    if (/[A-Za-z0-9+/=]{64}/.test(JSON.stringify(template))) return [];
    return [
      { name, comment, expect: LENIENT.test(name) ? ('either' as const) : ('refused' as const), request: template },
    ];
  });
}

function templateOf(name: string, request: Named[1]['request']): Exchange['request'] {
  if (typeof request === 'string') return withPlaces(request);
  // The first part is the request, which becomes longer or shorter with the provider's packet.
  const total = { 'ok-padded-to-limit': 262_144, 'size-request': 262_145 }[name];
  const parts = request.map((part) => (typeof part === 'string' ? withPlaces(part) : part));
  return total === undefined ? parts : [...parts.slice(0, 1), { pad: ' ', to: total }];
}

function withPlaces(text: string): string {
  const numbers = (bytes: Uint8Array | string) => [...Buffer.from(bytes)].join(',');
  const places = [
    ['"kmscrypt":', '"{{name}}":'],
    [base64(PACKET), '{{packet}}'],
    [numbers(PACKET), '{{packet-numbers}}'],
    [base64(FIRST_KEY), '{{recipient}}'],
    [base64(SECOND_KEY), '{{recipient-2}}'],
    [base64(OPTSDATA), '{{record}}'],
    [numbers(OPTSDATA), '{{record-numbers}}'],
  ] as const;
  return places.reduce((changed, [from, to]) => changed.replaceAll(from, to), text);
}
