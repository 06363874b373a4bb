// The only code that finds or fetches the real clients the tests run: skopeo, podman, ctd-decoder, docker-registry. Imports `node:` only.
import { execFile, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { access, constants, mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { delimiter, join } from 'node:path';
import process from 'node:process';
import type { TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

/** A real client, by the name of its executable. */
export type ToolName = (typeof toolNames)[number];

/** The words that start a tool, to be followed by its arguments. */
export type Argv = readonly [string, ...string[]];

/** How to run a tool; or, in one line, why it cannot be run here and what to install. */
export type Tool = { readonly argv: Argv } | { readonly missing: string };

/** Every tool, present or not. */
export type Tools = Readonly<Record<ToolName, Tool>>;

const run = promisify(execFile);
/** busybox is a shell for images: one that needs nothing beside it. The last three are for the server. */
const toolNames = [
  ...(['skopeo', 'ctd-decoder', 'docker-registry', 'podman', 'busybox'] as const),
  ...(['h2load', 'nghttp', 'testssl'] as const),
] as const;
const cache = fileURLToPath(new URL('../../.cache/clients', import.meta.url));
const release = 'trixie';
const keyring = '/usr/share/keyrings/debian-archive-keyring.gpg';
// What the tests run, what podman runs, and the shared libraries of all, for hosts whose own C library is older.
const packages = [
  ...['skopeo', 'imgcrypt', 'docker-registry', 'podman', 'busybox-static'],
  ...['conmon', 'crun', 'netavark', 'nghttp2-client', 'testssl.sh'],
  ...['libc6', 'libgpgme11t64', 'libassuan9', 'libgpg-error0', 'libsqlite3-0'],
  ...['libsubid5', 'libseccomp2', 'libglib2.0-0t64', 'libyajl2', 'libsystemd0', 'libcap2'],
  ...['libnghttp2-14', 'libev4t64', 'libjansson4', 'libjemalloc2', 'libssl3t64', 'libstdc++6', 'libgcc-s1'],
  ...['libxml2', 'liblzma5', 'libicu76', 'libzstd1', 'zlib1g'],
];
const hint =
  'install skopeo 1.18 or later, imgcrypt, docker-registry, podman 5, nghttp2-client and testssl.sh (all in Debian 13)';
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
  let fetched: Promise<string> | undefined;
  const find = async (name: ToolName): Promise<Tool> => {
    const own = await findInPath(name);
    try {
      if (name === 'podman' && own !== undefined) return await findPodman('');
      if (own !== undefined) return { argv: [own] };
      fetched ??= fetchFromDebian();
      return await fetchedTool(await fetched, name);
    } catch (error) {
      return { missing: `${name} is not in PATH and was not fetched (${firstComplaint(error)}): ${hint}` };
    }
  };
  const [skopeo, decoder, registry, podman, busybox, h2load, nghttp, testssl] = await Promise.all([
    ...([find('skopeo'), find('ctd-decoder'), find('docker-registry'), find('podman'), find('busybox')] as const),
    ...([find('h2load'), find('nghttp'), find('testssl')] as const),
  ]);
  return { skopeo, 'ctd-decoder': decoder, 'docker-registry': registry, podman, busybox, h2load, nghttp, testssl };
}

/** One line: apt's own error where there is one. A mirror's address may hold a password, which is not repeated. */
function firstComplaint(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  const line = /^E: (.*)$/m.exec(text)?.[1] ?? text.split('\n')[0] ?? '';
  return line.trim().replaceAll(/\/\/[^/@\s]*@/g, '//');
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
  if (name === 'podman') return findPodman(root);
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
    return { argv: [join(library, loader), '--library-path', library, join(root, 'usr/bin', name)] };
  }
  throw new Error(`no loader below ${libraries}`);
}

/**
 * podman mounts, which is kept from the machine by a mount namespace; and it starts itself anew, which goes wrong where a
 * loader was started by name: what was fetched is laid over the machine's /usr in that namespace. Both need root. crun
 * does not run beside a hierarchy of control groups that is only half new.
 */
const podmanScript = `
{ [ -z "$1" ] || mount -t overlay overlay -o "lowerdir=$1/usr:/usr" /usr; } &&
{ umount /sys/fs/cgroup/unified 2>/dev/null || true; } && shift && exec podman "$@"`;

/** @param root of the fetched packages, empty for the podman in PATH */
async function findPodman(root: string): Promise<Tool> {
  const argv: Argv = ['unshare', '--mount', 'sh', '-c', podmanScript, 'sh', root];
  const [command, ...words] = argv;
  return run(command, [...words, '--version']).then(
    () => ({ argv }),
    (error: unknown) => ({ missing: `podman needs root, and mounts of its own (${firstComplaint(error)})` }),
  );
}

/** Answers the directory of the unpacked packages: the cached one, or a new one. */
async function fetchFromDebian(): Promise<string> {
  const source = await debianSource();
  const { stdout } = await run('dpkg', ['--print-architecture']);
  const architecture = stdout.trim();
  const version = createHash('sha256')
    .update([release, architecture, ...packages].join())
    .digest('hex')
    .slice(0, 12);
  const root = join(cache, `${release}-${architecture}-${version}`);
  if (await isExecutable(join(root, 'usr/bin/skopeo'))) return root;
  await mkdir(cache, { recursive: true });
  await withLock(join(cache, 'lock'), async () => {
    if (await isExecutable(join(root, 'usr/bin/skopeo'))) return;
    // Under the lock nobody else works here: what is found is left over from a fetch that was killed.
    const scratch = join(cache, 'fetch');
    await rm(scratch, { recursive: true, force: true });
    try {
      await download(scratch, source, architecture);
      const unpacked = join(scratch, 'root');
      for (const file of await readdir(join(scratch, 'packages'))) {
        await run('dpkg', ['-x', join(scratch, 'packages', file), unpacked]);
      }
      await rename(unpacked, root);
    } finally {
      await rm(scratch, { recursive: true, force: true });
    }
  });
  return root;
}

/**
 * Puts the packages into `scratch/packages`, with an apt state, cache and source list of its own: the machine's apt is
 * only read, for its mirror, proxy and credentials, and its hooks (which clean the machine's cache) are not run.
 */
async function download(scratch: string, source: string, architecture: string): Promise<void> {
  for (const directory of ['state/lists/partial', 'cache/archives/partial', 'parts', 'packages']) {
    await mkdir(join(scratch, directory), { recursive: true });
  }
  await writeFile(join(scratch, 'status'), '');
  await writeFile(join(scratch, 'sources.list'), `${source}\n`);
  const settings = [
    '#clear APT::Update::Pre-Invoke;',
    '#clear APT::Update::Post-Invoke;',
    '#clear APT::Update::Post-Invoke-Success;',
    `Dir::State "${join(scratch, 'state')}";`,
    `Dir::State::status "${join(scratch, 'status')}";`,
    `Dir::Cache "${join(scratch, 'cache')}";`,
    `Dir::Etc::sourcelist "${join(scratch, 'sources.list')}";`,
    `Dir::Etc::sourceparts "${join(scratch, 'parts')}";`,
    `APT::Architecture "${architecture}";`,
    'APT::Sandbox::User "root";',
    'APT::Update::Error-Mode "any";',
    'Acquire::Languages "none";',
    'Acquire::Retries "2";',
    'Acquire::http::Timeout "20";',
    'Acquire::https::Timeout "20";',
    'Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled "false";',
    'Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";',
  ];
  const file = join(scratch, 'apt.conf');
  await writeFile(file, `${settings.join('\n')}\n`);
  const options = { cwd: join(scratch, 'packages'), timeout: 300_000, env: { ...process.env, LC_ALL: 'C' } };
  await run('apt-get', ['-c', file, 'update'], options);
  await run('apt-get', ['-c', file, 'download', ...packages], options);
}

/** One `sources.list` line for `release`, with the mirror that this machine is set up with. */
async function debianSource(): Promise<string> {
  const codename = /^VERSION_CODENAME=(\S+)$/m.exec(await readFile('/etc/os-release', 'utf8'))?.[1];
  const files = (await readdir('/etc/apt/sources.list.d').catch(() => [])).map((file) => `sources.list.d/${file}`);
  for (const file of ['sources.list', ...files]) {
    if (!/\.(list|sources)$/.test(file)) continue;
    const text = await readFile(join('/etc/apt', file), 'utf8').catch(() => '');
    const mirror = file.endsWith('.sources') ? mirrorOfStanzas(text, codename) : mirrorOfLines(text, codename);
    if (mirror !== undefined && file.match(/\.(list|sources)$/))
      return `deb [signed-by=${keyring}] ${mirror} ${release} main`;
  }
  throw new Error('this machine has no Debian mirror in /etc/apt');
}

/** The format of `sources.list(5)`, one line each. */
function mirrorOfLines(text: string, codename: string | undefined): string | undefined {
  const lines = text.matchAll(/^[ \t]*deb[ \t]+(?:\[[^\]]*\][ \t]*)?(\S+)[ \t]+(\S+)[ \t]+(.*)$/gm);
  const line = [...lines].find(
    ([, , suite, components]) => suite === codename && components?.split(/\s+/).includes('main'),
  );
  return line?.[1];
}

