// How a text for people names a setting: by the member of the library's options, or as the command spells it.

/**
 * The settings that errors, hints and warnings below the command name. Each is the member that the layer itself reads, so
 * that a text is right for a program that uses the library; the command has an option for each.
 */
export type SettingName =
  | 'add'
  | 'age.identityFiles'
  | 'age.passphraseFile'
  | 'authFile'
  | 'awskms.endpoint'
  | 'azurekms.authority'
  | 'azurekms.domain'
  | 'azurekms.endpoint'
  | 'caFiles'
  | 'clients'
  | 'contentStore'
  | 'defaultKey'
  | 'digestTag'
  | 'gcpkms.credentialsFile'
  | 'gcpkms.endpoint'
  | 'hashivault.address'
  | 'hashivault.credentialsFile'
  | 'hashivault.login'
  | 'hashivault.loginPath'
  | 'hashivault.role'
  | 'insecurePlaintext'
  | 'kbs.files'
  | 'keys'
  | 'labels'
  | 'layers'
  | 'limits.active'
  | 'limits.queue'
  | 'limits.rate'
  | 'limits.total'
  | 'listen'
  | 'log'
  | 'names.configured'
  | 'packet'
  | 'pkcs11.bindingDirectory'
  | 'pkcs11.finalTry'
  | 'pkcs11.modules'
  | 'pkcs11.oaepSha1'
  | 'pkcs11.pinFile'
  | 'pkcs11.pinVariable'
  | 'platforms'
  | 'provider'
  | 'recipients'
  | 'remove'
  | 'rules'
  | 'status.insecure'
  | 'tls.authority'
  | 'tls.certificate'
  | 'tls.clientAuthority'
  | 'tls.privateKey';

let spell: (name: SettingName) => string = (name) => name;

/** The setting as the readers of this process know it, to stand in a text for them. */
export function setting(name: SettingName): string {
  return spell(name);
}

/**
 * Has all texts of this process name settings so. The command calls it once, before anything else: its users know options.
 * It is for the whole process because texts are quoted in others, logged and sent on, and have one kind of reader.
 */
export function spellSettings(spelling: (name: SettingName) => string): void {
  spell = spelling;
}
