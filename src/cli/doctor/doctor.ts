// The command that tries keys and finds what is wrong with a set-up.

import { homedir } from 'node:os';
import { join } from 'node:path';
import { OcicryptError } from '../../base/errors.ts';
import { formatEntry, type KeyUri, parseKeyUri } from '../../base/key-uri.ts';
import { createKekStore } from '../../kms/store.ts';
import { readText } from '../../node/files.ts';
import type { Finding } from '../../node/finding.ts';
import { findRuntimes, leftContainerds } from '../../node/runtimes.ts';
import { DEFAULT_LIMITS, limitsWithin } from '../../provider/attempts.ts';
import { checkLabels } from '../../provider/labels.ts';
import { type ProbeResult, probeKey } from '../../provider/probe.ts';
import { backendSettings } from '../backends.ts';
import type { CommandContext } from '../command.ts';
import type { Settings } from '../options/settings.ts';
import { keyFileUri } from '../setup.ts';
import { asciiJson } from '../text.ts';
import { examineClients } from './clients.ts';
import { shortenKey, showBlock, showFinding } from './finding.ts';
import { type ImageProbe, isImageName, probeImage, reportImage, showImage } from './image.ts';
import { examineNode } from './node.ts';
import { findSettings } from './settings.ts';
import { findSignatureTraps } from './signatures.ts';

/**
 * Wraps and unwraps a random probe with each key that is named, or else with each that the settings name exactly; opens
 * layer keys of each image that is named; and looks at what clients are told about providers. Prints all of it, and
 * fails with the first failure.
 */
export async function runDoctor(context: CommandContext): Promise<void> {
  const { settings, terminal } = context;
  const labels = settings.pairs('context') ?? {};
  checkLabels(labels);
  const backends = backendSettings(settings, (line) => terminal.say(`warning: ${line}`));
  // Who reads what the doctor says can type a PIN, too.
  const { pkcs11 } = backends;
  const keks = createKekStore(
    pkcs11 === undefined ? backends : { ...backends, pkcs11: { ...pkcs11, askInDoubt: true } },
  );
  const options = {
    openKek: (uri: KeyUri) => keks.open(uri),
    labels,
    limits: limitsWithin(settings.keyTime() ?? DEFAULT_LIMITS.total),
  };
  const probes: ProbeResult[] = [];
  try {
    // One after the other: a token's session and a shared connection would make each other look slow.
    for (const uri of keysOf(settings)) probes.push(await probeKey(uri, options));
  } finally {
    await keks.close();
  }
  const images: ImageProbe[] = [];
  for (const image of settings.operands.filter(isImageName)) images.push(await probeImage(context, image));
  const runtimes = await findRuntimes('/');
  const found = runtimes.containerds.filter(
    ({ program, config }) => program !== undefined || readText(config) !== undefined,
  );
  const containerds = [...found, ...leftContainerds('/', runtimes.containerds)];
  const findings = [
    ...(await findSettings(process.env)),
    ...(await examineClients(process.env)),
    ...(await examineNode(context, { ...runtimes, containerds }, 'machine')),
    ...findSignatureTraps([join(homedir(), '.config/containers'), '/etc/containers']),
  ];
  if (settings.switch('json')) terminal.write(`${asciiJson(report(probes, images, findings), 2)}\n`);
  else terminal.write([...probes.map(showProbe), ...images.map(showImage), ...findings.map(showFinding)].join(''));
  const failure = [...probes, ...images].find((probe) => probe.failure !== undefined)?.failure;
  if (failure !== undefined) throw failure;
  const finding = findings.find(({ level }) => level === 'fail');
  if (finding === undefined) return;
  throw new OcicryptError('configuration', `${finding.subject} ${finding.message}`, { hint: finding.hint });
}

/** Prefixes name no key that could be tried. */
function keysOf(settings: Settings): readonly KeyUri[] {
  const { operands } = settings;
  if (operands.length > 0) return distinct(operands.filter((text) => !isImageName(text)).map(parseKeyUri));
  const defaultKey = settings.text('kmsURI');
  const allowed = settings.list('allow').filter((text) => !text.endsWith('/*'));
  const named = [...allowed, ...(defaultKey === undefined ? [] : [defaultKey])].map(parseKeyUri);
  return distinct([...named, ...settings.list('key').map(keyFileUri)]);
}

function distinct(uris: readonly KeyUri[]): readonly KeyUri[] {
  return [...new Map(uris.map((uri) => [formatEntry(uri), uri])).values()];
}

function report(probes: readonly ProbeResult[], images: readonly ImageProbe[], findings: readonly Finding[]): unknown {
  return {
    keys: probes.map(({ failure, ...probe }) => ({
      ...probe,
      ok: failure === undefined,
      error: failure && { code: failure.code, message: failure.message, hint: failure.hint },
    })),
    images: images.map(reportImage),
    setup: findings,
  };
}

/** A probe as lines: what was asked, what answered, how long it took, and what to grant. */
function showProbe({ key, backend, wrapped, wrapsOnly, phases, failure }: ProbeResult): string {
  const times = phases.map(({ phase, milliseconds }) => `${phase} ${milliseconds} ms`).join(', ');
  const version = wrapped?.version === undefined ? '' : `, version ${wrapped.version}`;
  return showBlock(failure === undefined ? 'ok' : 'fail', shortenKey(key), [
    ['backend', backend],
    ['known as', wrapped === undefined || wrapped.key === key ? undefined : shortenKey(wrapped.key)],
    ['algorithm', wrapped === undefined ? undefined : `${wrapped.algorithm}${version}`],
    ['allows', wrapsOnly ? 'wrapping only: to unwrap, allow the key without its version' : undefined],
    ['time', failure === undefined ? times : `${times} (failed)`],
    ['error', failure === undefined ? undefined : `${failure.code}: ${failure.message}`],
    ['to do', failure?.hint],
  ]);
}
