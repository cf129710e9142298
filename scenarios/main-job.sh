#!/bin/bash
# The main job, end to end: a registry behind a private endpoint. row:59 row:54 row:34 row:7
#
# A server starts; a registry appears whose public access is off; a host joins
# a virtual network; images are pushed and pulled through a private endpoint
# that DNS finds; the same pull from outside is refused; the refusal is
# explained. Every command is shown before its output, and the exit status is 0
# only if every step held.
#
# COVE and CRANE name the programs; ONCE=1 ends after the walk; BREAK=… runs a
# command in the middle, to see the walk fail (its test does).
set -euo pipefail

cove=${COVE:?the cove binary}
crane=${CRANE:?the crane binary}
data=${DATA:-$PWD/.run}
registry=myregistry
suffix=cr.cove.internal
host=$registry.$suffix
image=$host/hello:1

if [ -t 1 ]; then bold=$'\e[1m' dim=$'\e[2m' red=$'\e[31m' green=$'\e[32m' plain=$'\e[0m'; else bold='' dim='' red='' green='' plain=''; fi
step() { printf '\n%s== %s%s\n' "$bold" "$*" "$plain"; }
fail() { printf '%sfailed: %s%s\n' "$red" "$*" "$plain" >&2; exit 1; }
shown() { printf '%s[%s]%s $ %s\n' "$dim" "$1" "$plain" "$2"; }
# on WHERE COMMAND… : show the command and run it there.
on() {
	local where=$1; shift
	shown "$where" "$(display "$@")"
	"on_$where" "$@"
}
display() {
	local out='' a
	for a in "$@"; do
		case $a in
		"$cove") a=cove ;;
		"$crane") a=crane ;;
		"$password") a='"$PASSWORD"' ;;
		*[[:space:]]*) a="'$a'" ;;
		esac
		out+="$a "
	done
	printf '%s' "${out% }"
}
password=-

