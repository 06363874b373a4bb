// systemctl for a node that has no systemd: it restarts containerd or CRI-O, runs our service, and keeps what it was asked.
import type { Node, NodeService } from './node.ts';

const PROGRAM = '/opt/systemctl';
const ASKED = '/run/systemctl.log';
const FAILS = '/run/systemctl.fails';

/** To be named among the programs of the node. */
export const SYSTEMD_PROGRAMS = { systemctl: PROGRAM };

/**
 * No process of a node is waited for by its parent: what has ended stays, without a program. A service is started with the
 * variables of its drop-ins.
 */
const script = ({ name, probe }: NodeService) => `#!/bin/sh
echo "$*" >>${ASKED}
# A service does not live and die with the container that has asked for it.
[ -e /sys/fs/cgroup/cgroup.procs ] && groups=/sys/fs/cgroup || groups='/sys/fs/cgroup/*'
for file in $groups/cgroup.procs; do echo $$ >"$file"; done 2>/dev/null
case "$1" in
restart)
  # Once, if a test says so.
  rm ${FAILS} 2>/dev/null && exit 1
  pid=$(cat /run/${name}.pid)
  kill "$pid"
  while [ -e "/proc/$pid/exe" ]; do sleep 0.05; done
  variables=$(cat /etc/systemd/system/${name}.service.d/*.conf 2>/dev/null | sed -n s/^Environment=//p)
  setsid env $variables ${name} >/run/${name}.log 2>&1 </dev/null &
  echo $! >/run/${name}.pid
  tries=0
  until ( ${probe} ) >/dev/null 2>&1; do
    [ -e "/proc/$(cat /run/${name}.pid)/exe" ] && [ "$tries" -lt 100 ] || exit 1
    tries=$((tries + 1))
    sleep 0.1
  done ;;
enable|try-restart)
  # As the unit says, without its sandbox; the socket is the server's own.
  systemctl disable
  mkdir -p /var/log/ocicrypt-kms
  setsid sh -c "exec $(sed -n s/^ExecStart=//p /etc/systemd/system/ocicrypt-kms.service)" >/run/service.log 2>&1 </dev/null &
  echo $! >/run/service.pid
  until [ -S /run/ocicrypt-kms/ocicrypt-kms.sock ]; do sleep 0.05; done ;;
disable)
  [ -e /run/service.pid ] || exit 0
  pid=$(cat /run/service.pid)
  kill "$pid"
  while [ -e "/proc/$pid/exe" ]; do sleep 0.05; done
  rm /run/service.pid ;;
is-active) [ -e "/proc/$(cat /run/${name}.pid)/exe" ] ;;
esac
`;

/** What `node install` looks for: that systemd runs, and the service. */
export async function addSystemd(node: Node): Promise<void> {
  const { name } = node.service;
  await node.write(PROGRAM, script(node.service), 0o755);
  await node.write('/run/systemd/system/README', '');
  await node.write(`/etc/systemd/system/${name}.service`, `[Service]\nExecStart=${name}\n`);
}

/** Every call of systemctl so far. */
export async function systemctlCalls(node: Node): Promise<readonly string[]> {
  const { stdout } = await node.run(['sh', '-c', `cat ${ASKED} 2>/dev/null || true`]);
  return new TextDecoder()
    .decode(stdout)
    .split('\n')
    .filter((line) => line !== '');
}