/** The format of `sources.list(5)`, deb822. */
function mirrorOfStanzas(text: string, codename: string | undefined): string | undefined {
  for (const stanza of text.split(/\n\s*\n/)) {
    const words = (field: string): readonly string[] =>
      new RegExp(`^${field}:[ \\t]*(.*)$`, 'im').exec(stanza)?.[1]?.trim().split(/\s+/) ?? [];
    if (words('Enabled')[0] === 'no' || !words('Types').includes('deb')) continue;
    if (codename !== undefined && words('Suites').includes(codename) && words('Components').includes('main')) {
      return words('URIs')[0];
    }
  }
  return undefined;
}

/** Runs `work` alone among all processes. The kernel frees the lock when its holder dies, so none is ever left behind. */
async function withLock(file: string, work: () => Promise<void>): Promise<void> {
  const holder = spawn('flock', [file, 'sh', '-c', 'echo held; exec cat'], { stdio: ['pipe', 'pipe', 'ignore'] });
  const ended = once(holder, 'exit');
  const failed = ended.then(() => Promise.reject(new Error('flock failed')));
  await Promise.race([once(holder.stdout, 'data'), failed]);
  failed.catch(() => {});
  try {
    await work();
  } finally {
    holder.stdin.end();
    await ended;
  }
}