server='' member='' rooted='' namespaces=()
cleanup() {
	status=$?
	trap - EXIT INT TERM
	set +e
	[ -n "$member" ] && kill "$member" 2>/dev/null && wait "$member" 2>/dev/null
	[ -n "$server" ] && kill "$server" 2>/dev/null && wait "$server" 2>/dev/null
	if [ -n "$rooted" ]; then
		for ns in "${namespaces[@]}"; do
			# The wire first: with the namespace it would go a moment later.
			ip link delete "$ns" 2>/dev/null
			ip netns delete "$ns" 2>/dev/null
			rm -rf "/etc/netns/$ns"
		done
		rmdir /etc/netns 2>/dev/null
	fi
	exit $status
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

on_server() { COVE_DATA=$data "$@"; }

if [ "$(id -u)" = 0 ] && [ -c /dev/net/tun ]; then
	rooted=1
	# Several walks may go at once: a namespace's name is taken by one of them.
	for number in {1..9..2} {201..253..2} none; do
		[ $number != none ] || fail "all the namespaces' names are taken, from cove-outside1 on: by walks that were killed? Remove one with: ip netns delete NAME"
		outside=cove-outside$number within=cove-member$((number + 1))
		! ip netns add $outside 2>/dev/null || break
	done
	namespaces=($outside)
	ip netns add $within
	namespaces+=($within)
	echo "As root: the clients run in the network namespaces $within and $outside; skopeo, dig and crane are the clients."
	n=$number
	for ns in $outside $within; do
		ip -n $ns link set lo up
		ip link add $ns type veth peer name eth0 netns $ns
		ip addr add 198.18.$n.1/24 dev $ns
		ip link set $ns up
		ip -n $ns addr add 198.18.$n.2/24 dev eth0
		ip -n $ns link set eth0 up
		ip -n $ns route add default via 198.18.$n.1
		mkdir -p /etc/netns/$ns
		n=$((n + 1))
	done
	front=198.18.$number.1
	echo "nameserver $front" >/etc/netns/$outside/resolv.conf
	echo 'nameserver 168.63.129.16' >/etc/netns/$within/resolv.conf
	listen=(--listen $front:443 --advertise $front --dns $front:53 --wireguard 0.0.0.0:0 --admin 127.0.0.1:0)
	on_member() { SSL_CERT_FILE=$data/ca.pem ip netns exec $within "$@"; }
	on_outside() { SSL_CERT_FILE=$data/ca.pem ip netns exec $outside "$@"; }
else
	echo "Without root: crane is the client; the outside is the CONNECT proxy, the inside a tunnel in the process (cove join --userspace)."
	listen=(--listen 127.0.0.1:0 --advertise 127.0.0.1 --connect 127.0.0.1:0 --dns 127.0.0.1:0 --wireguard 127.0.0.1:0 --admin 127.0.0.1:0)
	on_member() { SSL_CERT_FILE=$data/ca.pem HTTPS_PROXY=http://$inside "$@"; }
	on_outside() { SSL_CERT_FILE=$data/ca.pem HTTPS_PROXY=http://$connect "$@"; }
fi
unset SSL_CERT_DIR HTTP_PROXY http_proxy https_proxy NO_PROXY no_proxy ALL_PROXY all_proxy HTTPS_PROXY
export HOME=$data/home REGISTRY_AUTH_FILE=$data/home/auth.json DOCKER_CONFIG=$data/home/docker

step "A server, its data in ${data#"$PWD"/}"
rm -rf "$data"
mkdir -p "$data" "$HOME"
shown server "cove serve --data ${data#"$PWD"/} ${listen[*]}"
"$cove" serve --data "$data" "${listen[@]}" >"$data/serve.out" 2>"$data/serve.log" &
server=$!
for _ in $(seq 600); do
	[ -s "$data/run.json" ] && grep -q ready "$data/serve.out" && break
	kill -0 "$server" 2>/dev/null || { cat "$data/serve.log" >&2; fail "the server did not start"; }
	read -rt 0.05 <> <(:) || :
done
grep -q ready "$data/serve.out" || { cat "$data/serve.log" >&2; fail "the server was not ready within 30 s"; }
cat "$data/serve.out"
connect=$(sed -n 's/.*"connect": "\(.*\)".*/\1/p' "$data/run.json")

step "A registry that nobody outside may reach"
on server "$cove" registry create $registry --public-network-enabled false --admin-enabled

step "A virtual network, and the registry's private endpoint in it"
on server "$cove" vnet create office --address-prefix 10.0.0.0/16 --subnet-name default --subnet-prefix 10.0.0.0/24
on server "$cove" dns zone create privatelink.$suffix
on server "$cove" dns link add privatelink.$suffix --vnet office
on server "$cove" private-endpoint create pe --registry $registry --subnet office/default --zone privatelink.$suffix
on server "$cove" private-endpoint show pe
address=$(on_server "$cove" private-endpoint show pe --query "customDnsConfigs || properties.customDnsConfigs[?fqdn=='$host'].ipAddresses[0] | [0]" -o tsv)
case $address in 10.0.0.*) ;; *) fail "the private endpoint's address is '$address', not one of 10.0.0.0/24" ;; esac

step "A host joins the virtual network over WireGuard"
on server "$cove" join-code office/default --name laptop --for 1h | tee "$data/code"
code=$(tail -n 1 "$data/code")
if [ -n "$rooted" ]; then
	shown member "cove join \"\$CODE\" --up"
	ip netns exec $within "$cove" join "$code" --up >"$data/join.out" 2>&1 &
else
	shown member "cove join \"\$CODE\" --userspace --proxy 127.0.0.1:0"
	"$cove" join "$code" --userspace --proxy 127.0.0.1:0 >"$data/join.out" 2>&1 &
fi
member=$!
for _ in $(seq 600); do
	grep -q '^joined' "$data/join.out" && break
	kill -0 "$member" 2>/dev/null || { cat "$data/join.out" >&2; fail "cove join ended"; }
	read -rt 0.05 <> <(:) || :
done
grep -q '^joined' "$data/join.out" || { cat "$data/join.out" >&2; fail "the host did not join within 30 s"; }
cat "$data/join.out"
inside=$(sed -n 's/.*proxy at \([0-9.:]*\).*/\1/p' "$data/join.out" | tail -n 1)

if [ -n "${BREAK:-}" ]; then
	step "Something is broken on purpose"
	# shellcheck disable=SC2086
	on server "$cove" $BREAK
fi

step "Inside: the name leads to the private address, and images go in and out"
if [ -n "$rooted" ]; then
	on member dig +noall +answer $host
	found=$(on_member dig +short $host | tail -n 1)
	[ "$found" = "$address" ] || fail "inside, $host leads to '$found', not to $address"
fi
mkdir -p "$data/layer/bin"
if [ -x /bin/busybox ]; then cp /bin/busybox "$data/layer/bin/busybox"; else cp "$crane" "$data/layer/bin/crane"; fi
tar --sort=name --mtime=@0 --owner=0 --group=0 -C "$data/layer" -cf "$data/layer.tar" .
"$crane" append --new_layer "$data/layer.tar" --new_tag "$image" --output "$data/hello.tar" 2>/dev/null
password=$(on_server "$cove" registry credential show $registry --query "passwords[0].value" -o tsv)
on member "$crane" auth login $host -u $registry -p "$password"
on member "$crane" push "$data/hello.tar" "$image"
on member "$crane" validate --remote "$image"
if [ -n "$rooted" ]; then
	on member skopeo login $host -u $registry -p "$password"
	on member skopeo copy docker://"$image" oci:"$data/oci:hello"
	on member skopeo copy oci:"$data/oci:hello" docker://$host/team/hello:2
	on member skopeo list-tags docker://$host/team/hello
fi

step "Outside: the same pull is refused"
[ -z "$rooted" ] || on outside dig +noall +answer $host
if on outside "$crane" pull "$image" "$data/stolen.tar" >"$data/refusal" 2>&1; then
	fail "the pull from outside succeeded"
fi
cat "$data/refusal"
grep -q "DENIED: client with IP" "$data/refusal" || fail "the pull from outside failed for another reason"
id=$(grep -oE '[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}' "$data/refusal" | tail -n 1)
[ -n "$id" ] || fail "the refusal carries no correlation id"

step "And the refusal explains itself"
shown server "cove explain $id"
on_server "$cove" explain "$id" | tee "$data/explanation"
grep -q COVE-NET-001 "$data/explanation" || fail "the explanation does not name the rule that decided"
grep -q "cove registry update $registry --public-network-enabled true" "$data/explanation" || fail "the explanation names no command that would change it"

printf '\n%sEvery step held.%s\n' "$green" "$plain"
[ -z "${ONCE:-}" ] || exit 0

echo
echo "The server goes on. Try: bin/cove registry list --data ${data#"$PWD"/}"
echo "Stop it with Ctrl-C."
wait "$server"
