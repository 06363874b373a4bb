// Which of the files that `node install` writes the service of a node has to be restarted for.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { concernsService, serviceFiles } from '../../../src/cli/node/service.ts';
import { POLICY_FILE } from '../../../src/node/drop-in.ts';

const file = (path: string, content: string | Uint8Array = '') => ({ path, content, mode: 0o644 });

test('the service is restarted for its units, its policy and its program, and for nothing else', () => {
  for (const one of [...serviceFiles(['/opt/x'], undefined), file(POLICY_FILE), file('/opt/x', new Uint8Array(1))])
    assert.equal(concernsService([file('/etc/containerd/conf.d/x.toml'), one]), true, one.path);
  assert.equal(concernsService([file('/etc/containerd/conf.d/x.toml')]), false);
});
