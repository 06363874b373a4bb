// The library's front door: what another program may build on.

export { describeError, ERROR_STATUS, type ErrorCode, OcicryptError } from './base/errors.ts';
export { formatKeyUri, type KeyUri, parseKeyUri } from './base/key-uri.ts';
export { createUnwrapper, type KeyHolder } from './client/holders.ts';
export { createJweHolder, createJweWrapper } from './client/jwe.ts';
export type { LayerKeyUnwrapper, LayerKeyWrapper, WrappedLayerKey } from './client/layer-keys.ts';
export { createProviderHolder, createProviderWrapper, type ProviderCall } from './client/provider.ts';
export { type DecryptOptions, decryptImage } from './image/decrypt.ts';
export { type EncryptedImage, type EncryptOptions, encryptImage } from './image/encrypt.ts';
export { type ImageReport, inspectImage } from './image/inspect.ts';
export { formatDigestTag, parseDigestTag } from './image/model/digest-tag.ts';
export { type ImageReference, parseImageReference } from './image/model/reference.ts';
export type { WrittenImage } from './image/result.ts';
export {
  addKeys,
  type LayerKeyRewrapper,
  type RewrapOptions,
  type RewrappedImage,
  removeKeys,
  replaceKeys,
  rewrapImage,
} from './image/rewrap.ts';
export type { ImageProgress } from './image/transform.ts';
export { openImageSource, openImageStore } from './image/transports/open.ts';
export type { RegistrySettings } from './image/transports/registry/client.ts';
export type { RegistryStoreSettings } from './image/transports/registry/store.ts';
export type { ImageSource, ImageStore } from './image/transports/store.ts';
export { type Verification, type VerifyOptions, verifyImage } from './image/verify.ts';
export type { EncryptionContext, Kek, WrappedKey } from './kms/kek.ts';
export { createKeyfile } from './kms/keyfile/key.ts';
export type { BackendSettings } from './kms/open.ts';
export { createKekStore, type KekStore } from './kms/store.ts';
export { DEFAULT_LIMITS, type Limits } from './provider/attempts.ts';
export type { AuditEvent, AuditSink, Logger } from './provider/audit.ts';
export { type Call, createProvider, type Provider, type ProviderOptions } from './provider/handle.ts';
export type { Labels } from './provider/labels.ts';
export { decodePacket, type Packet, type PacketV1 } from './provider/packet.ts';
export type { PacketV2 } from './provider/packet-v2.ts';
export { type AllowRule, parseAllowRule } from './provider/policy.ts';
