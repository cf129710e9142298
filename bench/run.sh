#!/bin/bash
# run.sh: the data-plane benchmark of cove over plain HTTP and, where the
# caller has it, of CNCF distribution beside it: the same load, the same disk,
# one server at a time. Results are printed, and kept in bench/results/.
#
# DISTRIBUTION names distribution's `registry` program; without it only cove
# is measured. STEPS, DUR, TAGS, REPOS, BIG as in bench.sh.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cove=${COVE:?the cove binary}
work=$(mktemp -d "${TMPDIR:-/var/tmp}/cove-bench.XXXXXX")
out=${OUT:-$here/results}
pids=()
cleanup() {
	status=$?
	trap - EXIT
	for p in "${pids[@]}"; do kill "$p" 2>/dev/null && wait "$p" 2>/dev/null || :; done
	rm -rf "$work"
	exit $status
}
trap cleanup EXIT
trap 'exit 130' INT TERM

mkdir -p "$out" "$work/bin" "$work/files"
(cd "$here/regload" && go build -o "$work/bin/regload" .)
if ! command -v hey >/dev/null; then
	GOBIN=$work/bin go install github.com/rakyll/hey@v0.1.5
	export HEY=$work/bin/hey
fi
export BIN=$work/bin FILES=$work/files OUT=$out

free() { # a port of loopback that nobody listens on now
	local p
	for p in $(shuf -i 20000-29999 -n 50); do
		(exec 3<>"/dev/tcp/127.0.0.1/$p") 2>/dev/null || { echo "$p"; return; }
	done
}
ready() {
	for _ in $(seq 600); do
		(exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null && return
		read -rt 0.05 <> <(:) || :
	done
	echo "nothing listens on port $1" >&2
	return 1
}

port=$(free)
"$cove" serve --data "$work/cove" --listen 127.0.0.1:0 --advertise 127.0.0.1 --connect '' --dns '' --wireguard '' --admin '' --rate-limits off \
	--listen-http "127.0.0.1:$port" --registry-alias 127.0.0.1=bench --log-level warn >"$work/cove.out" 2>"$work/cove.log" &
pids+=($!)
ready "$port"
export COVE_DATA=$work/cove
"$cove" registry create bench --admin-enabled >/dev/null
password=$("$cove" registry credential show bench --query 'passwords[0].value' -o tsv)
NAME=cove AUTH="Basic $(printf 'bench:%s' "$password" | base64 -w0)" "$here/bench.sh" "http://127.0.0.1:$port" "${pids[0]}"
kill "${pids[0]}" && wait "${pids[0]}" 2>/dev/null || :
pids=()

if [ -n "${DISTRIBUTION:-}" ]; then
	port=$(free)
	cat >"$work/distribution.yml" <<EOF
version: 0.1
log: {level: warn}
storage: {filesystem: {rootdirectory: $work/distribution}, delete: {enabled: true}}
http: {addr: 127.0.0.1:$port}
EOF
	"$DISTRIBUTION" serve "$work/distribution.yml" >"$work/distribution.log" 2>&1 &
	pids+=($!)
	ready "$port"
	NAME=distribution "$here/bench.sh" "http://127.0.0.1:$port" "${pids[0]}"
else
	echo "DISTRIBUTION is not set: cove alone was measured" >&2
fi
