// The version of a containerd that cannot be asked, as --runtime-version says it.

import { OcicryptError } from '../../base/errors.ts';
import { showValue } from '../../base/shown.ts';
import { parseVersion, type RuntimeVersion } from '../../node/versions.ts';
import type { Settings } from '../options/settings.ts';

/** @throws OcicryptError `usage` */
export function saidVersion(settings: Settings): RuntimeVersion | undefined {
  const said = settings.text('runtime-version');
  const version = said === undefined ? undefined : parseVersion(said);
  if (said === undefined || version !== undefined) return version;
  throw new OcicryptError('usage', `option --runtime-version takes a version, not ${showValue(said)}`, {
    hint: 'write it as containerd --version prints it: --runtime-version=2.1.7',
  });
}
