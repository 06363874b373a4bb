// Finds the real clients the tests run, or has them fetched. Imports nothing that is installed.
import { execFile } from 'node:child_process';
import { access, constants, readdir } from 'node:fs/promises';
import { delimiter, join } from 'node:path';
import process from 'node:process';
import type { TestContext } from 'node:test';
import { promisify } from 'node:util';
import { fetchFromDebian, firstComplaint } from './debian.ts';

/** A real client, by the name of its executable. */
export type ToolName = (typeof toolNames)[number];

/** The words that start a tool, to be followed by its arguments. */
export type Argv = readonly [string, ...string[]];

/** How to run a tool; or, in one line, why it cannot be run here and what to install. */
export type Tool = { readonly argv: Argv } | { readonly missing: string };

/** Every tool, present or not. */
export type Tools = Readonly<Record<ToolName, Tool>>;

const run = promisify(execFile);
/** busybox is a shell for images: one that needs nothing beside it. Then come those for the server, those that uncompress archives, and what rotates logs. */
const toolNames = [
  ...(['skopeo', 'ctd-decoder', 'docker-registry', 'podman', 'busybox'] as const),
  ...(['h2load', 'nghttp', 'testssl'] as const),
  ...(['xz', 'bzip2', 'logrotate'] as const),
] as const;
// What the tests run, what podman runs, and the shared libraries of all, for hosts whose own C library is older.
export const CLIENT_PACKAGES = [
  ...['skopeo', 'imgcrypt', 'docker-registry', 'podman', 'busybox-static'],
  ...['conmon', 'crun', 'netavark', 'nghttp2-client', 'testssl.sh'],
  ...['libc6', 'libgpgme11t64', 'libassuan9', 'libgpg-error0', 'libsqlite3-0'],
  ...['libsubid5', 'libseccomp2', 'libglib2.0-0t64', 'libyajl2', 'libsystemd0', 'libcap2'],
  ...['libnghttp2-14', 'libev4t64', 'libjansson4', 'libjemalloc2', 'libssl3t64', 'libstdc++6', 'libgcc-s1'],
  ...['libxml2', 'liblzma5', 'libicu76', 'libzstd1', 'zlib1g'],
];
const UNCOMPRESS_PACKAGES = ['xz-utils', 'bzip2', 'liblzma5', 'libbz2-1.0', 'libc6'];
const ROTATE_PACKAGES = ['logrotate', 'libacl1', 'libpopt0', 'libselinux1', 'libpcre2-8-0', 'libc6'];
const hint =
  'install skopeo 1.18 or later, imgcrypt, docker-registry, podman 5, nghttp2-client, testssl.sh, xz-utils, bzip2 and logrotate (all in Debian 13)';
/** Debian's older ones are built without key providers. */
const minimum: Partial<Record<ToolName, readonly [major: number, minor: number]>> = {
  skopeo: [1, 18],
  podman: [5, 0],
};
let found: Promise<Tools> | undefined;

/**
 * Finds the tools in PATH, new enough, and fetches those that PATH lacks from Debian into `.cache/clients` of the checkout, without root and touching nothing else.
 * Looks once per process and fetches once per checkout, also when several processes ask at the same time.
 * Never throws: a tool that cannot be had comes back with the reason.
 */
export function ensureTools(): Promise<Tools> {
  found ??= findTools();
  return found;
}

/**
 * Gives the words that start tool `name`, for `spawn`.
 * Throws an `Error` with the reason when the tool cannot be had; a test asks `realClients` first.
 */
export async function toolArgv(name: ToolName): Promise<Argv> {
  const tool = (await ensureTools())[name];
  if ('missing' in tool) throw new Error(tool.missing);
  return tool.argv;
}

/**
 * Opens a test that needs real clients: `if (!(await realClients(t))) return;`.
 * Answers true when all of `names` can be run. Otherwise skips the test with a line that says what to install; under
 * CI=true, where nobody reads skipped tests, throws that line as an `Error` instead.
 */
export async function realClients(t: TestContext, names: readonly ToolName[] = toolNames): Promise<boolean> {
  const tools = await ensureTools();
  const missing = names.map((name) => tools[name]).find((tool) => 'missing' in tool);
  if (missing === undefined) return true;
  if (process.env.CI === 'true') throw new Error(missing.missing);
  t.skip(missing.missing);
  return false;
}

