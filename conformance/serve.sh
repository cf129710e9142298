#!/bin/bash
# serve.sh SUITE_DIR: start a cove of its own and run the OCI conformance suite
# of a distribution-spec checkout against it, at version 1.1 and at dev.
set -euo pipefail
suite=${1:?a checkout of the OCI distribution-spec repository}
cove=${COVE:?the cove binary}
here=$(cd "$(dirname "$0")" && pwd)
data=$(mktemp -d)
server=
cleanup() {
	status=$?
	trap - EXIT
	if [ -n "$server" ]; then kill "$server" 2>/dev/null && wait "$server" 2>/dev/null || :; fi
	rm -rf "$data"
	exit $status
}
trap cleanup EXIT
trap 'exit 130' INT TERM

"$cove" serve --data "$data" --listen 127.0.0.1:0 --advertise 127.0.0.1 --connect '' --dns '' --wireguard '' --admin '' \
	--listen-http 127.0.0.1:0 --registry-alias 127.0.0.1=conformance >"$data/out" 2>"$data/log" &
server=$!
for _ in $(seq 600); do
	grep -q ready "$data/out" && break
	kill -0 "$server" 2>/dev/null || { cat "$data/log" >&2; exit 1; }
	read -rt 0.05 <> <(:) || :
done
export COVE_DATA=$data
"$cove" registry create conformance --admin-enabled >/dev/null
OCI_REGISTRY=$(sed -n 's/.*"listenHttp": "\(.*\)".*/\1/p' "$data/run.json")
OCI_USERNAME=conformance
OCI_PASSWORD=$("$cove" registry credential show conformance --query 'passwords[0].value' -o tsv)
export OCI_REGISTRY OCI_USERNAME OCI_PASSWORD OCI_TLS=disabled
"$here/run.sh" "$suite"
