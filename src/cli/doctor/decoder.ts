// Pushes made-up layers through the decoders of a containerd, as containerd would: with its variables and a payload.

import { resolve } from 'node:path';
import { equalBytes } from '../../base/bytes.ts';
import { asOcicryptError, OcicryptError } from '../../base/errors.ts';
import { showPath } from '../../base/shown.ts';
import type { LayerKeyWrapper } from '../../client/layer-keys.ts';
import { readProviderConfig } from '../../client/provider-config.ts';
import type { FoundDecoder } from '../../node/containerd-findings.ts';
import { ENCRYPTED_TYPES } from '../../node/drop-in.ts';
import type { Finding } from '../../node/finding.ts';
import { makeUpLayer, STRANGER } from '../../node/made-up-layer.ts';
import { type Ended, lastComplaint, runProgram } from '../../node/programs.ts';
import { findContentStores } from '../../node/stores.ts';
import type { CommandContext } from '../command.ts';
import { SERVICE_ADDRESS } from '../config-systemd.ts';
import { ImageTools } from '../image/setup.ts';
import { readConfiguration } from '../options/configuration.ts';
import { DECODER_OPTIONS, KEYPROVIDER_OPTIONS } from '../options/sets.ts';
import { parseSettings, Settings } from '../options/settings.ts';
import type { OptionName } from '../options/table.ts';

const PATIENCE_MILLISECONDS = 60_000;
/** Characters. */
const MAXIMUM_LINE = 1000;

/** Tries each type that the decoder accepts. */
export async function probeDecoder(context: CommandContext, decoder: FoundDecoder): Promise<readonly Finding[]> {
  const { subject } = decoder;
  let settings: Settings | undefined;
  try {
    settings = await providerSettings(decoder);
    if (decoder.kind === 'ours' && settings !== undefined) refuseUseless(settings, decoder);
  } catch (error) {
    const { code, message, hint } = asOcicryptError(error);
    return [{ level: 'fail', subject, message: `${code}: ${message}`, hint }];
  }
  const accepted = ENCRYPTED_TYPES.filter((type) => decoder.processor.accepts.includes(type));
  const keys = settings === undefined ? [] : keysOf(settings);
  const findings: Finding[] = [];
  const tools = settings === undefined ? undefined : new ImageTools({ ...context, settings: withoutLogs(settings) });
  try {
    for (const type of accepted) {
      const { finding, isKeyUsable } = await probeType(decoder, type, tools, keys);
      findings.push(finding);
      // It would be the same for each type.
      if (!isKeyUsable) break;
    }
  } finally {
    await tools?.close();
  }
  return findings;
}

/** What was found, and whether a layer could be encrypted to the key, if there is one to try. */
type Probed = { readonly finding: Finding; readonly isKeyUsable: boolean };

async function probeType(
  decoder: FoundDecoder,
  mediaType: string,
  tools: ImageTools | undefined,
  keys: readonly string[],
): Promise<Probed> {
  const { subject } = decoder;
  const said = mediaType.replace('application/vnd.oci.image.layer.v1.', '');
  const probed = (finding: Finding): Probed => ({ finding, isKeyUsable: true });
  if (tools === undefined || keys.length === 0) return probed(await probeStranger(decoder, mediaType, said));
  const signal = AbortSignal.timeout(PATIENCE_MILLISECONDS);
  let layer: Awaited<ReturnType<typeof makeUpLayer>>;
  try {
    // One key shows that the way is open; each key is the doctor's affair.
    const recipients: readonly LayerKeyWrapper[] = await (await tools.keys()).wrappers(keys.slice(0, 1));
    layer = await makeUpLayer(mediaType, recipients, signal);
  } catch (error) {
    const known = asOcicryptError(error);
    // A node's credentials are mostly for unwrapping alone.
    if (known.code === 'refused' || known.code === 'not-allowed')
      return probed(await probeStranger(decoder, mediaType, said));
    const message = `no layer could be encrypted to try it: ${known.code}: ${known.message}`;
    return { finding: { level: 'fail', subject, message, hint: known.hint }, isKeyUsable: false };
  }
  const ended = await run(decoder, layer.encrypted, layer.payload);
  if (ended.status !== 0) return probed(failure(subject, said, ended));
  const isPlain = /\.tar$/.test(decoder.processor.returns);
  if (
    equalBytes(ended.output, isPlain || decoder.kind === 'ours' ? layer.tar : layer.compressed) &&
    (isPlain || decoder.kind !== 'ours')
  )
    return probed({ level: 'ok', subject, message: `decrypts ${said}` });
  const message = `gives back ${said} as something other than ${decoder.processor.returns}`;
  const hint = 'ocicrypt-kms config containerd prints what belongs to this decoder';
  return probed({ level: 'fail', subject, message, hint });
}