async function findTools(): Promise<Tools> {
  const fetched = new Map<readonly string[], Promise<string>>();
  const find = async (name: ToolName): Promise<Tool> => {
    const own = await findInPath(name);
    try {
      if (name === 'podman' && own !== undefined) return await findPodman([]);
      if (own !== undefined) return { argv: [own] };
      const packages = packagesOf(name);
      const root = fetched.get(packages) ?? fetchFromDebian(packages);
      fetched.set(packages, root);
      return await fetchedTool(await root, name);
    } catch (error) {
      return { missing: `${name} is not in PATH and was not fetched (${firstComplaint(error)}): ${hint}` };
    }
  };
  const [skopeo, decoder, registry, podman, busybox, h2load, nghttp, testssl, xz, bzip2, logrotate] = await Promise.all(
    [
      ...([find('skopeo'), find('ctd-decoder'), find('docker-registry'), find('podman'), find('busybox')] as const),
      ...([find('h2load'), find('nghttp'), find('testssl'), find('xz'), find('bzip2')] as const),
      find('logrotate'),
    ],
  );
  const server = { h2load, nghttp, testssl };
  return {
    skopeo,
    'ctd-decoder': decoder,
    'docker-registry': registry,
    podman,
    busybox,
    ...server,
    xz,
    bzip2,
    logrotate,
  };
}

function packagesOf(name: ToolName): readonly string[] {
  if (name === 'logrotate') return ROTATE_PACKAGES;
  return name === 'xz' || name === 'bzip2' ? UNCOMPRESS_PACKAGES : CLIENT_PACKAGES;
}

async function findInPath(name: ToolName): Promise<string | undefined> {
  for (const directory of (process.env.PATH ?? '').split(delimiter)) {
    const path = join(directory, name);
    if (directory === '' || !(await isExecutable(path))) continue;
    // That of a distribution may need its libraries.
    if (name !== 'busybox' && (await isNewEnough(path, name))) return path;
  }
  return undefined;
}

async function isExecutable(path: string): Promise<boolean> {
  return access(path, constants.X_OK).then(
    () => true,
    () => false,
  );
}

async function isNewEnough(path: string, name: ToolName): Promise<boolean> {
  const wanted = minimum[name];
  if (wanted === undefined) return true;
  const { stdout } = await run(path, ['--version']).catch(() => ({ stdout: '' }));
  const [, major, minor] = /(\d+)\.(\d+)/.exec(stdout) ?? [];
  return Number(major) > wanted[0] || (Number(major) === wanted[0] && Number(minor) >= wanted[1]);
}

/** Runs a fetched program by its own loader and libraries. What it starts in turn has the host's: they are not inherited. */
async function fetchedTool(root: string, name: ToolName): Promise<Tool> {
  if (name === 'busybox') return { argv: [join(root, 'usr/bin/busybox')] };
  if (name === 'podman') return findPodman([root]);
  // A shell script, which runs the machine's own OpenSSL.
  if (name === 'testssl') {
    return { argv: ['env', `TESTSSL_INSTALL_DIR=${join(root, 'etc/testssl')}`, 'bash', join(root, 'usr/bin/testssl')] };
  }
  const libraries = join(root, 'usr/lib');
  for (const triplet of await readdir(libraries)) {
    const loader = (await readdir(join(libraries, triplet)).catch(() => [])).find((file) =>
      file.startsWith('ld-linux'),
    );
    if (loader === undefined) continue;
    const library = join(libraries, triplet);
    const program = join(root, name === 'logrotate' ? 'usr/sbin' : 'usr/bin', name);
    return { argv: [join(library, loader), '--library-path', library, program] };
  }
  throw new Error(`no loader below ${libraries}`);
}

/**
 * podman mounts, which is kept from the machine by a mount namespace; and it starts itself anew, which goes wrong where a
 * loader was started by name: what was fetched is laid over the machine's /usr in that namespace. Both need root. crun
 * does not run beside a hierarchy of control groups that is only half new.
 */
const namespaceScript = `
{ [ -z "$1" ] || mount -t overlay overlay -o "lowerdir=$1:/usr" /usr; } &&
{ umount /sys/fs/cgroup/unified 2>/dev/null || true; } && shift && exec "$@"`;

/** The words that run a program in a mount namespace of its own. @param roots of fetched packages */
export function namespaceArgv(roots: readonly string[], program: string): Argv {
  const layers = roots.map((root) => join(root, 'usr')).join(':');
  return ['unshare', '--mount', 'sh', '-c', namespaceScript, 'sh', layers, program];
}

/** @param roots of the fetched packages, none for the podman in PATH */
async function findPodman(roots: readonly string[]): Promise<Tool> {
  const argv = namespaceArgv(roots, 'podman');
  const [command, ...words] = argv;
  return run(command, [...words, '--version']).then(
    () => ({ argv }),
    (error: unknown) => ({ missing: `podman needs root, and mounts of its own (${firstComplaint(error)})` }),
  );
}
