// What a shell and its user find beside the executable: scripts that complete commands, and manual pages.

import { COMMANDS } from '../../src/cli/commands.ts';
import { completionScript } from '../../src/cli/completion/completion.ts';
import type { Build, Product } from './contents.ts';
import { manualPages } from './man-pages.ts';

export type ShellFile = {
  readonly kind: 'bash' | 'fish' | 'manual page' | 'zsh';
  /** By which the shell or `man` finds it. */
  readonly name: string;
  readonly text: string;
};

export function shellFiles(product: Product, build: Pick<Build, 'date'>): readonly ShellFile[] {
  const script = (kind: 'bash' | 'fish' | 'zsh', name: string) => ({
    kind,
    name,
    text: completionScript(kind, COMMANDS),
  });
  return [
    script('bash', 'ocicrypt-kms'),
    script('zsh', '_ocicrypt-kms'),
    script('fish', 'ocicrypt-kms.fish'),
    ...[...manualPages(product, build)].map(([name, text]) => ({ kind: 'manual page', name, text }) as const),
  ];
}

/** Where the file lies below a folder that has everything: an archive's, or that of a build. */
export function shellPath({ kind, name }: ShellFile): string {
  return kind === 'manual page' ? `man/${name}` : `completions/${kind}/${name}`;
}