/** Codes that say that a decoder did not come as far as the layer's key. */
const BEFORE_THE_KEY =
  /^(?:\S*: )*(?:usage|configuration|not-found|not-written|unavailable|unauthenticated|deadline-exceeded|internal): /;

/** What no key opens is refused, for the right reason. */
async function probeStranger(decoder: FoundDecoder, mediaType: string, said: string): Promise<Finding> {
  const { subject } = decoder;
  const signal = AbortSignal.timeout(PATIENCE_MILLISECONDS);
  const { encrypted, payload } = await makeUpLayer(mediaType, [STRANGER], signal);
  const ended = await run(decoder, encrypted, payload);
  const line = lastComplaint(ended, MAXIMUM_LINE);
  if (ended.status === 0)
    return {
      level: 'fail',
      subject,
      message: `takes a ${said} that nothing can decrypt`,
      hint: 'it is no decoder: correct its path',
    };
  if (
    ended.status === undefined ||
    (decoder.kind === 'ours' && (!/^ocicrypt-kms: /.test(line) || BEFORE_THE_KEY.test(line)))
  )
    return failure(subject, said, ended);
  return {
    level: 'ok',
    subject,
    message: `answers for ${said}; no layer could be made up that it opens: try ocicrypt-kms node check --pull=IMAGE`,
  };
}

function run(
  { program, processor, environment }: FoundDecoder,
  input: Uint8Array,
  payload: Uint8Array,
): Promise<Ended> {
  return runProgram([program, ...processor.args], { environment, input, payload, milliseconds: PATIENCE_MILLISECONDS });
}

function failure(subject: string, said: string, ended: Ended): Finding {
  const [, line = '', hint = 'run it by hand to see why'] =
    /^(.*?)(?:; ([^;]*))?$/s.exec(lastComplaint(ended, MAXIMUM_LINE)) ?? [];
  return { level: 'fail', subject, message: `does not decrypt ${said}: ${line || 'it ends without a word'}`, hint };
}

/**
 * What a made-up layer, which comes with its payload and needs no store, does not show.
 *
 * @throws OcicryptError `configuration` if no key is allowed, `not-found` if the store is none
 */
function refuseUseless(settings: Settings, { environment }: FoundDecoder): void {
  const file = settings.text('config');
  const ways = ['remote', 'key', 'allow', 'kbs-key'] as const;
  const isKeyless = ways.every((name) => settings.texts(name).length === 0);
  if (isKeyless && environment.OCICRYPT_KEYPROVIDER_CONFIG === undefined) {
    throw new OcicryptError('configuration', `no key is allowed${file === undefined ? '' : ` in ${showPath(file)}`}`, {
      hint: `name the keys of this node: allow, key or remote${file === undefined ? '' : ' in that file'}`,
    });
  }
  const store = settings.text('content-store');
  if (store !== undefined) findContentStores(store, process.pid);
}

/** What our provider behind a decoder is told; undefined if another one is behind it. */
async function providerSettings({ kind, processor, environment }: FoundDecoder): Promise<Settings | undefined> {
  if (kind === 'ours')
    return readWords(processor.args, 'decoder', DECODER_OPTIONS, 'args = ["decoder", "--config=FILE"]');
  const file = environment.OCICRYPT_KEYPROVIDER_CONFIG;
  if (file === undefined) return undefined;
  for (const [, read] of await readProviderConfig(file)) {
    const provider = read();
    if (provider.kind === 'command' && provider.words.includes('keyprovider'))
      return readWords(provider.words, 'keyprovider', KEYPROVIDER_OPTIONS, '"args": ["keyprovider", "--config=FILE"]');
  }
  return undefined;
}

async function readWords(
  words: readonly string[],
  command: string,
  options: readonly OptionName[],
  usage: string,
): Promise<Settings> {
  // Under Node the first word is the script.
  const start = words.indexOf(command);
  if (start < 0) throw new OcicryptError('usage', `its args do not begin with ${command}`, { hint: `write ${usage}` });
  if (words.slice(0, start).some((word) => word.startsWith('-')))
    throw new OcicryptError('usage', `its args have an option before the command ${command}`, {
      hint: `put ${command} first: ${usage}`,
    });
  const settings = await parseSettings(words.slice(start + 1), options);
  const file = settings.text('config');
  return file === undefined ? settings : settings.over(await readConfiguration(file));
}

function withoutLogs(settings: Settings): Settings {
  return settings.keeping(['audit-log', 'debugLog'], new Settings(new Map()));
}

/** Those that are named exactly. A server's keys are its own affair, but the service of this node reads the same file. */
function keysOf(settings: Settings): readonly string[] {
  const remote = settings.text('remote');
  if (remote !== undefined && remote !== SERVICE_ADDRESS) return [];
  return [
    ...settings.list('key').map((file) => (/^[a-z0-9]+:/.test(file) ? file : `keyfile://${resolve(file)}`)),
    ...settings.list('allow').filter((key) => !key.endsWith('/*')),
  ];
}
