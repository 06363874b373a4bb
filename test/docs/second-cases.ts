// Random calls for two providers: records, labels, keys and set-ups that wrap, set-ups that unwrap, and damaged packets.
import { canonicalJson, type Json } from '../fixtures/packets.ts';
import { generate } from './abnf.ts';
import { grammar, SCHEMES } from './key-grammar.ts';
import { BROKER_KEY, base64, TOKEN_KEY, type World, type WorldSetup } from './second-world.ts';

export type Random = (below: number) => number;
type Mutable<Type> = { -readonly [member in keyof Type]: Type[member] };
type Members = { [name: string]: Json };

const NAMES = ['env', 'team', 'A', 'a.b', 'x-y_z', 'label', 'L'.repeat(64)];
const VALUES = ['prod', 'dev', 'a,b=c', '"', '\\', '</&>', 'two  spaces', '~', '!', 'v'.repeat(256)];

export type Cases = ReturnType<typeof createCases>;

export function createCases(world: World, random: Random) {
  const chance = (percent: number) => random(100) < percent;
  function pick<Value>(values: readonly Value[]): Value {
    const value = values[random(values.length)];
    if (value === undefined) throw new Error('there is nothing to pick from');
    return value;
  }
  const bytes = (length: number) => Buffer.from(Array.from({ length }, () => random(256)));
  const text = (length: number) => bytes(length).toString('base64url').slice(0, length);

  function labels(): Record<string, string> {
    const count = chance(5) ? 8 : random(4);
    return Object.fromEntries(
      Array.from({ length: count }, () => [chance(60) ? pick(NAMES) : `n${text(5)}`, pick(VALUES)]),
    );
  }

  function json(depth = 0): Json {
    const made: readonly (() => Json)[] = [
      () => null,
      () => chance(50),
      () => random(1000) - 500,
      () => text(random(12)),
      () => pick(['', 'é', '\u0000', '\ud800', '😀', '\u212a', ' ']),
      () => Array.from({ length: random(3) }, () => json(depth + 1)),
      () => Object.fromEntries(Array.from({ length: random(3) }, () => [text(3), json(depth + 1)])),
    ];
    return pick(depth > 3 ? made.slice(0, 5) : made)();
  }

  /** A layer-key record; one in eight is none, by a little. */
  function record(faulty = chance(12)): Buffer {
    const digest = pick([
      `sha256:${bytes(32).toString('hex')}`,
      `sha512:${bytes(64).toString('hex')}`,
      `a+b.c_d-e:${text(32)}`,
    ]);
    const options: Members = { nonce: bytes(16).toString('base64') };
    const members: Members = { symkey: bytes(32).toString('base64'), digest, cipheroptions: options };
    for (const object of [members, options]) {
      while (chance(25)) object[chance(70) ? text(4) : pick(['nonce2', 'é', '__proto__x', 'Symkey2'])] = json();
    }
    if (faulty) {
      const object = chance(60) ? members : options;
      const name = pick(Object.keys(object));
      const spelled = pick([
        'symkey',
        'SYMKEY',
        'Digest',
        'cipherOptions',
        'NONCE',
        'nonce',
        'sym\u212aey',
        'di\u0261est',
      ]);
      pick<() => void>([
        () => delete object[name],
        () => put(object, name, json()),
        () => put(object, spelled, json()),
        () =>
          put(object, 'digest', pick(['sha256:ab', `SHA256:${text(40)}`, `a..b:${text(40)}`, `sha256:${text(40)}\n`])),
        () => put(object, 'symkey', bytes(pick([0, 31, 33])).toString('base64')),
        () => put(object, 'nonce', bytes(pick([0, 15, 17])).toString('base64')),
      ])();
    }
    const entries = Object.entries(members);
    if (chance(50)) entries.reverse();
    const line = JSON.stringify(Object.fromEntries(entries), null, chance(20) ? 2 : undefined);
    const whole = chance(10) ? ` ${line.replace('"symkey"', '"s\\u0079mkey"')}\n` : line;
    if (!faulty) return Buffer.from(whole);
    if (chance(15)) return Buffer.from(whole.padEnd(pick([4096, 4097])));
    if (chance(15)) return Buffer.from(whole.replace(/:(?=-?\d)/, `:1${'0'.repeat(pick([31, 32]))}e`));
    return Buffer.from(chance(15) ? damage(Buffer.from(whole)) : whole);
  }

  /** Another spelling of a key, or the same. */
  function spelled(key: string): string {
    if (key.startsWith('gcpkms://') && chance(30))
      return key.slice('gcpkms://'.length).replace('cryptoKeyVersions', 'versions');
    if (key.startsWith('awskms:///arn:') && chance(30)) return key.slice('awskms:///'.length);
    if (key.startsWith('azurekms://') && chance(30)) return key.toUpperCase().replace('AZUREKMS', 'azurekms');
    if (key.startsWith('hashivault://') && chance(30)) return key.replace('hashivault', 'openbao');
    return key === TOKEN_KEY && chance(50) ? 'pkcs11:token=%69mages;object=layers' : key;
  }

  /** A key that can be named, with a version or without; some cannot be used, unless all must. */
  function key(usable = false): string {
    const { files } = world;
    const kind = random(100);
    if (usable && kind >= 44 && kind < 49) return `keyfile://${files.one}`;
    if (kind < 30) return `keyfile://${pick([files.one, files.two, files.three])}`;
    if (kind < 36) return pick(world.recipients);
    if (kind < 39) return `keyfile://${files.identity}`;
    if (kind < 44) return pick(world.aliases);
    if (kind < 46)
      return `keyfile://${pick([files.missing, files.short, files.readable, files.printable, files.directory])}`;
    if (kind < 47) return 'gcpkms://projects/p-1/locations/global/keyRings/ring/cryptoKeys/none';
    if (kind < 48) return BROKER_KEY;
    const one = pick(world.keys);
    const version = world.versions.get(one);
    if (version === undefined || chance(75)) return one;
    if (one.startsWith('azurekms:')) return `${one}/${version}`;
    return one.startsWith('gcpkms:') ? `${one}/cryptoKeyVersions/${usable || chance(80) ? version : '2'}` : one;
  }

  function keyList(): readonly string[] {
    const count = chance(85) ? 1 + random(3) : chance(90) ? 1 + random(7) : pick([16, 17]);
    // Of several that fail it is the first in time that is said.
    const others = Array.from({ length: count - 1 }, () => key(true));
    return others.toSpliced(random(count), 0, key());
  }

  function bytesForm(value: Uint8Array): Json {
    return chance(75) ? base64(value) : [...value];
  }

  function request(name: string, values: readonly string[], inner: (config: Json) => Json, operation: string): Buffer {
    const others = chance(15) ? { pubkeys: [base64('x')], [text(4)]: json() } : {};
    const own =
      values.length === 0 && chance(60) ? {} : { [name]: values.map((value) => bytesForm(Buffer.from(value))) };
    const config: Json = chance(3) ? json() : { Parameters: chance(2) ? json() : { ...others, ...own } };
    return Buffer.from(JSON.stringify({ op: operation, [`${operation}params`]: inner(config) }));
  }

  /** What a call may be made under: names, and keys of the operator's. */
  function setup(): Mutable<WorldSetup> {
    const { files } = world;
    const made: Mutable<WorldSetup> = {};
    if (chance(30)) made.server = true;
    if (chance(8)) made.command = 'kms_oci_crypt';
    if (chance(8)) made.provider = 'mine';
    const offered = [files.one, files.two, files.three, files.identity].filter(() => chance(45));
    if (chance(5)) offered.push(pick([files.missing, files.short, files.readable, files.printable]));
    if (offered.length > 0) made.keys = offered;
    const prefixes = [
      'gcpkms://projects/p-1/*',
      `awskms:///arn:aws:kms:eu-west-1:111122223333:key/*`,
      'azurekms://TestHSM.managedhsm.azure.net/*',
    ];
    if (chance(80))
      made.allow = Array.from({ length: 1 + random(5) }, () => spelled(chance(25) ? pick(prefixes) : key()));
    if (chance(10)) made.kmsURI = spelled(key());
    if (chance(10)) made['kbs-key'] = { [BROKER_KEY]: pick([files.one, files.two, files.missing]) };
    return made;
  }

  function nameOf({ server, provider }: WorldSetup): string {
    if (chance(4)) return pick(['mine', 'other', 'kmscrypt', 'grpc-keyprovider']);
    return provider ?? (server === true ? 'grpc-keyprovider' : 'kmscrypt');
  }

  return {
    pick,
    chance,
    record: () => record(),
    /** A set-up, and a call that wraps under it. */
    wrap(): { readonly setup: WorldSetup; readonly request: Buffer; readonly record: Buffer } {
      const made = setup();
      made.packet = pick(['v2', 'v2', 'v2', 'v2', 'v2', 'v2', 'v1', 'coco-v2']);
      if (made.command !== undefined) delete made.packet;
      let keys = chance(92) ? keyList() : chance(50) ? [] : [pick(['Enabled', ''])];
      if (made.packet === 'v1' && chance(80)) keys = [pick(world.keys.filter((one) => one.startsWith('gcpkms')))];
      if (made.packet === 'coco-v2' && chance(80))
        keys = [pick([...world.keys, ...world.aliases].filter((one) => one.startsWith('awskms')))];
      if (made.server === true && chance(70))
        made.allow = [...(made.allow ?? []), ...keys.filter((one) => one.includes(':'))];
      if (made.kmsURI !== undefined && chance(60)) keys = [made.kmsURI];
      if (chance(made.packet === 'v1' ? 10 : 60)) demand(made, labels());
      const optsdata = record();
      const raw = chance(15) && optsdata[0] === 0x7b ? optsdata.toString() : bytesForm(optsdata);
      const inner = (ec: Json) => ({ ec, optsdata: raw });
      return { setup: made, request: request(nameOf(made), keys.map(spelled), inner, 'keywrap'), record: optsdata };
    },
    /** A set-up, and a call that unwraps a packet under it; most allow some of its keys and demand its labels. */
    unwrap(packet: Uint8Array): { readonly setup: WorldSetup; readonly request: Buffer } {
      const made = setup();
      const found = readPacket(packet);
      const named = found.keys.flatMap((one) => (chance(50) ? [one] : []));
      if (chance(70)) made.allow = [...(made.allow ?? []), ...named.filter((one) => !one.includes('sha256:'))];
      if (chance(30)) demand(made, chance(80) ? found.labels : labels());
      let keys = chance(75) ? [] : chance(80) ? [pick([...found.keys, key()])] : [key(), key()];
      if (chance(10) && keys.length === 0) keys = ['Enabled'];
      const inner = (dc: Json) => ({ dc, annotation: bytesForm(packet) });
      return { setup: made, request: request(nameOf(made), keys.map(spelled), inner, 'keyunwrap') };
    },
    /** What an author of images who knows no key makes of a packet, and of parts of another one. */
    mutate(packet: Buffer, other: Buffer): Buffer {
      if (chance(25)) return damage(packet);
      const mine = parse(packet);
      const theirs = parse(other);
      if (!isObject(mine) || !isObject(theirs)) return damage(packet);
      return spell(changeMembers({ ...mine }, theirs));
    },
    /** The members that somebody who can open the packet puts in place of its own, whose MAC will be right. */
    forge(packet: Buffer, other: Buffer): string {
      const mine = parse(packet);
      const theirs = parse(other);
      if (!isObject(mine) || !isObject(theirs)) throw new Error('no packet');
      return JSON.stringify(changeMembers({ ...mine }, theirs));
    },
  };

  /** No label at all cannot be demanded. */
  function demand(made: Mutable<WorldSetup>, wanted: Readonly<Record<string, string>>): void {
    if (Object.keys(wanted).length > 0) made.context = wanted;
  }

  function put(object: Members, name: string, value: Json): void {
    object[name] = value;
  }

  /** Bytes changed, cut, doubled or put in. */
  function damage(whole: Buffer): Buffer {
    const at = random(whole.length + 1);
    const until = Math.min(whole.length, at + 1 + random(chance(80) ? 4 : whole.length));
    const [head, middle, tail] = [whole.subarray(0, at), whole.subarray(at, until), whole.subarray(until)];
    return pick<() => Buffer>([
      () => Buffer.concat([head, bytes(middle.length), tail]),
      () => Buffer.concat([head, tail]),
      () => head,
      () => Buffer.concat([head, middle, middle, tail]),
      () =>
        Buffer.concat([
          head,
          Buffer.from(pick([' ', '"', ',', '{}', '\\', '\u0000', '=', '\ufeff', '[', '1'])),
          middle,
          tail,
        ]),
      () => {
        const copy = Buffer.from(whole);
        if (at < copy.length) copy[at] = (copy[at] ?? 0) ^ (1 << random(8));
        return copy;
      },
    ])();
  }

  /** A packet's text, canonical or nearly. */
  function spell(members: Json): Buffer {
    const canonical = canonicalJson(members);
    if (chance(75)) return Buffer.from(canonical);
    return Buffer.from(
      pick<() => string>([
        () => JSON.stringify(members),
        () => `${canonical}${pick([' ', '\n', '\u0000', '{}'])}`,
        () => `${pick([' ', '\ufeff'])}${canonical}`,
        () => canonical.replace('/', '\\/'),
        () =>
          canonical.replace(/"([a-z])/g, (whole, letter: string) =>
            chance(10) ? `"\\u00${letter.charCodeAt(0).toString(16)}` : whole,
          ),
        () => canonical.replace(/("[a-z_]+":("[^"]*"))/g, (whole) => (chance(20) ? `${whole},${whole}` : whole)),
        () => canonical.replace(/,/g, (comma) => (chance(20) ? ', ' : comma)),
        () => canonical.padEnd(pick([32768, 32769])),
      ])(),
    );
  }

  function changeMembers(packet: Members, other: { readonly [name: string]: Json }): Members {
    for (let times = chance(85) ? 1 : 2; times > 0; times--) {
      const list = Array.isArray(packet.recipients) ? packet.recipients : [];
      const recipients = list.length > 0 && chance(55) ? [...list] : undefined;
      if (recipients === undefined) change(packet, other);
      else packet.recipients = changeRecipients(recipients, other);
      if (isObject(packet.labels) && chance(12)) packet.labels = changeLabels({ ...packet.labels });
    }
    return packet;
  }

  function change(object: Members, other: { readonly [name: string]: Json }): void {
    const name = pick([
      ...Object.keys(object),
      ...Object.keys(object),
      'version',
      'key_url',
      'wrap_type',
      'kid',
      'provider',
      'iv',
    ]);
    const value = object[name];
    pick<() => void>([
      () => delete object[name],
      () => put(object, name, json()),
      () => put(object, name, other[name] ?? null),
      () =>
        put(
          object,
          pick([text(3), name.toUpperCase(), 'note', 'labels', 'session_key', 'attester_endpoint', 'wrapped_data']),
          json(),
        ),
      () => {
        if (typeof value === 'string') object[name] = changeText(value);
      },
      () => {
        if (typeof value === 'string') object[name] = changeText(value);
      },
    ])();
  }

  function changeRecipients(recipients: Json[], other: { readonly [name: string]: Json }): Json[] {
    const at = random(recipients.length);
    const theirs = Array.isArray(other.recipients) ? other.recipients : [];
    const entry = recipients[at];
    return pick<() => Json[]>([
      () => recipients.toReversed(),
      () => recipients.toSpliced(at, 1),
      () => recipients.toSpliced(at, 0, ...recipients.slice(at, at + 1)),
      () => [...recipients, ...theirs],
      () => [...theirs, ...recipients].slice(0, 16),
      () => Array.from({ length: pick([16, 17]) }, () => pick(recipients)),
      () => recipients.toSpliced(at, 1, json()),
      () => {
        if (!isObject(entry)) return recipients;
        const changed: Members = { ...entry };
        change(changed, isObject(theirs[0]) ? theirs[0] : {});
        return recipients.toSpliced(at, 1, changed);
      },
      () => {
        if (!isObject(entry)) return recipients;
        const member: Members = pick<() => Members>([
          () => ({ key: generate(grammar, pick(SCHEMES), random) }),
          () => ({ key: pick([...world.keys, ...world.aliases]) }),
          () => ({ key: `${entry.key}/cryptoKeyVersions/1` }),
          () => ({ key: spelled(String(entry.key)) }),
          () => ({
            version: pick(['1', '2', '', '01', '1 ', 'v'.repeat(64), 'v'.repeat(65), 'latest', '0'.repeat(32)]),
          }),
          () => ({ algorithm: pick(ALGORITHMS) }),
          () => ({ wrapped_key: bytes(pick([0, 1, 28, 40, 60, 256, 8192, 8193])).toString('base64') }),
          () => ({ wrapped_key: base64(`vault:v${pick(['1', '2', '01', ''])}:${bytes(60).toString('base64')}`) }),
        ])();
        return recipients.toSpliced(at, 1, { ...entry, ...member });
      },
    ])();
  }

  function changeLabels(object: Members): Members {
    const name = pick(['env', 'x', '1', '', 'é', 'a b', '__proto', 'N'.repeat(65)]);
    object[name] = pick([...VALUES, '', ' a', 'a ', 'é', 'a\tb', 'v'.repeat(257), 1, null]);
    if (chance(10)) for (let index = 0; index < 9; index++) object[`n${index}`] = 'v';
    return object;
  }

  function changeText(value: string): string {
    const raw = Buffer.from(value, 'base64');
    return pick<() => string>([
      () => damage(Buffer.from(value)).toString('latin1'),
      () => damage(raw).toString('base64'),
      () => damage(raw).toString('base64'),
      () => damage(raw).toString('base64'),
      () => value.replace(/=+$/, ''),
      () => `${value}=`,
      () => value.replaceAll('+', '-').replaceAll('/', '_'),
      () => `${value.slice(0, 4)}\n${value.slice(4)}`,
      () => value.replace(/(.)(==?)$/, (_, last: string, padding: string) => `${nextLetter(last)}${padding}`),
      () => raw.subarray(0, random(raw.length + 1)).toString('base64'),
      () => Buffer.concat([raw, bytes(pick([1, 8192]))]).toString('base64'),
    ])();
  }
}

const ALGORITHMS = [
  'AES-256-GCM',
  'AES-GCM',
  'A256GCM',
  'A256KW',
  'GOOGLE_SYMMETRIC_ENCRYPTION',
  'RSA_DECRYPT_OAEP_2048_SHA256',
  'RSA_DECRYPT_OAEP_3072_SHA256',
  'RSA_DECRYPT_OAEP_',
  'SYMMETRIC_DEFAULT',
  'RSAES_OAEP_SHA_256',
  'RSAES_OAEP_SHA_1',
  'RSA-OAEP-256',
  'transit-aead',
  'transit-rsa-oaep',
  'X25519',
  'none',
  'aes-256-gcm',
];
const LETTERS = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/';

/** Sets a bit behind the last byte. */
function nextLetter(letter: string): string {
  return LETTERS[LETTERS.indexOf(letter) + 1] ?? 'A';
}

/** Keys that are there, whatever their names hold; of other hosts and regions no service is asked. */
const KNOWN =
  /^(?:gcpkms:\/\/projects\/p-1\/|awskms:\/\/\/(?:alias\/|arn:aws:kms:eu-west-1:111122223333:)|arn:aws:kms:eu-west-1:111122223333:|azurekms:\/\/testhsm\.|hashivault:\/\/|pkcs11:object=layers;token=images$|keyfile:sha256:|age1|kbs:|x-[a-z])/;

/** The keys that a packet names, and its labels, for set-ups that are about it. */
function readPacket(packet: Uint8Array): { readonly keys: readonly string[]; readonly labels: Record<string, string> } {
  const members = parse(Buffer.from(packet));
  if (!isObject(members)) return { keys: [], labels: {} };
  const entries = Array.isArray(members.recipients) ? members.recipients : [];
  const names = [
    ...entries.map((entry: Json) => (isObject(entry) ? entry.key : undefined)),
    members.key_url,
    members.kid,
  ];
  const keys = names.flatMap((name) => (typeof name === 'string' && KNOWN.test(name) ? [name] : []));
  const labels = isObject(members.labels) ? members.labels : {};
  const valid = Object.entries(labels).filter(
    ([name, value]) =>
      /^[A-Za-z][\w.-]{0,63}$/.test(name) && typeof value === 'string' && /^[!-~]([ -~]{0,254}[!-~])?$/.test(value),
  );
  return { keys, labels: Object.fromEntries(valid.slice(0, 8).map(([name, value]) => [name, String(value)])) };
}

function parse(packet: Buffer): Json | undefined {
  try {
    return JSON.parse(packet.toString());
  } catch {
    return undefined;
  }
}

function isObject(value: Json | undefined): value is { readonly [name: string]: Json } {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
