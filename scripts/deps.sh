#!/bin/sh
# Installs, through apt, what the tests and the demo need and the machine lacks.
# Quiet when nothing is missing. It leaves no database service running that was not
# there before: the sandbox starts its own servers.
set -eu

missing=
need() { # need PROGRAM PACKAGE
	PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null 2>&1 || missing="$missing $2"
}
need mariadbd mariadb-server
need mariadb-install-db mariadb-server
need mariadb-backup mariadb-backup
need mbstream mariadb-backup
need ip iproute2
need nft nftables
# MySQL is in no stable Debian: it comes into a folder of its own.
[ -n "$missing" ] || exec "$(dirname "$0")/unpack-server.sh" mysql >/dev/null

if ! command -v apt-get >/dev/null 2>&1; then
	echo "deps.sh: missing:$missing. There is no apt-get here: install them by hand." >&2
	exit 1
fi
as_root=
if [ "$(id -u)" -ne 0 ]; then
	if ! command -v sudo >/dev/null 2>&1; then
		echo "deps.sh: missing:$missing. Not root, and no sudo: install them as root." >&2
		exit 1
	fi
	as_root=sudo
fi

# A systemd that runs would start the server as soon as it is installed.
systemd=no
[ -d /run/systemd/system ] && systemd=yes

echo "deps.sh: installing$missing" >&2
log=$(mktemp)
trap 'rm -f "$log"' EXIT
install() {
	# shellcheck disable=SC2086 # the list is meant to be split
	$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >"$log" 2>&1
}
if ! install; then
	# Most often the package lists are absent or old, as in a fresh container.
	$as_root apt-get update -qq >"$log" 2>&1 && install || { cat "$log" >&2; exit 1; }
fi
case "$missing" in
*mariadb-server*)
	if [ "$systemd" = yes ]; then
		$as_root systemctl disable --now mariadb.service >/dev/null 2>&1 || {
			echo "deps.sh: mariadb.service was installed and could not be stopped" >&2
			exit 1
		}
	fi
	;;
esac
exec "$(dirname "$0")/unpack-server.sh" mysql >/dev/null
