// What containerd, CRI-O, k3s and RKE2 read on a node so that they decrypt: texts alone, for `config` and `node install`.
// https://github.com/containerd/containerd/blob/main/docs/stream_processors.md

import type { PayloadRule } from './versions.ts';

/** The names under which containerd has processors of its own, and gives a payload: it gives none under others. */
export const PROCESSOR_IDS = [
  'io.containerd.ocicrypt.decoder.v1.tar',
  'io.containerd.ocicrypt.decoder.v1.tar.gzip',
] as const;

/** The directory of keys that these processors of containerd's own are told of. */
export const BUILT_IN_KEYS = '/etc/containerd/ocicrypt/keys';

const LAYER = 'application/vnd.oci.image.layer.v1.tar';

/** The types of encrypted layers that there are. */
export const ENCRYPTED_TYPES = [`${LAYER}+encrypted`, `${LAYER}+gzip+encrypted`, `${LAYER}+zstd+encrypted`] as const;

/** Where everything of ours lies on a node: one policy, and one file that tells runtimes of the provider. */
export const POLICY_FILE = '/etc/ocicrypt-kms/config.yaml';
export const PROVIDERS_FILE = '/etc/ocicrypt-kms/ocicrypt.json';

/** Who decrypts for containerd. */
export type Decoder =
  /** Ours: it gives back the plain tar, and needs no payload. `words` are a whole command line. */
  | { readonly kind: 'ocicrypt-kms'; readonly words: readonly [path: string, ...args: string[]] }
  /** imgcrypt's, which asks the providers of PROVIDERS_FILE and needs the payload. */
  | { readonly kind: 'ctd-decoder'; readonly path: string; readonly payload: PayloadRule };

/**
 * A file for containerd's `imports`. It sets no table of a plugin that containerd 1 has, where an imported one replaces
 * the whole plugin. Version 2 is read by every containerd since 1.3, whatever the version of the file that imports it; but
 * containerd 1 takes the highest one for all files, and does not start if one of them has the names of version 1.
 *
 * @param version of the file that imports it; 2 if it is a later one
 */
export function containerdDropIn(decoder: Decoder, version: 1 | 2 = 2): string {
  return `# Written by ocicrypt-kms: encrypted layers are decrypted while they are unpacked.\n${version === 2 ? 'version = 2\n' : ''}\n${processors(decoder)}`;
}

/** A template for k3s and RKE2 that import no directory: all that they write by themselves, and our tables. */
export function rancherTemplate(decoder: Decoder): string {
  return `{{ template "base" . }}\n\n${rancherTables(decoder)}`;
}

/** What an operator's own template lacks. Braces are the template's. */
export function rancherTables(decoder: Decoder): string {
  return processors(decoder).replaceAll('{{', '{{"{{"}}');
}

/** zstd stands with gzip, or CRI would give its processor no payload. */
function processors(decoder: Decoder): string {
  const [plain, gzip, zstd] = ENCRYPTED_TYPES;
  const [first, second] = PROCESSOR_IDS;
  return [
    ...(decoder.kind === 'ctd-decoder' && decoder.payload === 'local pull' ? LOCAL_PULL : []),
    '[stream_processors]',
    ...processor(first, [plain], LAYER, decoder),
    ...processor(second, [gzip, zstd], decoder.kind === 'ocicrypt-kms' ? LAYER : `${LAYER}+gzip`, decoder),
    '',
  ].join('\n');
}

const LOCAL_PULL: readonly string[] = [
  '# CRI gives ctd-decoder its payload only if it pulls by itself.',
  '[plugins."io.containerd.cri.v1.images"]',
  '  use_local_image_pull = true',
  '',
];

function processor(id: string, accepts: readonly string[], returns: string, decoder: Decoder): readonly string[] {
  const command =
    decoder.kind === 'ocicrypt-kms'
      ? [`path = ${quote(decoder.words[0])}`, `args = [${decoder.words.slice(1).map(quote).join(', ')}]`]
      : [`path = ${quote(decoder.path)}`, `env = [${quote(`OCICRYPT_KEYPROVIDER_CONFIG=${PROVIDERS_FILE}`)}]`];
  return [
    `  [stream_processors.${quote(id)}]`,
    `    accepts = [${accepts.map(quote).join(', ')}]`,
    `    returns = ${quote(returns)}`,
    ...command.map((line) => `    ${line}`),
  ];
}

/** TOML's basic strings are those of JSON, but for one character. https://toml.io/en/v1.0.0#string */
function quote(text: string): string {
  return JSON.stringify(text).replaceAll('\u007f', '\\u007f');
}

/** CRI-O decrypts in its own process. Keys of JWE lie in this directory, and nothing else. */
export const CRIO_KEYS = '/etc/crio/keys/';
export const CRIO_FILE = '/etc/crio/crio.conf.d/20-ocicrypt-kms.conf';
export const CRIO_DROP_IN = `# Written by ocicrypt-kms. The directory may hold private keys, and nothing else.
[crio.runtime]
decryption_keys_path = "${CRIO_KEYS}"
`;

/** For CRI-O's service: it reads the variable when it starts, and only then. */
export const CRIO_UNIT_FILE = '/etc/systemd/system/crio.service.d/ocicrypt-kms.conf';
export const CRIO_UNIT = `# Written by ocicrypt-kms: the key providers that CRI-O asks.
[Service]
Environment=OCICRYPT_KEYPROVIDER_CONFIG=${PROVIDERS_FILE}
`;

/**
 * The file of OCICRYPT_KEYPROVIDER_CONFIG, for one provider.
 * https://github.com/containers/ocicrypt/blob/main/docs/keyprovider.md
 *
 * @param provider a command line, or the address of a server as gRPC's clients write it
 */
export function providersFile(name: string, provider: readonly [path: string, ...args: string[]] | string): string {
  const entry = typeof provider === 'string' ? { grpc: provider } : commandEntry(provider);
  return `${JSON.stringify({ 'key-providers': { [name]: entry } }, null, 2)}\n`;
}

function commandEntry([path, ...args]: readonly [path: string, ...args: string[]]) {
  return { cmd: { path, args } };
}
