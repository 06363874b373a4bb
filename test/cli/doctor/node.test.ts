// What `node check` says of a runtime that is there and does nothing.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { examineNode } from '../../../src/cli/doctor/node.ts';
import { Settings } from '../../../src/cli/options/settings.ts';
import type { Containerd } from '../../../src/node/runtimes.ts';

test('a node is told that its containerd is installed and does not run, a machine that need be no node is not', async () => {
  const settings = new Settings(new Map());
  const terminal = {
    read: async () => new Uint8Array(),
    write: () => assert.fail('nothing is printed here'),
    say: () => undefined,
    streams: () => assert.fail('there is no layer'),
  };
  const context = { settings, given: [], terminal, personality: 'ocicrypt-kms', reread: async () => settings } as const;
  const containerd: Containerd = {
    kind: 'containerd',
    program: undefined,
    config: '/nonexistent/config.toml',
    version: [2, 1, 0],
    running: undefined,
    unit: 'containerd.service',
  };
  const running = { pid: 1, program: '', words: [], environment: {}, started: Date.now(), service: undefined };
  const hints = async (one: Containerd, kind: 'machine' | 'node') => {
    const runtimes = { containerds: [one], crio: undefined, hasDocker: false, hasPodman: false };
    return (await examineNode(context, runtimes, kind)).map(({ level, hint }) => `${level} ${hint}`);
  };
  const start = 'warn systemctl start containerd.service';
  assert.ok((await hints(containerd, 'node')).includes(start));
  assert.ok(!(await hints(containerd, 'machine')).includes(start));
  assert.ok(!(await hints({ ...containerd, running }, 'node')).includes(start));
});
