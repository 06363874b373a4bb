// Fetches Debian packages for tests: into `.cache/clients` of the checkout. Imports `node:` only.
import { execFile, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import process from 'node:process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const run = promisify(execFile);
const cache = fileURLToPath(new URL('../../.cache/clients', import.meta.url));
export type DebianRelease = 'bullseye' | 'bookworm' | 'trixie';
/** Debian 13, unless a test wants what an older one carries. */
export const CURRENT: DebianRelease = 'trixie';
const keyring = '/usr/share/keyrings/debian-archive-keyring.gpg';

/**
 * Answers the directory of the unpacked packages: the cached one, or a new one. No root is needed and nothing else is
 * touched. Fetches once per checkout, also when several processes ask at the same time.
 *
 * @param foreign another architecture than the machine's
 * @throws Error of apt or dpkg; {@link firstComplaint} is what to show of it
 */
export async function fetchFromDebian(
  packages: readonly string[],
  release: DebianRelease = CURRENT,
  foreign?: 'amd64' | 'arm64',
): Promise<string> {
  const source = await debianSource(release);
  const architecture = foreign ?? (await run('dpkg', ['--print-architecture'])).stdout.trim();
  const version = createHash('sha256')
    .update([release, architecture, ...packages].join())
    .digest('hex')
    .slice(0, 12);
  const root = join(cache, `${release}-${architecture}-${version}`);
  if (existsSync(root)) return root;
  await mkdir(cache, { recursive: true });
  await withLock(join(cache, 'lock'), async () => {
    if (existsSync(root)) return;
    // Under the lock nobody else works here: what is found is left over from a fetch that was killed.
    const scratch = join(cache, 'fetch');
    await rm(scratch, { recursive: true, force: true });
    try {
      await download(scratch, source, architecture, packages);
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

/** One line: apt's own error where there is one. A mirror's address may hold a password, which is not repeated. */
export function firstComplaint(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  const line = /^E: (.*)$/m.exec(text)?.[1] ?? text.split('\n')[0] ?? '';
  return line.trim().replaceAll(/\/\/[^/@\s]*@/g, '//');
}

/**
 * Puts the packages into `scratch/packages`, with an apt state, cache and source list of its own: the machine's apt is
 * only read, for its mirror, proxy and credentials, and its hooks (which clean the machine's cache) are not run.
 */
async function download(
  scratch: string,
  source: string,
  architecture: string,
  packages: readonly string[],
): Promise<void> {
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

/** One `sources.list` line for a release, with the mirror that this machine is set up with. */
export async function debianSource(release: DebianRelease): Promise<string> {
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
export async function withLock(file: string, work: () => Promise<void>): Promise<void> {
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
