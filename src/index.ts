// The library's front door: what another program may build on.

export { describeError, ERROR_STATUS, type ErrorCode, OcicryptError } from './base/errors.ts';
export { formatKeyUri, type KeyUri, parseKeyUri } from './base/key-uri.ts';
export type { EncryptionContext, Kek, WrappedKey } from './kms/kek.ts';
export { createKeyfile } from './kms/keyfile.ts';
export { type BackendSettings, createKekStore, type KekStore } from './kms/open.ts';
export { DEFAULT_LIMITS, type Limits } from './provider/attempts.ts';
export type { AuditEvent, AuditSink, Logger } from './provider/audit.ts';
export { type Call, createProvider, type Provider, type ProviderOptions } from './provider/handle.ts';
export { decodePacket, type Packet, type PacketV1 } from './provider/packet.ts';
export type { Labels, PacketV2 } from './provider/packet-v2.ts';
export { type AllowRule, parseAllowRule } from './provider/policy.ts';
