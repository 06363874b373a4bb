// What containerd and CRI-O say when something is wrong on a node, and why: the data that the mistakes are held against, and docs/nodes.md is made of.

/** A part of what an operator reads, by which the cause is known. */
export type Signature = { readonly text: string; readonly cause: string; readonly remedy: string };

export const SIGNATURES = {
  noPayload: {
    text: 'read configFd: bad file descriptor',
    cause:
      'ctd-decoder was given no payload: see the table above. Other builds of it say `could not proto.Unmarshal() decrypt data`. `key_model = ""` has the same effect',
    remedy: 'use `ocicrypt-kms decoder`',
  },
  reasonLost: {
    text: 'wrong diff id',
    cause:
      'the decoder failed, and containerd looked for its exit status too early; with `sha256:e3b0c442…`, the digest of nothing',
    remedy: 'use `ocicrypt-kms decoder`, which waits until the reason was taken; its line is in the system log as well',
  },
  stillEncrypted: {
    text: 'archive/tar: invalid tar header',
    cause: 'no decoder accepts the type of the layer, mostly `…tar+zstd+encrypted`: it is unpacked as it is',
    remedy: 'list the type in `accepts` of the processor whose name ends in `.tar.gzip`',
  },
  notInPath: {
    text: 'resolves to executable in current directory',
    cause: 'containerd 1.6 does not find the decoder in its `PATH`',
    remedy: 'write the whole path, and install the decoder there',
  },
  notInPath2: {
    text: 'executable file not found in $PATH',
    cause: 'containerd 1.7 or 2 does not find the decoder in its `PATH`',
    remedy: 'write the whole path, and install the decoder there',
  },
  noProgram: {
    text: 'fork/exec',
    cause: '`path` of the processor names no program',
    remedy: 'install the decoder there',
  },
  noKeyDirectory: {
    text: 'unable to get decryption keys in provided key path',
    cause:
      'the directory of `--decryption-keys-path` is missing. containerd has processors of its own that name `/etc/containerd/ocicrypt/keys`, and they count if you have configured none',
    remedy: 'configure the processors; leave the option out',
  },
  noProvider: {
    text: 'missing private key needed for decryption',
    cause:
      'ctd-decoder knows no provider for the layer: the file of `OCICRYPT_KEYPROVIDER_CONFIG` is missing, is no JSON, or has none of that name. If a line of the provider follows, that is the reason',
    remedy: 'correct the file: `ocicrypt-kms config ocicrypt`',
  },
  twice: {
    text: 'duplicated tables',
    cause: 'containerd 1 does not start: a table stands in `config.toml` twice',
    remedy: 'put the processors into a file of their own, which `imports` names',
  },
  twice2: {
    text: 'already exists',
    cause: 'containerd 2 does not start: a table stands in `config.toml` twice',
    remedy: 'put the processors into a file of their own, which `imports` names',
  },
  firstVersion: {
    text: 'expect io.containerd.x.vx',
    cause:
      'containerd 1 does not start: `config.toml` is of version 1, as that of `containerd.io` is (`disabled_plugins = ["cri"]`), and a file of version 2 is imported',
    remedy: 'leave `version = 2` out of the imported file, as `node install` does',
  },
} as const satisfies Readonly<Record<string, Signature>>;

/** CRI-O's words, of every image or of one that is encrypted. */
export const CRIO_SIGNATURES = {
  provider: {
    text: 'missing private key needed for decryption',
    cause: 'our provider refused. Its line follows: `stderr: ocicrypt-kms: …`, or that of the service: `desc = …`',
    remedy: 'what the line says',
  },
  noProvider: {
    text: 'missing private key needed for decryption',
    cause: 'if no line of ours follows: CRI-O was started without `OCICRYPT_KEYPROVIDER_CONFIG`',
    remedy: '`ocicrypt-kms config crio-unit`, and restart CRI-O',
  },
  noService: {
    text: 'code = Unavailable',
    cause: 'the service of the node ended while it was asked, or its socket is not there',
    remedy: '`systemctl restart ocicrypt-kms.socket`, and pull again',
  },
  strayFile: {
    text: 'Unknown decryption key type',
    cause: 'a file in `/etc/crio/keys` is no private key. Every image is refused',
    remedy: 'move it out',
  },
  digest: {
    text: 'Destination specifies a digest',
    cause: 'the image is named by its digest',
    remedy: 'use a tag made of the digest: `encrypt --digest-tag`',
  },
} as const satisfies Readonly<Record<string, Signature>>;

/** A table in docs/nodes.md. */
export function signatureTable(signatures: Readonly<Record<string, Signature>>): string {
  const rows = Object.values(signatures).map(({ text, cause, remedy }) => [`\`${text}\``, cause, remedy]);
  const head = ['you read', 'because', 'what to do'];
  return [head, head.map(() => '---'), ...rows].map((cells) => `| ${cells.join(' | ')} |\n`).join('');
}
