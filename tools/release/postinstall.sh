#!/bin/sh
# After an installation and after an upgrade: the server's user is there, and a server that runs is the new one.
set -e
if ! getent passwd ocicrypt-kms >/dev/null 2>&1; then
  if command -v systemd-sysusers >/dev/null 2>&1; then
    systemd-sysusers ocicrypt-kms.conf
  elif command -v useradd >/dev/null 2>&1; then
    useradd --system --user-group --home-dir /var/lib/ocicrypt-kms --shell /usr/sbin/nologin ocicrypt-kms
  else
    addgroup -S ocicrypt-kms
    adduser -S -D -H -h /var/lib/ocicrypt-kms -s /sbin/nologin -G ocicrypt-kms ocicrypt-kms
  fi
fi
# The server reads its configuration and keys there, and nobody else does.
chgrp ocicrypt-kms /etc/ocicrypt-kms
if [ -d /run/systemd/system ]; then
  systemctl daemon-reload
  systemctl try-restart ocicrypt-kms.service || true
fi
