#!/bin/sh
# Puts a database server that this Debian does not have into a folder of its own, and
# prints the folder. Nothing is installed and nothing outside the folder changes:
#
#   scripts/unpack-server.sh mysql          MySQL 9.7, from sid
#   scripts/unpack-server.sh mariadb-11.8   MariaDB 11.8, from trixie
#
# apt resolves, downloads and verifies the server and everything it needs, the C library
# too, against lists and a state of their own; the mirror is the one that this machine's
# apt already uses. Folders are kept in $HIGHBASE_SERVERS, by default
# ${XDG_CACHE_HOME:-$HOME/.cache}/highbase/servers; delete one to fetch it anew. In a
# folder usr/sbin/mysqld (or mariadbd) can be run as it is: a script there starts the
# program with the folder's own loader and libraries. $HIGHBASE_DEBIAN_MIRROR names a
# mirror by hand.
set -eu

fail() {
	echo "unpack-server.sh: $*" >&2
	exit 1
}

name=${1:-}
case "$name" in
mysql)
	suite=sid packages="mysql-server-core"
	programs="usr/sbin/mysqld usr/bin/mysqlbinlog usr/bin/my_print_defaults"
	share=usr/share/mysql
	more=--secure-file-priv=NULL # the directory built in is not there
	;;
mariadb-11.8)
	suite=trixie packages="mariadb-server-core mariadb-backup"
	programs="usr/sbin/mariadbd usr/bin/my_print_defaults usr/bin/resolveip usr/bin/mariadb-backup usr/bin/mbstream"
	share=usr/share/mariadb more=
	;;
*) fail "usage: unpack-server.sh mysql | mariadb-11.8" ;;
esac

servers=${HIGHBASE_SERVERS:-${XDG_CACHE_HOME:-$HOME/.cache}/highbase/servers}
case "$servers" in /*) ;; *) fail "HIGHBASE_SERVERS = $servers: want an absolute path" ;; esac
root=$servers/$name
[ -f "$root/packages" ] && { echo "$root"; exit 0; }
for tool in apt-get dpkg-deb flock; do
	command -v "$tool" >/dev/null 2>&1 || fail "there is no $tool here: unpack $packages and what it needs into $root by hand"
done
mkdir -p "$servers"
exec 9>"$servers/.lock"
flock 9 # one at a time; it ends with this process
[ -f "$root/packages" ] && { echo "$root"; exit 0; }

work=$(mktemp -d "$servers/.$name.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

# mirror asks apt itself, which knows every form a source can be written in.
mirror() {
	[ -z "${HIGHBASE_DEBIAN_MIRROR:-}" ] || { echo "$HIGHBASE_DEBIAN_MIRROR"; return; }
	apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' | sed -n 1p
}
from=$(mirror)
if [ -z "$from" ]; then # the lists are absent, as in a fresh container
	as_root=
	[ "$(id -u)" -eq 0 ] || as_root=sudo
	$as_root apt-get update -qq >&2 || fail "apt-get update failed"
	from=$(mirror)
fi
[ -n "$from" ] || fail "no source of Debian's main archive is configured: name a mirror in HIGHBASE_DEBIAN_MIRROR"

# An apt of its own, which believes that nothing is installed.
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
mkdir -p "$work/state/lists/partial" "$work/cache/archives/partial" "$work/root"
: >"$work/state/status"
cat >"$work/apt.conf" <<CONF
Dir::State "$work/state";
Dir::State::status "$work/state/status";
Dir::Cache "$work/cache";
Dir::Etc::SourceList "$work/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
APT::Install-Recommends "false";
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
CONF
apt() { APT_CONFIG=$work/apt.conf apt-get -qq "$@" >&2; }
lists() { # lists SUITE: fails when the suite is not signed with a key of the keyring
	echo "deb [signed-by=$keyring] $from $1 main" >"$work/sources.list"
	apt update --error-on=any
}
[ -f "$keyring" ] || fail "$keyring is missing: install debian-archive-keyring"
if ! lists "$suite"; then
	# This machine's keys may be older than the suite's. The stable release, signed with a
	# key that is known here, vouches for the newer ones.
	echo "unpack-server.sh: trying the keyring of the stable release" >&2
	lists stable || fail "neither $suite nor stable could be verified with $keyring"
	(cd "$work" && apt download debian-archive-keyring) || fail "the newer keyring could not be had"
	dpkg-deb -x "$work"/debian-archive-keyring_*.deb "$work/keys"
	keyring=$work/keys/usr/share/keyrings/debian-archive-keyring.gpg
	[ -f "$keyring" ] || keyring=${keyring%.gpg}.pgp
	lists "$suite" || fail "$suite could not be verified with the keyring of the stable release either"
fi
# shellcheck disable=SC2086 # the list is meant to be split
apt install -y --download-only $packages || fail "downloading $packages failed"
for deb in "$work"/cache/archives/*.deb; do
	dpkg-deb -x "$deb" "$work/root" || fail "unpacking $deb failed"
done

cd "$work/root"
rm -rf usr/share/doc usr/share/man usr/share/perl usr/share/locale
loader=$(find usr/lib64 usr/lib lib64 lib -name 'ld-linux*.so.*' 2>/dev/null | sed -n 1p)
[ -n "$loader" ] || fail "no loader was among the packages"
libraries=$(for dir in usr/lib/*-linux-gnu* usr/lib/mysql/private; do [ ! -d "$dir" ] || printf ':$root/%s' "$dir"; done)
mkdir -p usr/libexec/highbase
for program in $programs; do
	file=usr/libexec/highbase/${program##*/}
	mv "$program" "$file"
	options=
	case "$program" in usr/sbin/*) 
		options=" --basedir=\$root/usr --plugin-dir=\$root/usr/lib/mysql/plugin --lc-messages-dir=\$root/$share --character-sets-dir=\$root/$share/charsets $more" ;;
	esac
	cat >"$program" <<RUN
#!/bin/sh
# Runs the program of the same name with the loader and the libraries beside it, as the
# same process.
root=\${0%/*}/../..
case "\$root" in /*) ;; *) root=\$PWD/\$root ;; esac
exec "\$root/$loader" --argv0 "\$root/$program" --library-path "${libraries#:}" "\$root/$file" "\$@"$(for o in $options; do printf ' "%s"' "$o"; done)
RUN
	chmod 755 "$program"
done
version=$("./${programs%% *}" --no-defaults --version) || fail "the unpacked server does not run"
echo "unpack-server.sh: $root: ${version#*  }" >&2
ls "$work/cache/archives" | sed -n 's/\.deb$//p' >packages
cd /
rm -rf "$root" # half of one, from before this script was atomic or by hand
mv -T "$work/root" "$root"
echo "$root"
