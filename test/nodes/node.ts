// Makes a node: namespaces with a /usr, /etc, /run and /var/lib of their own, in which one containerd or CRI-O runs.
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, rmdir, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { promisify } from 'node:util';
import { firstComplaint } from '../real-clients/debian.ts';
import {
  clientEnvironment,
  type Environment,
  type RunOptions,
  type RunResult,
  runClient,
} from '../real-clients/process.ts';

/** The service that a node is for. */
export type NodeService = {
  readonly name: 'containerd' | 'crio';
  /** What lies over the machine's /usr, the first on top: the service, and all that it needs. */
  readonly layers: readonly string[];
  /** Programs by their names, where services of a node look for them. */
  readonly programs?: Readonly<Record<string, string>>;
  /** A command of the shell that succeeds once the service answers. */
  readonly probe: string;
};

/** What to start. */
export type NodeOptions = {
  readonly service: NodeService;
  /** Text files by their path on the node, written before the service starts. */
  readonly files?: Readonly<Record<string, string>>;
  /** Variables that the service has beside those of every program. */
  readonly variables?: Environment;
  /** Programs by the name under which the node's PATH has them. */
  readonly programs?: Readonly<Record<string, string>>;
  /** Unpacked packages whose /usr lies over the machine's, beside those of every node. */
  readonly roots?: readonly string[];
  /** Where its disk is; by default in memory. */
  readonly disk?: string;
};

/** A node. Its network is the machine's, everything else its own: what it starts ends with it. */
export interface Node {
  readonly service: NodeService;
  /** As its service calls itself. */
  readonly version: string;
  /** The control group for pods: `stop` removes it. */
  readonly controlGroup: string;
  /** Runs a program on the node to its end. */
  run(argv: readonly [string, ...string[]], options?: RunOptions): Promise<RunResult>;
  /** Starts a program on the node, under a name to kill it by; what it says goes to `/run/NAME.log`. */
  start(name: string, argv: readonly [string, ...string[]]): Promise<void>;
  /** Ends a program, with a signal, and waits for its end. */
  kill(name: string, signal?: 'KILL' | 'TERM'): Promise<void>;
  /** Whether it was started with this program. */
  has(program: string): boolean;
  /** Where a file of the node is for the machine. */
  path(path: string): string;
  write(path: string, text: string, mode?: number): Promise<void>;
  /** What its service has logged since its last start. */
  log(): Promise<string>;
  startService(): Promise<void>;
  stop(): Promise<void>;
}

const run = promisify(execFile);

/**
 * $1 what lies over /usr, $2 the node's disk, $3 tmpfs where it is in memory. The node ends with standard input. runc does
 * not run beside a hierarchy of control groups that is only half new. Settings of the machine's own runtimes are not seen.
 */
const BOOT = `set -e
mount -t overlay overlay -o "lowerdir=$1:/usr" /usr
umount /sys/fs/cgroup/unified 2>/dev/null || true
[ -z "$3" ] || mount -t tmpfs -o mode=755 tmpfs "$2"
for place in etc var/lib opt; do
  mkdir -p "$2/upper/$place" "$2/work/$place" "/$place"
  mount -t overlay overlay -o "lowerdir=/$place,upperdir=$2/upper/$place,workdir=$2/work/$place" "/$place"
done
mount -t tmpfs -o mode=755 tmpfs /run
for place in /etc/containerd /etc/crio /etc/containers /etc/docker /etc/rancher /etc/ocicrypt-kms /etc/cni /opt/cni; do
  mkdir -p "$place"
  mount -t tmpfs -o mode=755 tmpfs "$place"
done
for place in containerd containers nerdctl docker; do
  mkdir -p "$2/lib/$place" "/var/lib/$place"
  mount --bind "$2/lib/$place" "/var/lib/$place"
done
mkdir -p "$2/bin" /var/log
echo booted
exec cat`;

const PATIENCE = 30_000;

/**
 * Says why no node can be made here, or nothing: it takes root, and the right to make namespaces and to mount.
 */
export async function whyNoNode(): Promise<string | undefined> {
  const probe =
    'mount -t tmpfs tmpfs /mnt && mkdir /mnt/u /mnt/w && mount -t overlay overlay -o lowerdir=/etc,upperdir=/mnt/u,workdir=/mnt/w /etc';
  return run('unshare', ['--mount', '--pid', '--fork', '--mount-proc', 'sh', '-c', probe]).then(
    () => undefined,
    (error: unknown) => {
      const stderr = error instanceof Error && 'stderr' in error ? String(error.stderr).trim() : firstComplaint(error);
      return `a node needs root, and namespaces and mounts of its own: ${stderr}`;
    },
  );
}

