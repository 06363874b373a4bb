// The command that containerd runs for each encrypted layer: its bytes on standard input, the plain ones on standard output.

import { combineErrors } from '../base/combine.ts';
import { withDeadline } from '../base/deadline.ts';
import { OcicryptError } from '../base/errors.ts';
import { showPath } from '../base/shown.ts';
import { createUnwrapper } from '../client/holders.ts';
import type { LayerKeyUnwrapper } from '../client/layer-keys.ts';
import { createProviderHolder, type ProviderCall } from '../client/provider.ts';
import type { ProviderParameters } from '../client/provider-messages.ts';
import { type ByteSource, sourceAfter } from '../image/cipher/streams.ts';
import type { Descriptor } from '../image/model/descriptor.ts';
import { readAtMost } from '../image/transports/store.ts';
import { type OpenedLayer, openLayer, openOneOf, writeLayer } from '../node/open-layer.ts';
import { decodePayload, MAXIMUM_PAYLOAD_BYTES } from '../node/payload.ts';
import { DEFAULT_LIMITS } from '../provider/attempts.ts';
import type { CommandContext } from './command.ts';
import { openKeys } from './image/keys.ts';
import { untilInterrupted } from './interrupt.ts';
import type { Settings } from './options/settings.ts';
import type { StandardStreams } from './standard-streams.ts';

/** Where containerd gives a decoder its payload: the first of Go's `ExtraFiles`. */
const PAYLOAD_DESCRIPTOR = 3;

/** As much as a pipe holds; a smaller layer is compared as a whole. */
const HEAD_BYTES = 64 * 1024;

/** The provider ends at the limit by itself, and knows which key it was that did not answer. */
const GRACE_MILLISECONDS = 1000;

/** Decrypts the layer on standard input. */
export async function runDecoder(context: CommandContext): Promise<void> {
  const { settings, terminal } = context;
  const limit = settings.requestTime() ?? DEFAULT_LIMITS.total;
  const streams = await terminal.streams();
  const { unwrapper, close } = await openHolders(context, limit);
  try {
    await untilInterrupted(
      terminal,
      async (interrupted) => {
        const openKey: OpenKey = (descriptor, parameters) =>
          withDeadline(limit + GRACE_MILLISECONDS, interrupted, 'opening the layer key', (signal) =>
            openLayer(descriptor, unwrapper(parameters), signal),
          );
        const { layer, source } = await openInput(streams, settings, openKey, interrupted);
        await writeLayer(layer, source, streams.output, interrupted);
      },
      () => new OcicryptError('deadline-exceeded', 'interrupted: the layer was not decrypted'),
    );
  } finally {
    await close();
  }
}

/** Those who open layer keys for a client that named these parameters. */
type Unwrapper = (parameters: ProviderParameters) => LayerKeyUnwrapper;

type OpenKey = (descriptor: Descriptor, parameters: ProviderParameters) => Promise<OpenedLayer>;

/** By the payload if there is one, else by what the content store knows of these bytes. */
async function openInput(
  { input, inherited }: StandardStreams,
  settings: Settings,
  openKey: OpenKey,
  signal: AbortSignal,
): Promise<{ readonly layer: OpenedLayer; readonly source: ByteSource }> {
  const payload = await inherited(PAYLOAD_DESCRIPTOR, MAXIMUM_PAYLOAD_BYTES);
  if (payload !== undefined && payload.length > 0) {
    const { descriptor, parameters } = decodePayload(payload);
    return { layer: await openKey(descriptor, parameters), source: input };
  }
  const head = await readAtMost(input, HEAD_BYTES);
  const clue = { head, isWhole: head.length < HEAD_BYTES, mediaType: process.env.STREAM_PROCESSOR_MEDIATYPE };
  const [{ findContentStores }, { findStoredLayers }] = await Promise.all([
    import('../node/stores.ts'),
    import('../node/content-store.ts'),
  ]);
  const stores = findContentStores(settings.text('content-store'), process.ppid);
  const found = stores.map((store) => findStoredLayers(store, clue));
  const layers = found.flatMap((one) => one.layers);
  if (layers.length === 0) {
    const refusals = found.flatMap((one) => one.refusals);
    if (refusals.length > 0) throw combineErrors(refusals, 'no manifest that names the layer can be used');
    const places = stores.map(({ directory }) => showPath(directory)).join(', ');
    throw new OcicryptError('not-found', `no manifest in ${places} names the layer that is to be decrypted`, {
      hint: 'if containerd has another root, name it with --content-store=DIR; else pull the image again',
    });
  }
  return {
    layer: await openOneOf(layers, (descriptor) => openKey(descriptor, {}), signal),
    source: sourceAfter(head, input),
  };
}

async function openHolders(
  context: CommandContext,
  limit: number,
): Promise<{ readonly unwrapper: Unwrapper; readonly close: () => Promise<void> }> {
  const remote = context.settings.text('remote');
  if (remote !== undefined) {
    const { openRemote } = await import('./remote.ts');
    const forward = openRemote(remote, context.settings, limit);
    const ask: ProviderCall = (request, _operation, signal) => forward(request, signal);
    const unwrapper = (parameters: ProviderParameters) =>
      createUnwrapper(
        [createProviderHolder(undefined, parameters, ask)],
        'the server opens packets of key providers alone: decrypt here, with --key',
      );
    return { unwrapper, close: async () => undefined };
  }
  const keys = await openKeys(context);
  return { unwrapper: (parameters) => keys.unwrapper(parameters), close: () => keys.close() };
}
