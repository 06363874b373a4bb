// The packages for Debian, Red Hat and Alpine and what derives from them, made by nfpm. https://nfpm.goreleaser.com/docs/configuration/

import { execFileSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { AUDIT_LOG, DEFAULT_OPTIONS, SOCKET_UNIT, serviceUnit } from '../../src/cli/config-systemd.ts';
import { PROJECT } from '../process.ts';
import type { Build, Product } from './contents.ts';
import { type ShellFile, shellFiles } from './shell-files.ts';

/** The newest whose modules can all be fetched from where this was written. */
export const NFPM = 'github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.45.2';

export type PackageRequest = {
  /** For which processor, as Go names it. */
  readonly arch: 'amd64' | 'arm64';
  readonly format: 'deb' | 'rpm' | 'apk';
  readonly executable: string;
  /** The licences of what is in the executable. */
  readonly licenses: string;
};

/** Relative relocations in the form of Bun's executables (DT_RELR) end older musls with a segmentation fault. */
const DEPENDS = { deb: ['libc6 (>= 2.17)'], rpm: ['glibc >= 2.17'], apk: ['musl>=1.2.4', 'libstdc++', 'libgcc'] };

/** Makes one package in `directory`. @param nfpm the program that {@link NFPM} is */
export function makePackage(
  nfpm: string,
  { arch, format, executable, licenses }: PackageRequest,
  product: Product,
  build: Build,
  directory: string,
  workspace: string,
): void {
  const { name, version, description, license, home } = product;
  const { date } = build;
  const place = join(workspace, `${format}-${arch}`);
  mkdirSync(place);
  const lay = (file: string, text: string) => {
    const path = join(place, file);
    writeFileSync(path, text);
    return path;
  };
  const file = (src: string, dst: string, mode = 0o644) => ({ src, dst, file_info: { mode } });
  const shared = '/usr/share/doc/ocicrypt-kms';
  const laidForShell = (shellFile: ShellFile) => {
    const isPage = shellFile.kind === 'manual page';
    const path = join(place, `${shellFile.kind}-${shellFile.name}`);
    writeFileSync(path, isPage ? gzipSync(shellFile.text, { level: 9 }) : shellFile.text);
    return file(path, `${shellDirectory(shellFile.kind, format)}/${shellFile.name}${isPage ? '.gz' : ''}`);
  };
  const configuration = {
    name,
    version,
    release: '1',
    arch,
    platform: 'linux',
    section: 'admin',
    priority: 'optional',
    maintainer: `${name} maintainers <${home}>`,
    vendor: name,
    description,
    homepage: home,
    license,
    mtime: date,
    depends: DEPENDS[format],
    contents: [
      file(executable, '/usr/bin/ocicrypt-kms', 0o755),
      { src: 'ocicrypt-kms', dst: '/usr/bin/kms_oci_crypt', type: 'symlink' },
      file(lay('service', packagedService()), '/usr/lib/systemd/system/ocicrypt-kms.service'),
      file(lay('socket', SOCKET_UNIT), '/usr/lib/systemd/system/ocicrypt-kms.socket'),
      file(join(PROJECT, 'tools/release/sysusers.conf'), '/usr/lib/sysusers.d/ocicrypt-kms.conf'),
      { dst: '/etc/ocicrypt-kms', type: 'dir', file_info: { mode: 0o750, group: 'ocicrypt-kms' } },
      file(join(PROJECT, 'LICENSE'), `${shared}/copyright`),
      file(licenses, `${shared}/THIRD-PARTY-LICENSES`),
      ...shellFiles(product, build).map(laidForShell),
      ...['README.md', 'CHANGELOG.md', 'SECURITY.md'].map((text) => file(join(PROJECT, text), `${shared}/${text}`)),
    ],
    scripts: {
      postinstall: join(PROJECT, 'tools/release/postinstall.sh'),
      preremove: join(PROJECT, 'tools/release/preremove.sh'),
    },
    // Alpine runs another script when a package is replaced.
    apk: { scripts: { postupgrade: join(PROJECT, 'tools/release/postinstall.sh') } },
    deb: { compression: 'gzip' },
    rpm: { compression: 'gzip', summary: description, group: 'System Environment/Daemons' },
  };
  // Every JSON is YAML.
  const path = lay('nfpm.yaml', JSON.stringify(configuration));
  const environment = { ...process.env, SOURCE_DATE_EPOCH: String(Date.parse(date) / 1000) };
  execFileSync(nfpm, ['package', `--config=${path}`, `--packager=${format}`, `--target=${directory}`], {
    stdio: ['ignore', 'inherit', 'inherit'],
    env: environment,
  });
}

/** Where shells look for what packages complete, and `man` for pages. */
function shellDirectory(kind: ShellFile['kind'], format: PackageRequest['format']): string {
  return {
    bash: '/usr/share/bash-completion/completions',
    zsh: format === 'deb' ? '/usr/share/zsh/vendor-completions' : '/usr/share/zsh/site-functions',
    fish: '/usr/share/fish/vendor_completions.d',
    'manual page': '/usr/share/man/man1',
  }[kind];
}

/** The service of deploy/, for the place of a package, and without root: systemd makes the socket and hands it over. */
function packagedService(): string {
  const unit = serviceUnit(['/usr/bin/ocicrypt-kms', 'serve', ...DEFAULT_OPTIONS, AUDIT_LOG]);
  return unit.replace('\n[Service]\n', '\n[Service]\nUser=ocicrypt-kms\nGroup=ocicrypt-kms\n');
}
