// The only code that loads native PKCS#11 modules, and the native package by which JavaScript calls them.
// Both are loaded when a key is used, and neither is needed by anybody else.

import { createRequire } from 'node:module';
import { basename, dirname, isAbsolute, join } from 'node:path';
import { OcicryptError } from '../../base/errors.ts';
import type { Attributes } from '../../base/key-uri.ts';
import { setting } from '../../base/setting.ts';
import { showPath } from '../../base/shown.ts';

/** Handles are opaque bytes. */
export type Handle = Buffer;
export type Mechanism = { readonly mechanism: number; readonly parameter?: object };
type Template = { readonly type: number; readonly value?: Buffer | number | boolean }[];

/** What is used of pkcs11js: PKCS #11 2.40 with its names and errors that carry the CKR value as `code`. */
export interface Cryptoki {
  load(path: string): void;
  close(): void;
  C_Initialize(options: { readonly flags: number }): void;
  C_Finalize(): void;
  C_GetSlotList(tokenPresent: boolean): Handle[];
  C_GetTokenInfo(slot: Handle): TokenInfo;
  C_GetMechanismList(slot: Handle): number[];
  C_OpenSession(slot: Handle, flags: number): Handle;
  C_CloseSession(session: Handle): void;
  C_GetSessionInfo(session: Handle): { readonly state: number };
  C_Login(session: Handle, user: number, pin: string): void;
  C_FindObjectsInit(session: Handle, template: Template): void;
  C_FindObjects(session: Handle, maximum: number): Handle[];
  C_FindObjectsFinal(session: Handle): void;
  C_GetAttributeValue(session: Handle, object: Handle, template: Template): { readonly value: unknown }[];
  C_EncryptInit(session: Handle, mechanism: Mechanism, key: Handle): void;
  C_EncryptAsync(session: Handle, input: Buffer, output: Buffer): Promise<Buffer>;
  C_DecryptInit(session: Handle, mechanism: Mechanism, key: Handle): void;
  C_DecryptAsync(session: Handle, input: Buffer, output: Buffer): Promise<Buffer>;
}

export type TokenInfo = {
  readonly label: string;
  readonly manufacturerID: string;
  readonly model: string;
  readonly serialNumber: string;
  readonly flags: number;
};

/** Which PKCS#11 modules are loaded, and by what. */
export type Pkcs11ModuleSettings = {
  /** The modules that may be loaded; the first serves keys that name none. */
  readonly modules: readonly string[];
  /** The directory whose `node_modules` holds pkcs11js. */
  readonly bindingDirectory?: string | undefined;
};

/** A module that is initialised, for as long as somebody holds it. */
export type OpenModule = {
  readonly path: string;
  readonly cryptoki: Cryptoki;
  readonly parameterTypes: ParameterTypes;
  readonly release: () => void;
};

/** The numbers by which pkcs11js knows the shapes of mechanism parameters. */
export type ParameterTypes = {
  readonly CK_PARAMS_RSA_OAEP: number;
  /** As the text of PKCS #11 2.40 has it, and as its header has it, with the length of the nonce in bits. */
  readonly CK_PARAMS_AES_GCM: number;
  readonly CK_PARAMS_AES_GCM_v240: number;
};

const CKF_OS_LOCKING_OK = 2;
const CKR_CRYPTOKI_ALREADY_INITIALIZED = 0x191;

/** A module is initialised once in a process, however many keys are in it. */
const opened = new Map<string, Loaded & { holders: number }>();
type Loaded = Pick<OpenModule, 'cryptoki' | 'parameterTypes'>;

/**
 * Loads the module of a key. Only what the operator lists is loaded: a URI may choose among those.
 *
 * @param query of the operator's own URI: `module-path`, `module-name` (RFC 7512 section 2.4)
 * @throws OcicryptError `configuration`
 */
export function openModule(query: Attributes, settings: Pkcs11ModuleSettings): OpenModule {
  const path = chooseModule(query, settings.modules);
  let module = opened.get(path);
  if (module === undefined) {
    module = { ...initialize(path, settings), holders: 0 };
    opened.set(path, module);
  }
  const held = module;
  held.holders++;
  let isHeld = true;
  return {
    path,
    cryptoki: held.cryptoki,
    parameterTypes: held.parameterTypes,
    release() {
      if (!isHeld) return;
      isHeld = false;
      if (--held.holders > 0) return;
      opened.delete(path);
      try {
        held.cryptoki.C_Finalize();
        held.cryptoki.close();
      } catch {
        // A token that was pulled out cannot be told good-bye.
      }
    },
  };
}

