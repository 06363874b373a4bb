// Where containerd keeps its content on this machine: what the process that started us has open, else the usual places.

import { readdirSync, readlinkSync, statSync } from 'node:fs';
import { homedir } from 'node:os';
import { isAbsolute, join } from 'node:path';
import { OcicryptError } from '../base/errors.ts';
import { setting } from '../base/setting.ts';
import { showPath } from '../base/shown.ts';

/** A content store: its directory, and the names of the blobs that containerd reads from it at this moment. */
export type ContentStore = { readonly directory: string; readonly open: ReadonlySet<string> };

/** The root of a plugin below the root of containerd; https://github.com/containerd/containerd plugins/content/local */
const PLUGIN = 'io.containerd.content.v1.content';

const BLOB = /^(\/.+)\/blobs\/sha256\/([0-9a-f]{64})(?: \(deleted\))?$/;

/** Of containerd, and of those who bring their own: k3s, RKE2, MicroK8s, k0s, Docker. */
const ROOTS = [
  '/var/lib/containerd',
  '/var/lib/rancher/k3s/agent/containerd',
  '/var/lib/rancher/rke2/agent/containerd',
  '/var/snap/microk8s/common/var/lib/containerd',
  '/var/lib/k0s/containerd',
  '/var/lib/docker/containerd/daemon',
];

/**
 * The store that is meant, if one is named; else those that the parent has blobs open of, which is containerd at work on
 * this very layer wherever its root is; else those of the usual places that are there.
 *
 * @param named the root of containerd, or the directory of its content store itself
 * @throws OcicryptError `not-found`
 */
export function findContentStores(named: string | undefined, parent: number): readonly ContentStore[] {
  const opened = storesOfProcess(parent);
  if (named !== undefined) {
    const directory = contentDirectory(named);
    if (directory === undefined) {
      throw new OcicryptError('not-found', `${showPath(named)} holds no content store of containerd`, {
        hint: 'name the root of containerd, as /var/lib/containerd, which has io.containerd.content.v1.content in it',
      });
    }
    return [opened.find((store) => store.directory === directory) ?? { directory, open: new Set() }];
  }
  if (opened.length > 0) return opened;
  const data = process.env.XDG_DATA_HOME ?? join(homedir(), '.local/share');
  const rootless = isAbsolute(data) ? [join(data, 'containerd')] : [];
  const found = [...ROOTS, ...rootless].map(contentDirectory).filter((directory) => directory !== undefined);
  if (found.length > 0) return found.map((directory) => ({ directory, open: new Set() }));
  throw new OcicryptError('not-found', 'containerd says nothing of the layer, and its content store was not found', {
    hint: `name the root of containerd with ${setting('contentStore')}=DIR`,
  });
}

function contentDirectory(root: string): string | undefined {
  return [join(root, PLUGIN), root].find((directory) => isDirectory(join(directory, 'blobs/sha256')));
}

function isDirectory(path: string): boolean {
  try {
    return statSync(path).isDirectory();
  } catch {
    return false;
  }
}

/** By the links that Linux has for open files; nothing if they cannot be read. */
function storesOfProcess(pid: number): readonly ContentStore[] {
  const stores = new Map<string, Set<string>>();
  for (const path of openFiles(`/proc/${pid}/fd`)) {
    const [, directory, hex] = BLOB.exec(path) ?? [];
    if (directory === undefined || hex === undefined) continue;
    const open = stores.get(directory) ?? new Set();
    stores.set(directory, open.add(hex));
  }
  return [...stores].map(([directory, open]) => ({ directory, open }));
}

function openFiles(directory: string): readonly string[] {
  try {
    return readdirSync(directory).flatMap((name) => {
      try {
        return [readlinkSync(join(directory, name))];
      } catch {
        // It was closed in between.
        return [];
      }
    });
  } catch {
    return [];
  }
}
