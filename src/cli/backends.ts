// What the settings say about each key service: the part of the composition root that every command with keys shares.

import { resolve } from 'node:path';
import { checkedEnvironment } from '../base/environment.ts';
import { formatKeyUri, parseKeyUri } from '../base/key-uri.ts';
import type { VaultSettings } from '../kms/hashivault/key.ts';
import type { BackendSettings } from '../kms/open.ts';
import type { Settings } from './options/settings.ts';

/**
 * The settings of every backend, from options, configuration file and environment. Reads nothing yet.
 *
 * @param warn told what works but may be a mistake
 */
export function backendSettings(settings: Settings, warn: (line: string) => void): BackendSettings {
  const environment = checkedEnvironment(process.env);
  const common = { caFiles: settings.list('ca'), environment };
  return {
    age: {
      identityFiles: settings.list('key').map((file) => resolve(file)),
      passphraseFile: settings.text('age-passphrase-file'),
      prompt: askSecret,
    },
    awskms: {
      endpoint: settings.text('aws-endpoint'),
      region: settings.text('aws-region'),
      ...common,
    },
    azurekms: {
      endpoint: settings.text('azure-endpoint'),
      domain: settings.text('azure-domain'),
      authority: settings.text('azure-authority'),
      warn,
      ...common,
    },
    gcpkms: {
      credentialsFile: settings.text('adc'),
      endpoint: settings.text('gcp-endpoint'),
      quotaProject: settings.text('gcp-quota-project'),
      universeDomain: settings.text('gcp-universe-domain'),
      ...common,
    },
    hashivault: {
      address: settings.text('vault-addr'),
      login: vaultLogin(settings.text('vault-login')),
      role: settings.text('vault-role'),
      loginPath: settings.text('vault-login-path'),
      credentialsFile: settings.text('vault-credentials'),
      ...common,
    },
    kbs: { files: kbsFiles(settings) },
    pkcs11: {
      modules: settings.list('pkcs11-module'),
      bindingDirectory: settings.text('pkcs11-binding'),
      pinFile: settings.text('pkcs11-pin-file'),
      pinVariable: settings.text('pkcs11-pin-env'),
      finalTry: settings.switch('pkcs11-final-try'),
      oaepSha1: settings.switch('pkcs11-oaep-sha1'),
      prompt: askSecret,
      environment,
    },
  };
}

/** By canonical URI. */
function kbsFiles(settings: Settings): ReadonlyMap<string, string> {
  const pairs = Object.entries(settings.pairs('kbs-key') ?? {});
  return new Map(pairs.map(([key, file]) => [formatKeyUri(parseKeyUri(key)), resolve(file)]));
}

/** The terminal's code is loaded when there is a question. */
async function askSecret(question: string): Promise<Uint8Array | undefined> {
  return (await import('./prompt.ts')).promptSecret(question);
}

function vaultLogin(text: string | undefined): VaultSettings['login'] {
  switch (text) {
    case 'approle':
    case 'cert':
    case 'jwt':
    case 'kubernetes':
    case 'token':
      return text;
    default:
      return undefined;
  }
}
