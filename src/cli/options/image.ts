// The options that say which part of an image is meant, and where it is; part of the one table (table.ts).

import type { OptionGroup } from './spec.ts';

export const IMAGE_OPTIONS = {
  layer: {
    kind: 'list',
    value: 'N',
    describe: 'the number of a layer: 0 is the first, -1 the last',
    member: null,
    fallback: 'all',
  },
  platform: {
    kind: 'list',
    value: 'OS/ARCH[/VARIANT]',
    describe: 'a platform of the image; the others stay as they are',
    member: null,
    fallback: 'all',
  },
  'content-store': {
    kind: 'text',
    value: 'DIR',
    describe: "containerd's root directory: a layer that containerd does not name is found in its content store",
    fallback: 'that of the containerd that runs this, else the usual ones',
  },
  'dry-run': { kind: 'switch', describe: 'say what would change, and change nothing', member: null },
  'check-diff-ids': {
    kind: 'switch',
    describe: "also compare what each decrypted layer holds with the image's config",
    member: null,
  },
  content: {
    kind: 'switch',
    describe: 'also read every layer, and check that it is encrypted under its key; includes --unwrap',
    member: null,
  },
  'allow-absent': {
    kind: 'switch',
    describe: 'pass an index even if some of its platforms were not copied; nothing is known of those',
    member: null,
  },
  'digest-tag': {
    kind: 'switch',
    describe:
      'give the image in its registry a tag made of its digest, or verify that it has one: for runtimes that cannot decrypt by digest',
    member: null,
  },
  authfile: {
    kind: 'text',
    hasVariable: true,
    value: 'FILE',
    describe: 'credentials of registries',
    fallback: 'REGISTRY_AUTH_FILE, else those that podman login and docker login wrote',
  },
} as const satisfies OptionGroup;
