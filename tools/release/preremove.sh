#!/bin/sh
# Before a removal, but not before an upgrade: the server and its socket end. dpkg says "remove", rpm 0, apk nothing.
set -e
case "${1:-}" in upgrade | failed-upgrade | 1) exit 0 ;; esac
if [ -d /run/systemd/system ]; then
  systemctl disable --now ocicrypt-kms.socket ocicrypt-kms.service || true
fi
