#!/bin/sh
# Runs the OCI distribution conformance suite against a running registry, once
# as version 1.1 and once as the development version.
#
#   conformance/run.sh SUITE
#
# SUITE is a checkout of opencontainers/distribution-spec, or its conformance
# folder. From the environment, as the suite names them:
#
#   OCI_REGISTRY                 host or host:port of the registry; required
#   OCI_USERNAME, OCI_PASSWORD   a credential that may pull, push and delete
#   OCI_TLS                      enabled (default), insecure or disabled
#   SSL_CERT_FILE, HTTPS_PROXY   as for every Go program
#   VERSIONS                     default "1.1 dev"
#   CACHE                        where the suite is built and leaves its
#                                reports; default is a folder in $TMPDIR
#
# Exit status: 0 all passed or were skipped, 1 a test failed or none ran,
# 2 wrong usage, 3 the suite could not be built.
set -eu

if [ $# -ne 1 ] || [ -z "${OCI_REGISTRY:-}" ]; then
	echo "usage: OCI_REGISTRY=HOST $0 SUITE" >&2
	exit 2
fi
suite=$1
[ -d "$suite/conformance" ] && suite=$suite/conformance
if [ ! -f "$suite/go.mod" ]; then
	echo "$0: $1 is not a checkout of opencontainers/distribution-spec" >&2
	exit 2
fi
cache=${CACHE:-${TMPDIR:-/tmp}/cove-conformance}
mkdir -p "$cache"
cache=$(cd "$cache" && pwd)

commit=$(git -C "$suite" rev-parse HEAD 2>/dev/null || echo unknown)
# -buildvcs=false: a checkout of another user is refused by git, which is no
# reason not to build it.
go -C "$suite" build -buildvcs=false -o "$cache/suite" . || exit 3

# total NAME FILE prints the number that the suite's summary gives for NAME.
total() {
	awk -v name="$1" '$1 ~ "^" name "\\.+:$" && !seen { print $2; seen = 1 }' "$2"
}

status=0
for version in ${VERSIONS:-1.1 dev}; do
	out=$cache/$version
	rm -rf "$out"
	mkdir -p "$out"
	# A run of its own in repositories of its own: what an earlier one left
	# behind on the server is not this one's result.
	repo=conformance/$(date +%s)-$$-$version
	(
		cd "$out" # where no configuration file of another purpose lies
		OCI_VERSION=$version OCI_RESULTS_DIR=$out \
			OCI_REPO1=$repo/one OCI_REPO2=$repo/two \
			"$cache/suite" >output.txt 2>&1
	) || true
	pass=$(total Pass "$out/output.txt")
	fail=$(total FAIL "$out/output.txt")
	error=$(total Error "$out/output.txt")
	skip=$(total Skip "$out/output.txt")
	# The suite exits 0 when it cannot begin, so its summary is what counts.
	if [ -z "$pass" ] || [ "$pass" -eq 0 ] || [ "$fail" -ne 0 ] || [ "$error" -ne 0 ]; then
		status=1
		grep -v ': Pass$' "$out/output.txt" | head -n 100 >&2
	fi
	echo "OCI_VERSION=$version: ${pass:-0} passed, ${fail:-?} failed, ${error:-?} errors, ${skip:-?} skipped (suite $commit, report $out/report.html)"
done
exit $status
