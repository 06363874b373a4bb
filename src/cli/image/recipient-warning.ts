// What is said of recipients that, side by side, give less than each of them promises.

import { printable } from '../../base/shown.ts';
import type { LayerKeyWrapper } from '../../client/layer-keys.ts';
import { describePacket, type PacketDescription } from '../../image/model/packets.ts';
import { findUndoing } from '../../image/post-quantum.ts';
import type { Terminal } from '../terminal.ts';

/** Wrappers that do as before, and what the first packets say that each of them made. */
export type WatchedWrappers = {
  readonly wrappers: readonly LayerKeyWrapper[];
  readonly packets: () => readonly PacketDescription[];
};

/** Only the packets tell what kind of key a recipient turned out to be. All layers have the same recipients. */
export function watchWrappers(wrappers: readonly LayerKeyWrapper[]): WatchedWrappers {
  const seen = new Map<LayerKeyWrapper, readonly PacketDescription[]>();
  return {
    wrappers: wrappers.map((wrapper) => ({
      scheme: wrapper.scheme,
      async wrap(record, signal) {
        const packets = await wrapper.wrap(record, signal);
        if (!seen.has(wrapper)) {
          seen.set(
            wrapper,
            packets.map((packet) => describePacket({ scheme: wrapper.scheme, packet })),
          );
        }
        return packets;
      },
    })),
    packets: () => [...seen.values()].flat(),
  };
}

/** Says whose presence makes a post-quantum recipient useless, if there is one. */
export function warnOfClassic(terminal: Terminal, packets: readonly PacketDescription[]): void {
  const undoing = findUndoing(packets);
  if (undoing.length === 0) return;
  terminal.say(
    `warning: the post-quantum recipient gives no protection against an attacker who records the image today, because it is also encrypted to ${printable(undoing.join(', '))}`,
  );
}
