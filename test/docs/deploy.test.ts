// The files of deploy/ are what systemd takes, and start the command with options that there are.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { COMMANDS } from '../../src/cli/commands.ts';
import { executablePath, runExecutable } from '../fixtures/executable.ts';
import { ANALYZE, hasSystemd } from '../fixtures/systemd.ts';
import { runCommand } from '../fixtures/terminal.ts';

const DEPLOY = fileURLToPath(new URL('../../deploy', import.meta.url));
const UNITS = ['ocicrypt-kms.service', 'ocicrypt-kms.socket'];

/** Both units: as packaged, and as the executable prints them for itself with options that have to be quoted. */
const SOURCES: readonly (readonly [name: string, unit: (file: string, command: string) => string | Promise<string>])[] =
  [
    [
      'of deploy/',
      (file, command) => readFileSync(join(DEPLOY, file), 'utf8').replaceAll('/usr/local/bin/ocicrypt-kms', command),
    ],
    [
      'that the executable prints',
      async (file) => {
        const kind = file.endsWith('.socket') ? 'systemd-socket' : 'systemd';
        const key = kind === 'systemd' ? ['--key=/etc/my "keys"/100%$HOME .key'] : [];
        const { status, stdout, stderr } = await runExecutable(['config', kind, ...key]);
        assert.equal(status, 0, stderr);
        if (kind === 'systemd') {
          const start = `ExecStart=${executablePath()} serve "--key=/etc/my \\"keys\\"/100%%$$HOME .key" --audit-log=/var/log/ocicrypt-kms/audit.log\n`;
          assert.ok(stdout.toString().includes(start), stdout.toString());
        }
        return stdout.toString();
      },
    ],
  ];

/** What systemd says of the units in a directory: on standard error, and without a change of its status. */
function verified(directory: string, units: readonly string[]): string {
  const { stdout, stderr } = spawnSync(ANALYZE, ['verify', '--man=no', ...units.map((unit) => join(directory, unit))], {
    env: { ...process.env, SYSTEMD_UNIT_PATH: `${directory}:` },
  });
  return `${stdout}${stderr}`;
}

for (const [name, unit] of SOURCES)
  test(`systemd finds no fault with the units ${name}`, async (t) => {
    if (!hasSystemd(t, ANALYZE)) return;
    const directory = mkdtempSync(join(tmpdir(), 'units-'));
    t.after(() => rmSync(directory, { recursive: true, force: true }));
    // It looks for the command, which need not be installed here.
    const command = join(directory, 'ocicrypt-kms');
    writeFileSync(command, '');
    chmodSync(command, 0o755);
    for (const file of UNITS) writeFileSync(join(directory, file), await unit(file, command));
    assert.equal(verified(directory, UNITS), '');
  });

test('systemd finds no fault with what CRI-O’s service is told', async (t) => {
  if (!hasSystemd(t, ANALYZE)) return;
  const directory = mkdtempSync(join(tmpdir(), 'units-'));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  const { stdout } = await runCommand(['config', 'crio-unit']);
  writeFileSync(join(directory, 'crio.service'), '[Service]\nExecStart=/bin/true\n');
  mkdirSync(join(directory, 'crio.service.d'));
  writeFileSync(join(directory, 'crio.service.d/ocicrypt-kms.conf'), stdout);
  assert.equal(verified(directory, ['crio.service']), '');
  assert.match(stdout, /^Environment=OCICRYPT_KEYPROVIDER_CONFIG=\/etc\/ocicrypt-kms\/ocicrypt\.json$/m);
});

test('the service starts a command with options that there are', () => {
  const text = readFileSync(join(DEPLOY, 'ocicrypt-kms.service'), 'utf8');
  const [, name = '', words = ''] = /^ExecStart=\S+ (\S+) (.*)$/m.exec(text) ?? [];
  const command = COMMANDS.get(name);
  assert.ok(command !== undefined, name);
  for (const [, option = ''] of words.matchAll(/--([\w-]+)/g)) {
    assert.ok(
      command.options.some((one) => one === option),
      option,
    );
  }
});
