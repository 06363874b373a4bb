// Reads the file that OCICRYPT_KEYPROVIDER_CONFIG names, as containers/ocicrypt 1.3 has it.
// https://github.com/containers/ocicrypt/blob/main/config/keyprovider-config/config.go

import { type Address, isLoopback, parseHostPort } from '../base/address.ts';
import { OcicryptError } from '../base/errors.ts';
import { asArray, asObject, asText, type JsonObject, type JsonValue, parseJson } from '../base/json.ts';
import { findMember } from '../base/json-members.ts';
import { readPublicFile } from '../base/secret-file.ts';
import { showPath, showValue } from '../base/shown.ts';
import type { GrpcTls } from './grpc-client.ts';

/** How a configured provider is asked: a command is run for each request, or a server is called. */
export type ConfiguredProvider =
  | {
      readonly kind: 'command';
      readonly path: string;
      readonly words: readonly string[];
      /** Whether it names a server as well, which is never called. */
      readonly hasIdleServer: boolean;
    }
  | {
      readonly kind: 'grpc';
      readonly target: Address;
      readonly tls: GrpcTls | undefined;
      /** Why it is not called from here, although other clients call it. */
      readonly refusal: OcicryptError | undefined;
    };

const MAXIMUM_FILE_BYTES = 1024 * 1024;

/**
 * The providers of a configuration file, by name. If no file is named or it is missing there are none, as for every
 * client; an entry that no client could use fails when it is asked for.
 *
 * @throws OcicryptError `configuration`
 */
export async function readProviderConfig(
  file: string | undefined,
): Promise<ReadonlyMap<string, () => ConfiguredProvider>> {
  if (file === undefined || file === '') return new Map();
  let bytes: Uint8Array;
  try {
    bytes = readPublicFile(file, 'the configuration of providers', MAXIMUM_FILE_BYTES);
  } catch (cause) {
    if (!(cause instanceof OcicryptError)) throw cause;
    if (cause.code === 'not-found') return new Map();
    throw cause.with({ hint: HINT });
  }
  const json = bytes.length > MAXIMUM_FILE_BYTES ? undefined : parse(bytes, file);
  const entries = asObject(json && member(json, 'key-providers', file));
  if (entries === undefined)
    throw new OcicryptError('configuration', `${showPath(file)} has no key-providers`, { hint: HINT });
  return new Map([...entries].map(([name, entry]) => [name, () => parseProvider(name, asObject(entry), file)]));
}

const HINT = 'check OCICRYPT_KEYPROVIDER_CONFIG; ocicrypt-kms config ocicrypt prints a file that works';

function parse(bytes: Uint8Array, file: string): JsonObject | undefined {
  try {
    return asObject(parseJson(bytes, 'the configuration of providers'));
  } catch (cause) {
    throw new OcicryptError('configuration', `${showPath(file)} is not valid JSON`, { cause, hint: HINT });
  }
}

/** `cmd` wins over `grpc`, as in ocicrypt. */
function parseProvider(name: string, entry: JsonObject | undefined, file: string): ConfiguredProvider {
  const what = `provider ${name} of ${showPath(file)}`;
  const command = asObject(entry && member(entry, 'cmd', what));
  if (entry !== undefined && command !== undefined) {
    const path = asText(member(command, 'path', what));
    const words = (asArray(member(command, 'args', what)) ?? []).map(asText);
    if (path !== undefined && path !== '' && words.every((word) => word !== undefined)) {
      return { kind: 'command', path, words, hasIdleServer: Boolean(asText(member(entry, 'grpc', what))) };
    }
    throw new OcicryptError('configuration', `${what} has a cmd without a path, or with args that are no texts`, {
      hint: HINT,
    });
  }
  const target = asText(entry && member(entry, 'grpc', what));
  if (target === undefined || target === '') {
    const problem =
      entry !== undefined && member(entry, 'path', what) !== undefined
        ? 'has path and args without cmd around them: clients say "Unsupported keyprovider invocation"'
        : 'has neither cmd nor grpc';
    throw new OcicryptError('configuration', `${what} ${problem}`, {
      hint: 'write {"cmd": {"path": "/…/ocicrypt-kms", "args": ["keyprovider"]}}',
    });
  }
  const tlsEntry = asObject(entry && member(entry, 'grpc-tls', what));
  const place = parseTarget(target, what);
  return {
    kind: 'grpc',
    target: place.kind === 'tcp' && tlsEntry !== undefined ? { ...place, kind: 'tls' } : place,
    tls: parseTls(tlsEntry, what),
    refusal: refuse(place, tlsEntry, what),
  };
}

/**
 * The targets that grpc-go takes and that name one place, as it reads them: a scheme in either case, `unix:` with a path
 * that may be relative, an address also in `dns:` and `passthrough:`, with or without slashes, and no host for this one.
 * A target that names a DNS server of its own is none of them. https://github.com/grpc/grpc/blob/master/doc/naming.md
 */
function parseTarget(target: string, what: string): Address {
  const [, scheme = '', rest = target] = /^(unix|unix-abstract|dns|passthrough):(.+)$/i.exec(target) ?? [];
  switch (scheme.toLowerCase()) {
    case 'unix': {
      // What a URL would decode or cut off is not guessed at.
      const path = /^(?:\/\/(?=\/))?([^?#%]+)$/.exec(rest)?.[1];
      if (path !== undefined && !path.startsWith('//')) return { kind: 'unix', path };
      break;
    }
    case 'unix-abstract':
      if (!rest.startsWith('/')) return { kind: 'unix', path: `\0${rest}` };
      break;
    default: {
      const address = scheme === '' ? rest : rest.replace(/^\/\/\//, '');
      if (/^passthrough$/i.test(scheme) && address.startsWith('unix:')) return parseTarget(address, what);
      const named = parseHostPort(address.startsWith(':') ? `localhost${address}` : address);
      if (named !== undefined) return { kind: 'tcp', ...named };
    }
  }
  throw new OcicryptError('configuration', `${what} has the target ${showValue(target)}`, {
    hint: 'write unix:///PATH or HOST:PORT',
  });
}

function refuse(place: Address, tls: JsonObject | undefined, what: string): OcicryptError | undefined {
  if (tls !== undefined && member(tls, 'insecure-skip-verify', what) === true) {
    return new OcicryptError('configuration', `${what} turns the verification of certificates off`, {
      hint: 'name the authority of the server in root-ca-file',
    });
  }
  if (place.kind === 'unix' || tls !== undefined || isLoopback(place.host)) return undefined;
  return new OcicryptError('configuration', `${what} would be sent layer keys in clear over the network`, {
    hint: 'add grpc-tls with root-ca-file, or use a unix socket',
  });
}

function parseTls(entry: JsonObject | undefined, what: string): GrpcTls | undefined {
  if (entry === undefined) return undefined;
  const text = (name: string) => {
    const value = asText(member(entry, name, what));
    return value === '' ? undefined : value;
  };
  const [authority, serverName] = [text('root-ca-file'), text('server-name')];
  const [certificate, privateKey] = [text('cert-file'), text('key-file')];
  return {
    authority,
    serverName,
    // ocicrypt takes them only together.
    ...(certificate === undefined || privateKey === undefined ? {} : { certificate, privateKey }),
  };
}

/** As Go finds it. @param what names the whole in an error */
function member(object: JsonObject, name: string, what: string): JsonValue | undefined {
  try {
    return findMember(object, name);
  } catch (cause) {
    throw new OcicryptError('configuration', `${what} has ${name} in two spellings`, { cause, hint: HINT });
  }
}
