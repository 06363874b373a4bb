// A second reader of requests, written from docs/protocol.md alone: it imports nothing of src.

/** What a request asks, or undefined where it is `bad-input`. */
export type ReadRequest = {
  readonly operation: 'wrap' | 'unwrap';
  /** The record or the packet. */
  readonly payload: Buffer;
  /** Every name of `Parameters` with its values; undefined is a value that is no bytes. */
  readonly parameters: ReadonlyMap<string, readonly (Buffer | undefined)[]>;
};

type Value = null | boolean | number | string | readonly Value[] | ReadonlyMap<string, Value>;

class Refused extends Error {}

/** docs/protocol.md sections 1 to 3. */
export function readRequest(bytes: Uint8Array): ReadRequest | undefined {
  return orUndefined(() => {
    if (bytes.length > 262_144) refuse();
    const root = objectOf(parse(bytes));
    const operation = member(root, 'op');
    if (operation === 'keywrap') {
      const params = objectOf(member(root, 'keywrapparams'));
      const optsdata = member(params, 'optsdata');
      const payload =
        typeof optsdata === 'string' && optsdata.startsWith('{') ? Buffer.from(optsdata) : bytesOf(optsdata);
      const length = payload?.length ?? 0;
      if (payload === undefined || length < 1 || length > 4096) return refuse();
      return { operation: 'wrap', payload, parameters: parametersOf(member(params, 'ec')) };
    }
    if (operation !== 'keyunwrap') refuse();
    const params = objectOf(member(root, 'keyunwrapparams'));
    const payload = bytesOf(member(params, 'annotation'));
    if (payload === undefined || payload.length < 1 || payload.length > 32_768) return refuse();
    return { operation: 'unwrap', payload, parameters: parametersOf(member(params, 'dc')) };
  });
}

const SCHEMES = new Set([
  ...['gpg-client', 'gpg-client-version', 'gpg-privatekeys', 'gpg-privatekeys-passwords', 'gpg-pubkeyringfile'],
  ...['gpg-recipients', 'pkcs11-config', 'pkcs11-yamls', 'privkeys', 'privkeys-passwords', 'pubkeys', 'x509s'],
]);

/**
 * docs/protocol.md section 4: the texts of the key URIs under our own name, or undefined where the request is `bad-input`.
 *
 * @param isKeyUri whether a text is a key URI (docs/keys.md)
 */
export function readKeys(
  { parameters }: ReadRequest,
  names: { readonly configured: string | undefined; readonly fallback: string },
  isKeyUri: (text: string) => boolean,
): readonly string[] | undefined {
  return orUndefined(() => {
    const name = ownName(parameters, names, isKeyUri);
    const values = name === undefined ? [] : (parameters.get(name) ?? []);
    const texts = values.map((value) => textOf(value) ?? refuse());
    const keys = texts.filter((text) => text !== '' && text !== 'Enabled');
    return keys.every(isKeyUri) ? keys : refuse();
  });
}

function ownName(
  parameters: ReadRequest['parameters'],
  { configured, fallback }: { readonly configured: string | undefined; readonly fallback: string },
  isKeyUri: (text: string) => boolean,
): string | undefined {
  if (configured !== undefined) return configured;
  const usual = [fallback, 'kmscrypt', 'grpc-keyprovider'].find((name) => parameters.has(name));
  if (usual !== undefined) return usual;
  const names = [...parameters.keys()].filter((name) => !SCHEMES.has(name));
  const carrying = names.filter((name) => parameters.get(name)?.some((value) => isKeyUri(textOf(value) ?? '')));
  if (carrying.length > 1) refuse();
  return carrying[0] ?? (names.length === 1 ? names[0] : undefined);
}

function textOf(value: Buffer | undefined): string | undefined {
  const text = value?.toString('latin1');
  return text !== undefined && /^[!-~]{0,2048}$/.test(text) ? text : undefined;
}

function parametersOf(config: Value | undefined): ReadRequest['parameters'] {
  if (config === undefined || config === null) return new Map();
  const named = member(objectOf(config), 'Parameters');
  if (named === undefined || named === null) return new Map();
  return new Map([...objectOf(named)].map(([name, values]) => [name, isArray(values) ? values.map(bytesOf) : []]));
}

/** docs/protocol.md section 2, "Names". */
function member(object: ReadonlyMap<string, Value>, name: string): Value | undefined {
  const fold = (text: string) =>
    text
      .replace(/[A-Z]/g, (letter) => letter.toLowerCase())
      .replaceAll('\u017f', 's')
      .replaceAll('\u212a', 'k');
  const found = [...object].filter(([candidate]) => fold(candidate) === fold(name));
  return found.length > 1 ? refuse() : found[0]?.[1];
}

/** docs/protocol.md section 2, "Bytes". */
function bytesOf(value: Value | undefined): Buffer | undefined {
  if (typeof value === 'string') {
    const bytes = Buffer.from(value, 'base64');
    return bytes.toString('base64') === value ? bytes : undefined;
  }
  if (!isArray(value)) return undefined;
  const numbers = value.map((one) => (typeof one === 'number' && Number.isInteger(one) ? one : -1));
  return numbers.every((one) => one >= 0 && one <= 255) ? Buffer.from(numbers) : undefined;
}

/** docs/protocol.md section 2, by descent: the depth is bounded. */
function parse(bytes: Uint8Array): Value {
  const text = Buffer.from(bytes).toString();
  if (!Buffer.from(text).equals(bytes)) refuse();
  let at = 0;
  const take = (pattern: RegExp): string | undefined => {
    pattern.lastIndex = at;
    const found = pattern.exec(text)?.[0];
    at += found?.length ?? 0;
    return found;
  };
  const space = () => take(/[ \t\n\r]*/y);
  const need = (pattern: RegExp): string => take(pattern) ?? refuse();
  const string = (): string => {
    const raw = need(/"[ !#-[\]-\u{10ffff}]*(?:\\(?:["\\/bfnrt]|u[0-9A-Fa-f]{4})[ !#-[\]-\u{10ffff}]*)*"/uy);
    const value: unknown = JSON.parse(raw);
    return typeof value === 'string' ? value.toWellFormed() : refuse();
  };
  const list = (close: RegExp, item: () => void): void => {
    space();
    if (take(close) !== undefined) return;
    do item();
    while (take(/,/y) !== undefined);
    need(close);
  };
  const value = (level: number): Value => {
    space();
    const start = text[at];
    let result: Value;
    if (start === '"') result = string();
    else if (start === '{' || start === '[') {
      at++;
      if (level > 16) refuse();
      const members = new Map<string, Value>();
      const items: Value[] = [];
      if (start === '[') list(/\]/y, () => items.push(value(level + 1)));
      else {
        list(/\}/y, () => {
          space();
          const name = string();
          space();
          need(/:/y);
          const inner = value(level + 1);
          if (members.has(name)) refuse();
          members.set(name, inner);
        });
      }
      result = start === '[' ? items : members;
    } else {
      const scalar = need(/-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null/y);
      if (scalar.length > 32) refuse();
      result = JSON.parse(scalar);
    }
    space();
    return result;
  };
  const result = value(1);
  return at === text.length ? result : refuse();
}

function objectOf(value: Value | undefined): ReadonlyMap<string, Value> {
  return value instanceof Map ? value : refuse();
}

function isArray(value: Value | undefined): value is readonly Value[] {
  return Array.isArray(value);
}

function refuse(): never {
  throw new Refused();
}

function orUndefined<Result>(run: () => Result): Result | undefined {
  try {
    return run();
  } catch (error) {
    if (error instanceof Refused) return undefined;
    throw error;
  }
}
