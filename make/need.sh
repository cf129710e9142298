#!/bin/sh
# need.sh PACKAGE… : see to it that these Debian packages are installed.
# Installs what is missing when run by root, else says what to install.
set -eu
missing=
for p in "$@"; do
	dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'install ok installed' || missing="$missing $p"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ]; then
	echo "missing Debian packages:$missing. Install them as root: apt-get install$missing" >&2
	exit 2
fi
echo "installing$missing" >&2
export DEBIAN_FRONTEND=noninteractive
# No daemon is started by installing: tests start their own.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
	printf '#!/bin/sh\nexit 101\n' >"$policy"
	chmod +x "$policy"
	trap 'rm -f "$policy"' EXIT
fi
log=$(mktemp)
if ! { apt-get -q update && apt-get -q install -y --no-install-recommends $missing; } >"$log" 2>&1; then
	tail -n 20 "$log" >&2
	echo "apt-get could not install$missing" >&2
	rm -f "$log"
	exit 1
fi
rm -f "$log"
