// The assertion of a client that has a certificate: a JWT that its private key signs.
// https://learn.microsoft.com/entra/identity-platform/certificate-credentials

import { constants, createPrivateKey, type KeyObject, randomUUID, sign, X509Certificate } from 'node:crypto';
import { wipe } from '../../base/bytes.ts';
import { OcicryptError } from '../../base/errors.ts';
import { readSecretFile } from '../../base/secret-file.ts';
import { showPath } from '../../base/shown.ts';
import { incomplete } from './token.ts';

const LIFETIME_SECONDS = 600;
const MAXIMUM_FILE_BYTES = 256 * 1024;
/** How DER begins, and so PKCS#12: an ASN.1 SEQUENCE. */
const SEQUENCE = 0x30;

/**
 * Signs with the file of AZURE_CLIENT_CERTIFICATE_PATH, which is read anew for each token, because it may have been
 * renewed.
 *
 * @param audience the URL of the token service
 * @throws OcicryptError `configuration`, `unauthenticated` for a certificate that has expired
 */
export async function signAssertion(client: string, audience: string, environment: NodeJS.ProcessEnv): Promise<string> {
  const { certificate, key } = readClientCertificate(environment);
  const now = Math.floor(Date.now() / 1000);
  const thumbprint = Buffer.from(certificate.fingerprint256.replaceAll(':', ''), 'hex').toString('base64url');
  const header = { alg: 'PS256', typ: 'JWT', 'x5t#S256': thumbprint };
  const claims = { aud: audience, iss: client, sub: client, jti: randomUUID(), nbf: now, exp: now + LIFETIME_SECONDS };
  const content = [header, claims].map((part) => Buffer.from(JSON.stringify(part)).toString('base64url')).join('.');
  const padding = { padding: constants.RSA_PKCS1_PSS_PADDING, saltLength: constants.RSA_PSS_SALTLEN_DIGEST };
  return `${content}.${sign('sha256', Buffer.from(content), { key, ...padding }).toString('base64url')}`;
}

function readClientCertificate(environment: NodeJS.ProcessEnv): { certificate: X509Certificate; key: KeyObject } {
  const { AZURE_CLIENT_CERTIFICATE_PATH: path, AZURE_CLIENT_CERTIFICATE_PASSWORD: password } = environment;
  if (!path) throw incomplete('AZURE_CLIENT_CERTIFICATE_PATH');
  const fail = (what: string, hint: string) =>
    new OcicryptError('configuration', `the client certificate ${showPath(path)} ${what}`, { hint });
  const file = readFile(path);
  try {
    if (file[0] === SEQUENCE) {
      throw fail('is not PEM', 'of a PFX file (PKCS#12) make one: openssl pkcs12 -in FILE -out FILE.pem -nodes');
    }
    const text = new TextDecoder('latin1').decode(file);
    const certificate = readCertificate(text);
    if (certificate === undefined) throw fail('holds no certificate', 'it needs the certificate and its private key');
    if (!/-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----/.test(text)) {
      throw fail('holds no private key', 'it needs the certificate and its private key');
    }
    const key = readKey(text, password);
    if (key === undefined) {
      throw fail(
        'has a private key that cannot be read',
        'AZURE_CLIENT_CERTIFICATE_PASSWORD takes the password of an encrypted one',
      );
    }
    if (key.asymmetricKeyType !== 'rsa') throw fail('has no RSA key', 'Microsoft Entra takes RSA keys only');
    if (!certificate.checkPrivateKey(key)) {
      throw fail('has the private key of another certificate', 'the first certificate must be that of the key');
    }
    if (Date.parse(certificate.validTo) < Date.now()) {
      throw fail(`has expired on ${certificate.validTo}`, 'renew it, and add it to the application').with({
        code: 'unauthenticated',
      });
    }
    return { certificate, key };
  } finally {
    wipe(file);
  }
}

function readFile(path: string): Uint8Array {
  try {
    return readSecretFile(path, 'the client certificate', MAXIMUM_FILE_BYTES);
  } catch (error) {
    if (!(error instanceof OcicryptError) || error.code !== 'not-found') throw error;
    throw error.with({ code: 'configuration', hint: 'AZURE_CLIENT_CERTIFICATE_PATH must name a PEM file' });
  }
}

/** The first one. */
function readCertificate(text: string): X509Certificate | undefined {
  const [block] = /-----BEGIN CERTIFICATE-----[\s\S]*?-----END CERTIFICATE-----/.exec(text) ?? [];
  try {
    return block === undefined ? undefined : new X509Certificate(block);
  } catch {
    return undefined;
  }
}

function readKey(text: string, passphrase: string | undefined): KeyObject | undefined {
  const [block] =
    /-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----[\s\S]*?-----END (?:[A-Z]+ )*PRIVATE KEY-----/.exec(text) ?? [];
  if (block === undefined) return undefined;
  try {
    return createPrivateKey({ key: block, format: 'pem', ...(passphrase ? { passphrase } : {}) });
  } catch {
    // Without a cause: the runtime's error may quote the file.
    return undefined;
  }
}
