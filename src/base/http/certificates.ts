// Reads files of certificates: PEM block by block, as editors, exports and `cat` leave it, or DER.

import { X509Certificate } from 'node:crypto';
import { OcicryptError } from '../errors.ts';
import { readPublicFile } from '../secret-file.ts';
import { showPath } from '../shown.ts';

/** The bundles of distributions have 250 KB. */
const MAXIMUM_FILE_BYTES = 4 * 1024 * 1024;
/** Of larger files, which are bundles, each certificate would cost a start of the command 50 µs. */
const PARSED = 16;

/**
 * The certificates of a PEM or DER file, as clean PEM. Text between blocks and blocks of other kinds are passed over;
 * a byte order mark, line ends of Windows and blocks without a line end between them do no harm.
 *
 * @param what how the file is called in an error ("the file of CA certificates")
 * @throws OcicryptError `configuration` if the file cannot be read or holds no certificate, and if one of its
 * blocks is damaged: which one is said, because to leave it out would end as a failure of the network
 */
export function readCertificateFile(path: string, what: string): string {
  const { certificates, damaged } = parseFile(path, what);
  if (damaged !== undefined) {
    throw new OcicryptError('configuration', `block ${damaged} of ${what} in ${showPath(path)} is not a certificate`, {
      hint: 'it was cut off or changed: compare it with its original',
    });
  }
  if (certificates.length > 0) return certificates.join('');
  // A file without a certificate would be trusted silently as nothing at all.
  throw new OcicryptError('configuration', `no certificate is in ${showPath(path)}, which should hold ${what}`, {
    hint: 'it must hold PEM blocks that begin with -----BEGIN CERTIFICATE-----',
  });
}

/**
 * The certificates of a file in a directory of many, of which OpenSSL too passes over what it cannot use.
 *
 * @param known are not looked at again: directories of distributions have each certificate under two names
 */
export function findCertificates(path: string, known: KnownCertificates): string {
  try {
    return parseFile(path, 'the certificates', known).certificates.join('');
  } catch {
    return '';
  }
}

/** Certificates that were read before, so that each is used once. */
export class KnownCertificates {
  readonly #blocks = new Set<string>();
  readonly #bundles: readonly (Buffer | string)[];

  /** @param bundles of clean PEM that are searched as they are, which is quicker than to take them apart for a few */
  constructor(bundles: readonly (Buffer | string)[] = []) {
    this.#bundles = bundles;
  }

  has(block: string): boolean {
    const clean = block.trimEnd();
    return this.#blocks.has(clean) || this.#bundles.some((bundle) => bundle.includes(clean));
  }

  /** Adds the certificates of clean PEM, and returns those of them that were not known. */
  add(text: Buffer | string): string {
    const blocks = text.toString('latin1').match(/-----BEGIN [^-]+-----\n[^-]+-----END [^-]+-----/g) ?? [];
    const added = blocks.filter((block) => !this.has(block));
    for (const block of added) this.#blocks.add(block);
    return added.map((block) => `${block}\n`).join('');
  }
}

type Parsed = {
  readonly certificates: readonly string[];
  /** The number of the first block that should be a certificate and is none, from 1. */
  readonly damaged: number | undefined;
};

function parseFile(path: string, what: string, known?: KnownCertificates): Parsed {
  let bytes: Uint8Array<ArrayBuffer>;
  try {
    bytes = readPublicFile(path, what, MAXIMUM_FILE_BYTES);
  } catch (error) {
    if (!(error instanceof OcicryptError)) throw error;
    throw error.with({ code: 'configuration' });
  }
  const der = Buffer.from(bytes.buffer, 0, bytes.length);
  if (isWhole(der) && isCertificate(der))
    return { certificates: [formatBlock('CERTIFICATE', der)], damaged: undefined };
  return parsePem(der.toString('latin1'), known);
}

/** What follows `-----BEGIN `. RFC 7468; TRUSTED CERTIFICATE is OpenSSL's, with what it is trusted for behind it. */
const LABEL = /^((?:X509 |TRUSTED )?CERTIFICATE)-----/;
const BODY = /^([A-Za-z0-9+/=\s]*)-----END [A-Z0-9 ]+-----/;

function parsePem(text: string, known: KnownCertificates | undefined): Parsed {
  const blocks = text.split('-----BEGIN ').flatMap((part, index) => {
    const [head, label] = (index > 0 && LABEL.exec(part)) || [];
    return head === undefined || label === undefined ? [] : [{ label, rest: part.slice(head.length) }];
  });
  const certificates: string[] = [];
  let damaged: number | undefined;
  for (const [index, { label, rest }] of blocks.entries()) {
    const der = Buffer.from(BODY.exec(rest)?.[1] ?? '', 'base64');
    const isTrusted = label === 'TRUSTED CERTIFICATE';
    const block = formatBlock(isTrusted ? label : 'CERTIFICATE', der);
    const isExempt = isTrusted || blocks.length > PARSED || known?.has(block) === true;
    if (isWhole(der, isTrusted) && (isExempt || isCertificate(der))) certificates.push(block);
    else damaged ??= index + 1;
  }
  return { certificates, damaged };
}

/** Whether the bytes are one ASN.1 SEQUENCE of the length that it says. @param more whether something may follow it */
function isWhole(der: Uint8Array, more = false): boolean {
  const [tag, first = 0] = der;
  const count = first < 0x80 ? 0 : first - 0x80;
  if (tag !== 0x30 || count > 4) return false;
  const length = count === 0 ? first : der.subarray(2, 2 + count).reduce((sum, byte) => sum * 256 + byte, 0);
  const end = 2 + count + length;
  return more ? der.length >= end : der.length === end;
}

function isCertificate(der: Buffer): boolean {
  try {
    new X509Certificate(der);
    return true;
  } catch {
    return false;
  }
}

function formatBlock(label: string, der: Buffer): string {
  const base64 = der.toString('base64');
  let block = `-----BEGIN ${label}-----\n`;
  for (let start = 0; start < base64.length; start += 64) block += `${base64.slice(start, start + 64)}\n`;
  return `${block}-----END ${label}-----\n`;
}
