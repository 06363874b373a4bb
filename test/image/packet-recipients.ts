// Recipients for tests whose packets are those of the provider; the "key service" is AES-256-GCM with a key made from the URI.
import { createCipheriv, createDecipheriv, createHash, randomBytes } from 'node:crypto';
import { OcicryptError } from '../../src/base/errors.ts';
import type { LayerKeyUnwrapper, LayerKeyWrapper } from '../../src/client/layer-keys.ts';
import { decodePacket, encodePacketV1, recipientsOf } from '../../src/provider/packet.ts';
import { openPacketV2, sealPacketV2 } from '../../src/provider/packet-v2.ts';

/** One v2 packet for all keys, under `provider.NAME`. */
export function v2Recipient(keys: readonly string[], name = 'kmscrypt'): LayerKeyWrapper {
  return {
    scheme: `provider.${name}`,
    wrap: async (record) => [
      await sealPacketV2(record, { env: 'test' }, async (dataKey) =>
        keys.map((key) => ({ key, algorithm: 'A256GCM', wrapped: seal(key, dataKey) })),
      ),
    ],
  };
}

/** A packet of the reference provider. */
export function v1Recipient(key: string, name = 'kmscrypt'): LayerKeyWrapper {
  return {
    scheme: `provider.${name}`,
    wrap: async (record) => [encodePacketV1({ key, wrapped: seal(key, record) })],
  };
}

/** Opens packets for one of these keys; counts how often it is asked. */
export function packetKeys(keys: readonly string[]): LayerKeyUnwrapper & { readonly calls: () => number } {
  let calls = 0;
  return {
    calls: () => calls,
    async unwrap(wrapped) {
      calls++;
      for (const { scheme, packet } of wrapped) {
        if (!scheme.startsWith('provider.')) continue;
        const decoded = decodePacket(packet);
        const recipient = recipientsOf(decoded).find(({ key }) => keys.includes(key));
        if (recipient === undefined) continue;
        const unsealed = unseal(recipient.key, recipient.wrapped);
        return decoded.format === 'v2' ? openPacketV2(decoded, unsealed) : unsealed;
      }
      throw new OcicryptError('integrity', 'no key opens this layer');
    },
  };
}

function seal(key: string, plaintext: Uint8Array): Uint8Array {
  const iv = randomBytes(12);
  const cipher = createCipheriv('aes-256-gcm', createHash('sha256').update(key).digest(), iv);
  return Buffer.concat([iv, cipher.update(plaintext), cipher.final(), cipher.getAuthTag()]);
}

function unseal(key: string, sealed: Uint8Array): Uint8Array {
  const decipher = createDecipheriv('aes-256-gcm', createHash('sha256').update(key).digest(), sealed.subarray(0, 12));
  try {
    decipher.setAuthTag(sealed.subarray(-16));
    return new Uint8Array(Buffer.concat([decipher.update(sealed.subarray(12, -16)), decipher.final()]));
  } catch {
    throw new OcicryptError('integrity', 'no key opens this layer');
  }
}
