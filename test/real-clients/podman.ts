// Runs podman as root with a storage of its own, which leaves the machine's alone.
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type Environment, type RunResult, runClient } from './process.ts';
import { toolArgv } from './tools.ts';

/** Runs podman to its end; a failing exit is a result. */
export type Podman = (words: readonly string[], env?: Environment) => Promise<RunResult>;

/** A podman whose images and containers are below `directory`. */
export async function createPodman(directory: string): Promise<Podman> {
  const argv = await toolArgv('podman');
  const place = (name: string) => join(directory, name);
  await mkdir(place('home/.config/containers'), { recursive: true });
  // Without a policy nothing is pulled.
  const policy = { default: [{ type: 'insecureAcceptAnything' }] };
  await writeFile(place('home/.config/containers/policy.json'), JSON.stringify(policy));
  const storage = [`--root=${place('storage')}`, `--runroot=${place('run')}`, `--tmpdir=${place('tmp')}`];
  // What needs no daemon, no kernel module and no rights over the machine.
  const plain = ['--storage-driver=vfs', '--cgroup-manager=cgroupfs', '--events-backend=none'];
  return (words, env = {}) =>
    runClient([...argv, ...storage, ...plain, ...words], { env: { HOME: place('home'), ...env } });
}
