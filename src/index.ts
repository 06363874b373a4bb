// The library's front door: what another program may build on.

export {
  describeError,
  describeForCaller,
  ERROR_STATUS,
  type ErrorChange,
  type ErrorCode,
  type ErrorDetails,
  type ErrorReason,
  type ErrorStatus,
  GRPC_STATUS,
  type GrpcStatus,
  OcicryptError,
} from './base/errors.ts';
export type { HttpSettings } from './base/http/contract.ts';
export type {
  Exchange,
  HttpStreams,
  StreamRequest,
  StreamResponse,
  StreamSettings,
} from './base/http/stream.ts';
export type { JsonNumber, JsonObject, JsonString, JsonValue } from './base/json.ts';
export type { ByteSpelling } from './base/json-writer.ts';
export { type Attributes, formatKeyUri, type KeyUri, type OwnKeyUri, parseKeyUri } from './base/key-uri.ts';
export type { SecretPrompt } from './base/secret-file.ts';
export { createUnwrapper, type KeyHolder } from './client/holders.ts';
export { createJweHolder, createJweWrapper } from './client/jwe.ts';
export type { LayerKeyUnwrapper, LayerKeyWrapper, WrappedLayerKey } from './client/layer-keys.ts';
export {
  createProviderHolder,
  createProviderWrapper,
  type ProviderCall,
  type ProviderOperation,
} from './client/provider.ts';
export type { ProviderParameters } from './client/provider-messages.ts';
export type { BlobIdentity } from './image/cipher/layer.ts';
export type { ByteSink, ByteSource } from './image/cipher/streams.ts';
export { type DecryptOptions, decryptImage } from './image/decrypt.ts';
export { type EncryptedImage, type EncryptOptions, encryptImage } from './image/encrypt.ts';
export {
  type DecryptImageOptions,
  type DigestTagOption,
  type EncryptImageOptions,
  type ImageKeys,
  type ImageKeysOptions,
  openImageKeys,
  type RewrapImageOptions,
  type ServiceSettings,
  type VerifyImageOptions,
} from './image/image-keys.ts';
export { type ImageReport, type InspectedLayer, type InspectedPlatform, inspectImage } from './image/inspect.ts';
export type { Descriptor, Platform } from './image/model/descriptor.ts';
export { formatDigestTag, parseDigestTag, type TagSource } from './image/model/digest-tag.ts';
export {
  PACKET_FORMATS,
  type PacketDescription,
  type PacketFormat,
  type PacketRecipient,
} from './image/model/packets.ts';
export { type ImageReference, parseImageReference, type RegistryReference } from './image/model/reference.ts';
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
export type { RecipientChange } from './image/rewrap-plan.ts';
export type { ImageProgress } from './image/transform.ts';
export { openImageSource, openImageStore } from './image/transports/open.ts';
export type { RegistrySettings } from './image/transports/registry/client.ts';
export type { AuthDocument, CredentialSettings } from './image/transports/registry/credentials.ts';
export type { RegistryStoreSettings } from './image/transports/registry/store.ts';
export {
  type BlobReader,
  type BlobWriter,
  checkContent,
  createStoredManifest,
  type ImageSource,
  type ImageStore,
  type ReferrerSource,
  type Referrers,
  type StoredManifest,
  type UnnamedRemover,
} from './image/transports/store.ts';
export { type Verification, type VerifyOptions, verifyImage } from './image/verify.ts';
export { VERIFY_CODES, type VerifyCode, type VerifyReason } from './image/verify-reason.ts';
export type { AgeSettings } from './kms/age/identities.ts';
export type { AwsKmsSettings } from './kms/awskms/key.ts';
export type { AzureCloudSettings } from './kms/azurekms/cloud.ts';
export type { AzureKmsSettings } from './kms/azurekms/vault.ts';
export type { GcpKmsSettings } from './kms/gcpkms/key.ts';
export type { VaultSettings } from './kms/hashivault/key.ts';
export type { VaultLogin } from './kms/hashivault/tokens.ts';
export type { KbsSettings } from './kms/kbs/key.ts';
export { cannotBeUnwrapped, contextBytes, type EncryptionContext, type Kek, type WrappedKey } from './kms/kek.ts';
export { createKeyfile } from './kms/keyfile/key.ts';
export type { BackendSettings } from './kms/open.ts';
export type { OpenOwnKey, OwnSchemes } from './kms/own.ts';
export type { Pkcs11Settings } from './kms/pkcs11/key.ts';
export type { Pkcs11PinSettings } from './kms/pkcs11/login.ts';
export type { Pkcs11ModuleSettings } from './kms/pkcs11/module.ts';
export { createKekStore, type KekStore } from './kms/store.ts';
export { DEFAULT_LIMITS, type Limits } from './provider/attempts.ts';
export type { AuditEvent, AuditSink, Decision, Logger } from './provider/audit.ts';
export { type Call, createProvider, type Provider, type ProviderOptions } from './provider/handle.ts';
export type { Labels } from './provider/labels.ts';
export { decodePacket, type Packet, type PacketV1 } from './provider/packet.ts';
export type { PacketCoco } from './provider/packet-coco.ts';
export type { PacketV2 } from './provider/packet-v2.ts';
export type { NameOptions, UsualName } from './provider/parameters.ts';
export { type AllowRule, parseAllowRule, type VersionMatching } from './provider/policy.ts';
export type { Operation } from './provider/protocol.ts';
export type { PacketChoice } from './provider/wrap.ts';
