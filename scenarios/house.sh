# What the scenarios with the Azure CLI share; read by them, not run. It makes a
# house of network namespaces: the server has one, "outside" reaches only its
# public side, and machines join virtual networks. Their resolver is cove.
#
# The whole house is on no map: the script runs itself again in namespaces of
# its own for networks, mounts and processes. So it may run twice at once with
# the same names and addresses, it touches nothing of the machine's, and all of
# it ends with the script, however that ends.
#
# Expects: cove, crane, data, here. Wires are 198.18.N.0/24, where N counts up
# from number.

if [ -t 1 ]; then bold=$'\e[1m' dim=$'\e[2m' red=$'\e[31m' green=$'\e[32m' plain=$'\e[0m'; else bold='' dim='' red='' green='' plain=''; fi
step() { printf '\n%s== %s%s\n' "$bold" "$*" "$plain"; }
fail() { printf '%sfailed: %s%s\n' "$red" "$*" "$plain" >&2; exit 1; }

[ "$(id -u)" = 0 ] && [ -c /dev/net/tun ] || { echo "this scenario makes network namespaces: it needs root and /dev/net/tun" >&2; exit 2; }
if [ -z "${COVE_HOUSE:-}" ]; then
	# A group of its own, which is told to end when this script is; the kernel
	# ends it where nobody could tell.
	trap 'kill -TERM -- "-$inner"' INT TERM
	set -m
	COVE_HOUSE=1 setpriv --pdeathsig KILL unshare --net --mount --pid --fork --mount-proc --kill-child "$0" "$@" </dev/null &
	inner=$!
	status=0
	wait "$inner" || status=$?
	# A signal ends the first wait, not what it waits for.
	wait "$inner" 2>/dev/null || :
	exit $status
fi
unset SSL_CERT_DIR HTTP_PROXY HTTPS_PROXY ALL_PROXY NO_PROXY http_proxy https_proxy all_proxy no_proxy REQUESTS_CA_BUNDLE CURL_CA_BUNDLE
export HOME=$data/home REGISTRY_AUTH_FILE=$data/home/auth.json DOCKER_CONFIG=$data/home/docker SSL_CERT_FILE=$data/server/ca.pem

