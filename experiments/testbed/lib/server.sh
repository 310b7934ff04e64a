# shellcheck shell=bash
# shellcheck disable=SC2154 # root, work: scripts/common.sh
# The Debian server (experiments/testbed/debian-guest) on hosts of a testbed, and its clients.
# Sourced after scripts/common.sh and work_begin.

readonly address=10.77.0.50 migration_port=21000
readonly host_program=build/release/godwit
# What server_start starts, and the same for one that waits; the caller may set them.
server_program="$host_program run" receiver_program="$host_program receive"

bed() { "$root/experiments/testbed/testbed" "$@"; }

# server_bed [OPTION]...: two hosts and a client, a tap on each host. The server's disk is
# $work/guest/root.raw, which both hosts see as /dev/vda.
server_bed() {
	local host file words=()
	export GODWIT_TESTBED=$work/bed
	trap 'bed stop; work_end' EXIT
	"$root/experiments/testbed/debian-guest/build-debian" "$work/guest" || return 1
	for file in vmlinuz vmlinux initramfs.cpio cmdline peer writer; do
		words+=(--file "$work/guest/$file:/guest/$file")
	done
	mkdir -p "$work/tree/build/release"
	cp "$root/build/release/godwit" "$work/tree/build/release/"
	bed start --hosts 2 --client --memory 1G --tree "$work/tree" --scratch 2G --program iperf3 \
		--disk "$work/guest/root.raw" "${words[@]}" "$@" || return 1
	for host in a b; do
		host_tap "$host" || return 1
	done
}

host_tap() {
	bed run "$1" -- sh -c 'tunctl -t tap0 && brctl addif br0 tap0 && ip link set tap0 up' >/dev/null
}

# vmm HOST WORD...: godwit in a session of its own, as /tmp/vm.qmp; its output in /tmp/vm.log.
vmm() {
	# shellcheck disable=SC2016 # for the shell over there
	bed run "$1" -- sh -c 'rm -f /tmp/vm.log /tmp/vm.status
		setsid sh -c "$* >/tmp/vm.log 2>&1; echo \$? >/tmp/vm.status" </dev/null >/dev/null 2>&1 &' \
		sh "${@:2}"
}

# said HOST SECONDS PATTERN: its VMM printed that.
said() {
	# shellcheck disable=SC2016 # for the shell over there
	bed run --timeout "$2" "$1" -- sh -c 'until grep -q "$1" /tmp/vm.log; do
		[ ! -e /tmp/vm.status ] || exit 1; sleep 0.1; done 2>/dev/null' sh "$3" || {
		bed run "$1" -- tail -n 20 /tmp/vm.log >&2
		return 1
	}
}

# ended HOST: the exit status of its VMM, when it has ended.
ended() {
	bed run --timeout 180 "$1" -- sh -c \
		'until [ -s /tmp/vm.status ]; do sleep 0.1; done; cat /tmp/vm.status'
}

# server_start HOST DISK: boots the server there and waits until it serves. The packed kernel starts
# later and migrates sooner: what a guest booted travels with it.
server_start() {
	vmm "$1" "$server_program" --kernel /guest/vmlinuz --initrd /guest/initramfs.cpio \
		--memory 192M --append "'$(cat "$work/guest/cmdline") net=$address/24 \
init=/sbin/server-init'" --disk "$2" --net tap:tap0 --qmp unix:/tmp/vm.qmp \
		--serial file:/tmp/serial.log || return 1
	# shellcheck disable=SC2016 # for the shell over there
	bed run --timeout 600 "$1" -- sh -c 'until grep -q "server ready" /tmp/serial.log; do
		[ ! -e /tmp/vm.status ] || exit 1; sleep 0.2; done 2>/dev/null' || {
		bed run "$1" -- tail -n 20 /tmp/vm.log /tmp/serial.log >&2
		return 1
	}
}

# receiver HOST DISK: waits there for the server, with its disk at DISK.
receiver() {
	vmm "$1" "$receiver_program" "tcp:0.0.0.0:$migration_port" --disk "$2" --net tap:tap0 \
		--qmp unix:/tmp/vm.qmp && said "$1" 30 '^waiting for a guest at'
}

# guest COMMAND: in the server, by its network.
guest() { bed run -i --timeout 60 client -- nc "$address" 7001 <<<"$1"$'\n'exit; }

# talk NAME COMMAND...: a client in the background on its own point; what it prints is in $work/NAME.
talk() {
	# shellcheck disable=SC2016 # for the shell over there
	bed run --timeout 100000 client -- sh -c 'echo $$ >/tmp/$1.pid; shift; exec "$@"' \
		sh "$1" "${@:2}" >"$work/$1" 2>"$work/$1.errors" &
	talkers[$1]=$!
}

# hush NAME: tells it to end; its exit status.
hush() {
	bed run client -- sh -c "kill -TERM \$(cat /tmp/$1.pid)"
	wait "${talkers[$1]}"
}

# value NAME FIELD: of what talker NAME printed.
value() { sed -n "s/.*\b$2=\([0-9.]*\).*/\1/p" "$work/$1"; }

# watch_begin, watch_end: a stream of echoes and one of requests; their longest gaps are what a client
# noticed. Not an echo a millisecond: this server, emulated twice, does not answer a thousand a second,
# and what it is asked without a pause keeps it from everything else.
watch_begin() {
	talk echo /guest/peer echo "$address" 7000 100000 "$echo_ms"
	talk ask /guest/peer ask "$address" 7000 100000 "$ask_ms"
}

watch_end() { hush ask && hush echo; }

declare -A talkers
# The caller may set them, too.
echo_ms=20 ask_ms=100