/** Makes a node and starts its service, which answers when the promise resolves. */
export async function startNode(options: NodeOptions): Promise<Node> {
  const { service } = options;
  const directory = await mkdtemp(join(options.disk ?? tmpdir(), 'node-'));
  const own = join(directory, 'usr');
  await mkdir(join(own, 'bin'), { recursive: true });
  for (const [name, program] of Object.entries(service.programs ?? {})) await symlink(program, join(own, 'bin', name));
  const roots = (options.roots ?? []).map((root) => join(root, 'usr'));
  const layers = [own, ...new Set([...service.layers, ...roots])].join(':');
  const words = [
    '--mount',
    '--pid',
    '--ipc',
    '--uts',
    '--fork',
    '--kill-child',
    '--mount-proc',
    'sh',
    '-c',
    BOOT,
    'sh',
  ];
  const init = spawn('unshare', [...words, layers, directory, options.disk === undefined ? 'tmpfs' : ''], {
    env: clientEnvironment(),
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  const pid = await booted(init);
  const env = {
    HOME: '/root',
    PATH: [join(directory, 'bin'), '/usr/local/sbin', '/usr/local/bin', '/usr/sbin', '/usr/bin', '/sbin', '/bin'].join(
      ':',
    ),
    TMPDIR: '/run',
    XDG_RUNTIME_DIR: '/run',
  };
  const enter = ['nsenter', `--target=${pid}`, '--mount', '--pid', '--ipc', '--uts', '--wd=/'] as const;
  const controlGroup = `/ocicrypt-kms-${randomBytes(4).toString('hex')}`;
  const path = (name: string) => join(`/proc/${pid}/root`, name);
  const started = new Map<string, ChildProcess>();

  const node: Node = {
    service,
    version: '',
    controlGroup,
    run: (argv, runOptions = {}) =>
      runClient([...enter, ...argv], { ...runOptions, env: { ...env, ...runOptions.env } }),
    async start(name, argv) {
      const script = 'echo $$ >"/run/$1.pid"; exec >"/run/$1.log" 2>&1; shift; exec "$@"';
      const [command, ...words] = [...enter, 'sh', '-c', script, 'sh', name, ...argv] as const;
      // nsenter ends with what it has started.
      const child = spawn(command, words, { env: clientEnvironment(env), stdio: 'ignore' });
      await once(child, 'spawn');
      started.set(name, child);
    },
    async kill(name, signal = 'TERM') {
      const child = started.get(name);
      if (child === undefined || child.exitCode !== null) return;
      const ended = once(child, 'exit');
      await done(node.run(['sh', '-c', 'kill -s "$1" "$(cat "/run/$2.pid")"', 'sh', signal, name]));
      await ended;
    },
    has: (program) => Object.hasOwn({ ...service.programs, ...options.programs }, program),
    path,
    async write(name, text, mode = 0o644) {
      await mkdir(dirname(path(name)), { recursive: true });
      await writeFile(path(name), text);
      await chmod(path(name), mode);
    },
    log: () => readFile(path(`/run/${service.name}.log`), 'utf8'),
    async startService() {
      const variables = Object.entries(options.variables ?? {}).map(([name, value]) => `${name}=${value}`);
      await node.start(service.name, ['env', ...variables, service.name]);
      for (const end = Date.now() + PATIENCE; ; await pause(50)) {
        const { exitCode } = await node.run(['sh', '-c', service.probe]);
        if (exitCode === 0) return;
        if (started.get(service.name)?.exitCode !== null || Date.now() > end) {
          throw new Error(`${service.name} did not start: ${await node.log()}`);
        }
      }
    },
    async stop() {
      // The first process ends: the kernel kills all others of the node before that is seen.
      const ended = once(init, 'exit');
      init.stdin?.end();
      await ended;
      await removeControlGroups(controlGroup);
      await rm(directory, { recursive: true, force: true, maxRetries: 10 });
    },
  };
  try {
    for (const [name, program] of Object.entries(options.programs ?? {})) {
      await symlink(program, path(join(directory, 'bin', name)));
    }
    for (const [name, text] of Object.entries(options.files ?? {})) await node.write(name, text);
    const { stdout } = await done(node.run([service.name, '--version']));
    const version = /\bv?(\d+\.\d+\.\d+)/.exec(new TextDecoder().decode(stdout))?.[1] ?? '';
    await node.startService();
    return { ...node, version };
  } catch (error) {
    await node.stop();
    throw error;
  }
}

/** The process that all others of the node descend from, as the machine numbers it. */
async function booted(init: ChildProcess): Promise<number> {
  let complaint = '';
  init.stderr?.on('data', (chunk: Buffer) => (complaint += chunk));
  init.stdin?.on('error', () => {});
  const { stdout } = init;
  if (stdout === null || init.pid === undefined) throw new Error('unshare has no output');
  const first = await Promise.race([once(stdout, 'data').then(() => 'booted'), once(init, 'exit').then(() => 'ended')]);
  if (first === 'ended') throw new Error(`no node could be made: ${complaint.trim()}`);
  const children = await readFile(`/proc/${init.pid}/task/${init.pid}/children`, 'utf8');
  return Number(children.trim().split(' ')[0]);
}

async function done(running: Promise<RunResult>): Promise<RunResult> {
  const result = await running;
  if (result.exitCode !== 0) throw new Error(result.stderr.trim());
  return result;
}

/** Groups are removed from within. Which controllers there are depends on the machine. */
async function removeControlGroups(name: string): Promise<void> {
  const hierarchies = await readdir('/sys/fs/cgroup').catch(() => []);
  for (const root of ['', ...hierarchies]) await removeControlGroup(join('/sys/fs/cgroup', root, name));
}

async function removeControlGroup(path: string): Promise<void> {
  const entries = await readdir(path, { withFileTypes: true }).catch(() => []);
  for (const entry of entries.filter((one) => one.isDirectory())) await removeControlGroup(join(path, entry.name));
  await rmdir(path).catch(() => {});
}