number=${number:-240}
# Where the server's public side is.
front=198.18.$((number + 1)).1
children=()
cleanup() {
	status=$?
	trap - EXIT INT TERM
	set +e
	for ((i = ${#children[@]} - 1; i >= 0; i--)); do
		kill "${children[i]}" 2>/dev/null && wait "${children[i]}" 2>/dev/null
	done
	[ $status = 0 ] || { echo "the server's log ends:" >&2; tail -n 20 "$data/serve.log" >&2; }
	exit $status
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# namespace NAME RESOLVER : a host on a wire of its own to this machine.
namespace() {
	local ns=$1
	number=$((number + 1))
	ip netns add "$ns"
	ip -n "$ns" link set lo up
	ip link add "wire$number" type veth peer name eth0 netns "$ns"
	ip addr add 198.18.$number.1/24 dev "wire$number"
	ip link set "wire$number" up
	ip -n "$ns" addr add 198.18.$number.2/24 dev eth0
	ip -n "$ns" link set eth0 up
	ip -n "$ns" route add default via 198.18.$number.1
	mkdir -p "/etc/netns/$ns"
	echo "nameserver $2" >"/etc/netns/$ns/resolv.conf"
}

# on_host NAME COMMAND… : a command in a host's network with the host's
# resolver. Unlike `ip netns exec` it keeps the cgroup mounts, which docker's
# engine needs.
on_host() { (become "$@"); }

# become NAME COMMAND… : on_host in the place of this shell, so that what is
# started in the background has the process id that the shell knows.
become() {
	local ns=$1; shift
	[ "$ns" = "${engine:-}" ] || export DOCKER_HOST=unix://$data/no-engine
	exec nsenter --net="/run/netns/$ns" unshare -m sh -c 'mount --make-rprivate / && mount --bind "$0" /etc/resolv.conf && exec "$@"' "/etc/netns/$ns/resolv.conf" "$@"
}

# on WHERE COMMAND… : show the command and run it there.
on() {
	local where=$1; shift
	show "$where" "$@"
	on_host "$where" "$@"
}
# The variables whose values are shown as "$NAME": they are long, secret or
# different each time.
names=(TOKEN COVE_CLIENT_ID COVE_CLIENT_SECRET COVE_TENANT_ID REGISTRY_ID NETWORK_INTERFACE_ID)
show() {
	local where=$1 out='' a name quote; shift
	for a in "$@"; do
		case $a in
		"$cove") a=cove ;;
		"$crane") a=crane ;;
		esac
		quote=
		for name in "${names[@]}"; do
			[[ -z ${!name:-} || $a != *"${!name}"* ]] || { a=${a//"${!name}"/"\$$name"} quote='"'; }
		done
		case $a in
		*"'"*) quote='"' ;;
		*[!a-zA-Z0-9_./:=@%,+\$-]*) quote=${quote:-"'"} ;;
		esac
		a=$quote$a$quote
		out+="$a "
	done
	printf '%s[%s]%s $ %s\n' "$dim" "$where" "$plain" "${out% }" >&2
}

# az … : the Azure CLI outside. az_on WHERE … : on another host. az_as WHO … :
# outside, signed in as somebody else whom `account` made.
az() { az_on outside "$@"; }
az_on() {
	local where=$1; shift
	show "$where" az "$@"
	azure "$where" "$@"
}
az_as() {
	local who=$1; shift
	show "outside as $who" az "$@"
	AZURE_CONFIG_DIR=$data/az-$who azure outside "$@"
}

# azure WHERE … : the Azure CLI there. What it says on its standard error comes
# after its output, so that a transcript has one order.
azure() {
	local where=$1 status=0 said; shift
	said=$(mktemp "$data/said.XXXXXX")
	on_host "$where" env PYTHONPATH="$here/az" az "$@" 2>"$said" || status=$?
	grep -v -e 'is in preview and under development' -e 'Reference and support levels' "$said" >&2 || :
	rm -f "$said"
	return $status
}

# account WHO CLIENT-ID SECRET [FLAG…] : a configuration of the Azure CLI for somebody
# else, who signs in.
account() {
	local who=$1 id=$2 secret=$3; shift 3
	rm -rf "$data/az-$who"
	mkdir -p "$data/az-$who"
	cp "$AZURE_CONFIG_DIR/clouds.config" "$AZURE_CONFIG_DIR/config" "$data/az-$who/"
	az_as "$who" login --service-principal -u "$id" -p "$secret" --tenant "$COVE_TENANT_ID" "$@" --output none
}

# is WHAT EXPECTED ACTUAL
is() {
	[ "$2" = "$3" ] || fail "$1: expected '$2', got '$3'"
	printf '   %s: %s\n' "$1" "$3"
}

# refused PATTERN COMMAND… : the command must fail, and say why.
refused() {
	local pattern=$1; shift
	if "$@" >"$data/refusal" 2>&1; then
		cat "$data/refusal" >&2
		fail "it succeeded: $*"
	fi
	sed '$a\' "$data/refusal" # ends the last line
	grep -qE "$pattern" "$data/refusal" || fail "it failed for another reason than '$pattern': $*"
}

resolve() { on_host "$1" dig +short "$2" | tail -n 1; }
unresolvable() {
	local answer
	answer=$(on_host "$1" dig "$2" +noall +comments +answer)
	[ -z "$(on_host "$1" dig +short "$2" | grep -E '^[0-9.]+$')" ] || fail "on $1 $2 resolves: $answer"
	printf '   on %s %s does not resolve: %s\n' "$1" "$2" "$(grep -oE 'status: [A-Z]+' <<<"$answer" | head -n 1)"
}

# await PID FILE PATTERN WHAT : until the file has the pattern.
await() {
	for _ in $(seq 600); do
		grep -q "$3" "$2" 2>/dev/null && return
		kill -0 "$1" 2>/dev/null || break
		read -rt 0.05 <> <(:) || :
	done
	cat "$2" >&2
	fail "$4"
}

# house FLAG… : the server, and the host outside.
house() {
	rm -rf "$data"
	mkdir -p "$data/etc" "$HOME"
	cp -a /etc/. "$data/etc"
	mount --bind "$data/etc" /etc
	mkdir -p /run/netns
	mount -t tmpfs netns /run/netns
	ip link set lo up
	namespace outside $front
	local flags=(--data "$data/server" --listen $front:443 --advertise $front --dns $front:53 --wireguard 0.0.0.0:0 --admin 127.0.0.1:0 --connect "" "$@")
	show server cove serve "$@"
	"$cove" serve "${flags[@]}" >"$data/serve.out" 2>"$data/serve.log" &
	children+=($!)
	await $! "$data/serve.out" ready "the server did not start"
}

# sign_in : the Azure CLI knows the server, and is signed in.
sign_in() {
	show outside cove az --out az
	"$cove" az --data "$data/server" --out "$data/az" 2>/dev/null
	# The file is read on the host; its `az` is the function above.
	set +e
	. "$data/az/env.sh"
	set -e
	az login --service-principal -u "$COVE_CLIENT_ID" -p "$COVE_CLIENT_SECRET" --tenant "$COVE_TENANT_ID" --output none
}

# machine NAME VNET/SUBNET : a host that joins a network, as a virtual machine
# in it would be.
machine() {
	namespace "$1" 168.63.129.16
	show "$1" cove join "$2" --name "$1" --up
	local code
	code=$("$cove" join-code "$2" -g "$RESOURCE_GROUP" --name "$1" --data "$data/server")
	ip netns exec "$1" "$cove" join "$code" --up >"$data/join-$1.out" 2>&1 &
	children+=($!)
	eval "machine_$1=$!"
	await $! "$data/join-$1.out" "^joined" "the machine $1 did not join"
	cat "$data/join-$1.out"
}
leave() {
	local pid=machine_$1
	kill "${!pid}"
	wait "${!pid}" || :
}

# docker_on NAME [HOST…] : docker's engine on a host; the docker commands there
# use it; other hosts have none. It trusts $host and the others named.
docker_on() {
	local dir=$data/docker-$1 name
	mkdir -p "$dir"
	echo '{}' >"$dir/daemon.json"
	for name in "$host" "${@:2}"; do
		mkdir -p "/etc/docker/certs.d/$name"
		cp "$data/server/ca.pem" "/etc/docker/certs.d/$name/ca.crt"
	done
	become "$1" dockerd -H "unix://$dir/sock" --data-root "$dir/data" --exec-root "$dir/exec" --pidfile "$dir/pid" --config-file "$dir/daemon.json" \
		--iptables=false --ip6tables=false --bridge=none --storage-driver vfs >"$dir/log" 2>&1 &
	children+=($!)
	export DOCKER_HOST=unix://$dir/sock
	engine=$1
	await $! "$dir/log" "API listen on" "docker's engine did not start"
}

# image : a small image at $data/hello.tar.
image() {
	mkdir -p "$data/layer/bin"
	cp /bin/busybox "$data/layer/bin/busybox"
	tar --sort=name --mtime=@0 --owner=0 --group=0 -C "$data/layer" -cf "$data/layer.tar" .
	"$crane" append --new_layer "$data/layer.tar" --new_tag hello-world:latest --output "$data/hello.tar" 2>/dev/null
}
