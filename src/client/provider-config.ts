// The only code that reads the file that OCICRYPT_KEYPROVIDER_CONFIG names, as containers/ocicrypt 1.3 has it.
// https://github.com/containers/ocicrypt/blob/main/config/keyprovider-config/config.go

import { OcicryptError } from '../base/errors.ts';
import { asArray, asObject, asText, type JsonObject, type JsonValue, parseJson } from '../base/json.ts';
import { findMember } from '../base/json-members.ts';
import { readPublicFile } from '../base/secret-file.ts';
import { showPath, showValue } from '../base/shown.ts';
import type { GrpcTarget, GrpcTls } from './grpc-client.ts';

/** How a configured provider is asked: a command is run for each request, or a server is called. */
export type ConfiguredProvider =
  | { readonly kind: 'command'; readonly path: string; readonly words: readonly string[] }
  | { readonly kind: 'grpc'; readonly target: GrpcTarget; readonly tls: GrpcTls | undefined };

const MAXIMUM_FILE = 1024 * 1024;

/**
 * The providers of a configuration file, by name. Where no file is named or it is missing there are none, as for every
 * client; an entry that cannot be used fails when it is asked for.
 *
 * @throws OcicryptError `configuration`
 */
export async function readProviderConfig(
  file: string | undefined,
): Promise<ReadonlyMap<string, () => ConfiguredProvider>> {
  if (file === undefined || file === '') return new Map();
  let bytes: Uint8Array;
  try {
    bytes = readPublicFile(file, 'the configuration of providers', MAXIMUM_FILE);
  } catch (cause) {
    if (!(cause instanceof OcicryptError)) throw cause;
    if (cause.code === 'not-found') return new Map();
    throw cause.with({ hint: HINT });
  }
  const json = bytes.length > MAXIMUM_FILE ? undefined : parse(bytes, file);
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
  if (command !== undefined) {
    const path = asText(member(command, 'path', what));
    const words = (asArray(member(command, 'args', what)) ?? []).map(asText);
    if (path !== undefined && path !== '' && words.every((word) => word !== undefined)) {
      return { kind: 'command', path, words };
    }
    throw new OcicryptError('configuration', `${what} has no command that can be run`, { hint: HINT });
  }
  const target = asText(entry && member(entry, 'grpc', what));
  if (target === undefined || target === '') {
    throw new OcicryptError('configuration', `${what} has neither cmd nor grpc`, { hint: HINT });
  }
  const tls = parseTls(asObject(entry && member(entry, 'grpc-tls', what)), what);
  return { kind: 'grpc', target: parseTarget(target, tls !== undefined, what), tls };
}

/** The targets that grpc-go takes and that name one place: https://github.com/grpc/grpc/blob/master/doc/naming.md */
function parseTarget(target: string, secure: boolean, what: string): GrpcTarget {
  const path = /^unix:(?:\/\/)?(\/.+)$/.exec(target)?.[1];
  if (path !== undefined) return { kind: 'unix', path };
  const [, bracketed, plain, port] =
    /^(?:dns:\/\/\/|passthrough:\/\/\/)?(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9.-]+)):(\d{1,5})$/.exec(target) ?? [];
  const host = bracketed ?? plain;
  if (host === undefined) {
    throw new OcicryptError('configuration', `${what} has the target ${showValue(target)}`, {
      hint: 'write unix:///PATH or HOST:PORT',
    });
  }
  if (!secure && !/^(?:localhost|::1|127\.[0-9.]+)$/.test(host)) {
    throw new OcicryptError('configuration', `${what} would be sent layer keys in clear over the network`, {
      hint: 'add grpc-tls with root-ca-file, or use a unix socket',
    });
  }
  return { kind: secure ? 'tls' : 'tcp', host, port: Number(port) };
}

function parseTls(entry: JsonObject | undefined, what: string): GrpcTls | undefined {
  if (entry === undefined) return undefined;
  if (member(entry, 'insecure-skip-verify', what) === true) {
    throw new OcicryptError('configuration', `${what} turns the verification of certificates off`, {
      hint: 'name the authority of the server in root-ca-file',
    });
  }
  const text = (name: string) => {
    const value = asText(member(entry, name, what));
    return value === '' ? undefined : value;
  };
  const [authority, serverName] = [text('root-ca-file'), text('server-name')];
  const [certificate, privateKey] = [text('cert-file'), text('key-file')];
  return {
    ...(authority === undefined ? {} : { authority }),
    ...(serverName === undefined ? {} : { serverName }),
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