/** The CKR value of an error of pkcs11js; undefined for anything else. */
export function returnValue(error: unknown): number | undefined {
  return error instanceof Error && 'code' in error && typeof error.code === 'number' ? error.code : undefined;
}

function chooseModule(query: Attributes, modules: readonly string[]): string {
  const wantedPath = query.get('module-path');
  const wantedName = query.get('module-name');
  const matching = modules.filter(
    (path) =>
      (wantedPath === undefined || path === wantedPath) &&
      (wantedName === undefined || moduleName(path) === moduleName(wantedName)),
  );
  const [path] = matching;
  if (path !== undefined && isAbsolute(path)) return path;
  throw new OcicryptError(
    'configuration',
    modules.length === 0
      ? 'no PKCS#11 module may be loaded'
      : 'the PKCS#11 module is not one of those that may be loaded',
    {
      hint: `list it with its whole path: ${setting('pkcs11.modules')}=${showPath(wantedPath ?? '/usr/lib/softhsm/libsofthsm2.so')}`,
    },
  );
}

/** As p11-kit compares them: without directory, `lib` and suffix. */
function moduleName(path: string): string {
  return basename(path)
    .replace(/\.(?:so(?:\.\d+)*|dylib|dll)$/, '')
    .replace(/^lib/, '');
}

function initialize(path: string, settings: Pkcs11ModuleSettings): Loaded {
  const parameterTypes = loadBinding(settings.bindingDirectory);
  const cryptoki = new parameterTypes.PKCS11();
  try {
    cryptoki.load(path);
    cryptoki.C_Initialize({ flags: CKF_OS_LOCKING_OK });
  } catch (cause) {
    if (returnValue(cause) === CKR_CRYPTOKI_ALREADY_INITIALIZED) return { cryptoki, parameterTypes };
    throw new OcicryptError('configuration', `the PKCS#11 module ${showPath(path)} cannot be used`, {
      cause,
      hint: `try it with: pkcs11-tool --module ${showPath(path)} --list-slots`,
    });
  }
  return { cryptoki, parameterTypes };
}

type Binding = ParameterTypes & { readonly PKCS11: new () => Cryptoki };

/** Not a literal, so that no bundler looks for it. */
const PACKAGE = ['pkcs11', 'js'].join('');

/**
 * The package pkcs11js, which has to be compiled for the machine it runs on. The executable cannot carry it and looks
 * for it in the named directory, or else beside itself; the npm package resolves it as its optional peer.
 */
function loadBinding(directory: string | undefined): Binding {
  const require = createRequire(import.meta.url ?? process.execPath);
  let cause: unknown;
  for (const place of bindingPlaces(directory)) {
    try {
      const binding: unknown = require(place);
      if (isBinding(binding)) return binding;
    } catch (error) {
      cause ??= error;
    }
  }
  throw new OcicryptError('configuration', 'PKCS#11 keys need the package pkcs11js, which is not here', {
    cause,
    hint: `npm install --prefix DIR pkcs11js@2.1.7 (it needs a C++ compiler), then ${setting('pkcs11.bindingDirectory')}=DIR`,
  });
}

/** Exact places only, and in a bundle for CommonJS, which has no `import.meta`, none beside it: a search upwards would end in directories that are not the operator's. */
function bindingPlaces(directory: string | undefined): readonly string[] {
  const inside = (place: string) => join(place, 'node_modules', PACKAGE);
  if (directory !== undefined) return [inside(directory)];
  if (import.meta.url?.includes('/$bunfs/') !== true) return [PACKAGE];
  const here = dirname(process.execPath);
  return [inside(here), inside(join(here, '..', 'lib', 'ocicrypt-kms'))];
}

function isBinding(value: unknown): value is Binding {
  if (typeof value !== 'object' || value === null || typeof Reflect.get(value, 'PKCS11') !== 'function') return false;
  const types = ['CK_PARAMS_RSA_OAEP', 'CK_PARAMS_AES_GCM', 'CK_PARAMS_AES_GCM_v240'];
  return types.every((name) => typeof Reflect.get(value, name) === 'number');
}
