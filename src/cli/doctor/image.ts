// What the doctor says of an image: who can open which of its layers here, and what is in the way.

import { asOcicryptError, OcicryptError } from '../../base/errors.ts';
import { printable, showName } from '../../base/shown.ts';
import { createUnwrapper, type KeyHolder } from '../../client/holders.ts';
import { providerOf } from '../../client/layer-keys.ts';
import type { PacketDescription } from '../../image/model/packets.ts';
import { parseImageReference } from '../../image/model/reference.ts';
import { groupLayers, type LayerGroup, tryLayerKey } from '../../image/probe.ts';
import { type RuntimeName, runtimeName } from '../../image/runtimes.ts';
import type { CommandContext } from '../command.ts';
import { runOnImage } from '../image/run.ts';
import type { ImageTools } from '../image/setup.ts';
import { type FindingRow, shortenKey, showBlock } from './finding.ts';

/** An image that has been tried. */
export type ImageProbe = {
  readonly image: string;
  /** What becomes of it if a runtime is given this name; undefined outside registries. */
  readonly named: RuntimeName | undefined;
  readonly groups: readonly GroupProbe[];
  /** Why the whole could not be read, or the first group not be opened. */
  readonly failure: OcicryptError | undefined;
};

/** Layers with the same recipients; one key of theirs has been tried. */
type GroupProbe = Pick<LayerGroup, 'layers'> & {
  readonly recipients: readonly PacketDescription[];
  readonly openedBy: readonly string[];
  readonly refusals: readonly Refusal[];
};

type Refusal = { readonly by: string; readonly error: OcicryptError };

/** Whether the word names an image and no key. */
export function isImageName(text: string): boolean {
  return /^(?:oci|oci-archive|dir|docker-archive|docker):/.test(text);
}

/**
 * Opens one layer key for each set of recipients that the image has, with everybody who might: the keys that the
 * settings name, and the providers that clients are told of.
 */
export async function probeImage(context: CommandContext, image: string): Promise<ImageProbe> {
  return runOnImage(context, async ({ tools, signal }) => {
    let named: RuntimeName | undefined;
    try {
      const reference = parseImageReference(image);
      named = reference.transport === 'docker' ? runtimeName(reference) : undefined;
      const groups: GroupProbe[] = [];
      for (const group of await groupLayers(tools.source(image), signal)) {
        groups.push(await probeGroup(group, tools, signal));
      }
      const closed = groups.find(({ recipients, openedBy }) => recipients.length > 0 && openedBy.length === 0);
      return { image: showName(image), named, groups, failure: closed?.refusals[0]?.error };
    } catch (error) {
      signal.throwIfAborted();
      return { image: showName(image), named, groups: [], failure: asOcicryptError(error) };
    }
  });
}

/** The same for a program. */
export function reportImage({ image, named, groups, failure }: ImageProbe): unknown {
  return {
    image,
    named,
    ok: failure === undefined,
    groups: groups.map(({ refusals, ...group }) => ({
      ...group,
      refusals: refusals.map(({ by, error }) => ({ by, ...describe(error) })),
    })),
    error: failure && describe(failure),
  };
}

/** A block for each set of recipients. What packets say of themselves is a stranger's text. */
export function showImage({ image, named, groups, failure }: ImageProbe): string {
  if (groups.length === 0) return showBlock(failure === undefined ? 'warn' : 'fail', image, problemRows(failure));
  const name: FindingRow = ['named', named === undefined ? undefined : describeName(named)];
  return groups.map((group) => showGroup(image, name, group)).join('');
}

function describeName({ kind, runtimes, refusing }: RuntimeName): string {
  const others = refusing.length === 0 ? '' : `; ${refusing.join(', ')} refuse: name it by a tag, best its digest tag`;
  return `by ${kind}: ${runtimes.join(', ')} decrypt it${others}`;
}

