// The units of deploy/ under a systemd of their own: started by their socket, told what to do, and left with a broken file.
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { globSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { executable } from '../end-to-end/workspace.ts';
import { hasSystemd } from '../fixtures/systemd.ts';
import { runClient } from '../real-clients/process.ts';

const SYSTEMD = '/usr/lib/systemd/systemd';
const DEPLOY = fileURLToPath(new URL('../../deploy', import.meta.url));
const TARGETS = ['basic', 'sysinit', 'sockets', 'multi-user', 'shutdown', 'network-online', 'umount'];

/**
 * $1 a directory of units, $2 the executable, $3 the name of a control group. What a unit of systemd's own sandbox needs of
 * mounts cannot be had below another container's: `systemd-analyze` looks at that elsewhere.
 */
const BOOT = `set -e
mount --make-rprivate /
for place in /run /var/log /var/lib /mnt; do mount -t tmpfs tmpfs "$place"; done
mkdir /mnt/dev /mnt/up /mnt/work
cp -a /dev/null /dev/zero /dev/random /dev/urandom /mnt/dev
: >/mnt/dev/console
ln -s /proc/self/fd /mnt/dev/fd
mount -t overlay overlay -o lowerdir=/etc,upperdir=/mnt/up,workdir=/mnt/work /etc
mount --rbind /mnt/dev /dev
umount -R /sys/fs/cgroup || umount -l /sys/fs/cgroup
mount -t cgroup2 none /sys/fs/cgroup
mkdir "/sys/fs/cgroup/$3"
echo 0 >"/sys/fs/cgroup/$3/cgroup.procs"
cp -r "$1" /run/units
mkdir -p /etc/ocicrypt-kms /run/program
cp "$2" /run/program/ocicrypt-kms
mount --bind /run/program /usr/local/bin
exec env -i container=docker SYSTEMD_UNIT_PATH=/run/units PATH=/usr/local/bin:/usr/bin:/bin \\
  unshare --cgroup ${SYSTEMD} --system --unit=basic.target`;

const WITHOUT_MOUNTS = `[Service]
${['System', 'Home', 'ControlGroups', 'KernelTunables', 'KernelLogs', 'KernelModules', 'Hostname', 'Clock'].map((name) => `Protect${name}=no`).join('\n')}
ProtectProc=default
PrivateTmp=no
PrivateDevices=no
StandardError=append:/run/said
`;

type Machine = { readonly run: (...words: readonly string[]) => Promise<readonly [status: number, said: string]> };

/** The number of the process that is systemd, once it answers. */
async function booted(starter: ChildProcess): Promise<number> {
  for (let tries = 0; tries < 300; tries++, await pause(100)) {
    const children = readFileSync(`/proc/${starter.pid}/task/${starter.pid}/children`, 'utf8').trim();
    if (children === '') continue;
    const { exitCode } = await runClient([
      'nsenter',
      `--target=${children}`,
      '--mount',
      '--pid',
      'systemctl',
      'is-active',
      'basic.target',
    ]);
    if (exitCode === 0) return Number(children);
  }
  throw new Error('systemd did not start');
}

async function startMachine(t: TestContext): Promise<Machine> {
  const units = mkdtempSync(join(tmpdir(), 'units-'));
  t.after(() => rmSync(units, { recursive: true }));
  for (const name of TARGETS) writeFileSync(join(units, `${name}.target`), '[Unit]\nDefaultDependencies=no\n');
  for (const file of globSync(`${DEPLOY}/ocicrypt-kms.*`))
    writeFileSync(join(units, basename(file)), readFileSync(file));
  // A drop-in for all services, of which there is one.
  writeFileSync(join(units, 'without-mounts.conf'), WITHOUT_MOUNTS);
  const group = `ocicrypt-kms-${process.pid}`;
  const script = BOOT.replace(
    'cp -r "$1" /run/units',
    'cp -r "$1" /run/units\nmkdir /run/units/service.d\nmv /run/units/without-mounts.conf /run/units/service.d',
  );
  const words = [
    '--mount',
    '--pid',
    '--fork',
    '--kill-child',
    '--mount-proc',
    '--uts',
    '--ipc',
    'sh',
    '-c',
    script,
    'sh',
  ];
  const starter = spawn('unshare', [...words, units, executable(), group], { stdio: 'ignore' });
  t.after(async () => {
    starter.kill('SIGKILL');
    if (starter.exitCode === null && starter.signalCode === null) await once(starter, 'exit');
    for (const mount of ['/sys/fs/cgroup', '/sys/fs/cgroup/unified'])
      await runClient(['sh', '-c', `find ${mount}/${group} -depth -type d -exec rmdir {} + 2>/dev/null`]);
  });
  const pid = await booted(starter);
  return {
    async run(...words) {
      const { exitCode, stdout, stderr } = await runClient([
        'nsenter',
        `--target=${pid}`,
        '--mount',
        '--pid',
        '--uts',
        '--ipc',
        ...words,
      ]);
      return [exitCode ?? -1, `${new TextDecoder().decode(stdout)}${stderr}`];
    },
  };
}

test('the units under systemd: by their socket, reloaded, restarted, with a broken file, and killed again and again', async (t) => {
  if (!hasSystemd(t, SYSTEMD)) return;
  const { run } = await startMachine(t);
  const write = (text: string) => run('sh', '-c', `echo '${text}' >/etc/ocicrypt-kms/config.yaml`);
  const systemctl = async (...words: readonly string[]) => (await run('systemctl', ...words))[0];
  const isActive = async (unit: string) => (await systemctl('is-active', '--quiet', `ocicrypt-kms.${unit}`)) === 0;
  const health = async () => (await run('ocicrypt-kms', 'health'))[0];

  await run('ocicrypt-kms', 'keygen', '/etc/ocicrypt-kms/key');
  await write('key: [/etc/ocicrypt-kms/key]');
  assert.equal(await systemctl('start', 'ocicrypt-kms.socket'), 0);
  assert.deepEqual([await isActive('socket'), await isActive('service')], [true, false]);
  const [status, said] = await run('ocicrypt-kms', 'health');
  assert.deepEqual([status, await isActive('service')], [0, true], said);
  assert.deepEqual(
    [await systemctl('reload', 'ocicrypt-kms.service'), await systemctl('restart', 'ocicrypt-kms.service')],
    [0, 0],
  );

  await write('alow: []');
  assert.notEqual(await systemctl('reload', 'ocicrypt-kms.service'), 0);
  assert.deepEqual([await isActive('service'), await health()], [true, 0], 'the policy before stays');
  assert.notEqual(await systemctl('restart', 'ocicrypt-kms.service'), 0);
  const [, shown] = await run('systemctl', 'show', '--property=NRestarts,ExecMainStatus', 'ocicrypt-kms.service');
  assert.deepEqual(shown.trim().split('\n').toSorted(), ['ExecMainStatus=78', 'NRestarts=0']);
  for (let calls = 0; calls < 8; calls++) assert.equal(await health(), 69);
  assert.deepEqual([await isActive('socket'), await isActive('service')], [true, false]);
  assert.match((await run('cat', '/run/said'))[1], /unknown member .{1,2}alow/);

  await write('key: [/etc/ocicrypt-kms/key]');
  // What the last call has started may still say no.
  for (let tries = 0; tries < 50 && (await health()) !== 0; tries++) await pause(100);
  for (let kills = 0; kills < 8; kills++) {
    assert.equal(await systemctl('kill', '--signal=KILL', 'ocicrypt-kms.service'), 0);
    assert.equal(await health(), 0);
  }
  assert.equal(await isActive('socket'), true);
});