function showGroup(image: string, name: FindingRow, { layers, recipients, openedBy, refusals }: GroupProbe): string {
  const where: FindingRow = ['layers', [...Map.groupBy(layers, ({ platform }) => platform)].map(showLayers).join('; ')];
  if (recipients.length === 0) return showBlock('warn', image, [where, ['found', 'not encrypted']]);
  const rows: readonly FindingRow[] = [
    where,
    name,
    ...recipients.flatMap(namesOf).map((name): FindingRow => ['for', printable(name)]),
    ...openedBy.map((by): FindingRow => ['opened by', by]),
    ...refusals.flatMap(({ by, error }) => problemRows(error, by)),
  ];
  return showBlock(openedBy.length > 0 ? 'ok' : 'fail', image, rows);
}

function problemRows(error: OcicryptError | undefined, by?: string): readonly FindingRow[] {
  if (error === undefined) return [['found', 'no layer']];
  const text = `${by === undefined ? '' : `${by}: `}${error.code}: ${error.message}`;
  return [
    ['error', printable(text)],
    ['to do', error.hint === undefined ? undefined : printable(error.hint)],
  ];
}

function showLayers([platform, layers]: readonly [string, LayerGroup['layers']]): string {
  return `${platform} ${layers.map(({ index }) => index).join(', ')}`;
}

function namesOf({ scheme, format, recipients }: PacketDescription): readonly string[] {
  if (recipients.length === 0) return [`${scheme} (${format})`];
  return recipients.map(({ key }) => `${scheme} (${format})  ${shortenKey(key ?? 'an unnamed recipient')}`);
}

function describe(error: OcicryptError) {
  return { code: error.code, message: error.message, hint: error.hint };
}

async function probeGroup(group: LayerGroup, tools: ImageTools, signal: AbortSignal): Promise<GroupProbe> {
  const keys = await tools.keys();
  const { own, configured } = keys.holders();
  const openedBy = new Set<string>();
  const refusals: Refusal[] = [];
  for (const { wrapped } of group.keys) {
    const name = providerOf(wrapped.scheme);
    const other = name === undefined ? undefined : configured.get(name);
    // If no key is named, our own provider is worth asking only if there is no other: its refusal says how to.
    const asked: (readonly [string, KeyHolder])[] =
      keys.hasOwn || other === undefined ? own.map((one) => [OWN, one]) : [];
    if (name !== undefined && other !== undefined) asked.push([`provider ${name} of ${VARIABLE}`, other]);
    const able = asked.filter(([, holder]) => holder.opens(wrapped.scheme));
    for (const [by, holder] of able) {
      try {
        await tryLayerKey([wrapped], createUnwrapper([holder], ''), 'the layer', signal);
        openedBy.add(by);
      } catch (error) {
        signal.throwIfAborted();
        refusals.push({ by, error: asOcicryptError(error) });
      }
    }
    if (name !== undefined && other === undefined) refusals.push({ by: 'clients', error: noProviderFor(name) });
    if (able.length === 0) refusals.push({ by: OWN, error: noKeyFor(wrapped.scheme) });
  }
  return {
    layers: group.layers,
    recipients: group.keys.map(({ description }) => description),
    openedBy: [...openedBy],
    refusals,
  };
}

const VARIABLE = 'OCICRYPT_KEYPROVIDER_CONFIG';
const OWN = '--key and --allow';

function noProviderFor(name: string): OcicryptError {
  return new OcicryptError(
    'configuration',
    `no provider ${name} in ${VARIABLE}: they have no provider to ask for this key`,
    {
      hint: `ocicrypt-kms config ocicrypt --provider=${name} prints a file that has it`,
    },
  );
}

function noKeyFor(scheme: string): OcicryptError {
  return scheme === 'jwe'
    ? new OcicryptError('not-allowed', 'no private key is named for a JWE', { hint: 'give --key=PRIVATE.pem' })
    : new OcicryptError('not-allowed', `no key here opens what is wrapped by ${scheme}`, {
        hint: 'other tools can; rewrap the image for a key of this provider there',
      });
}
