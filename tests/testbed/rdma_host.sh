# shellcheck shell=bash
# shellcheck disable=SC2154,SC2034 # root, work and children come from scripts/common.sh; the caller uses the rest
# A host with a soft-RoCE device and VMMs on it, for what tests and measures RDMA there. Sourced after
# scripts/common.sh; work_begin comes first.

godwit=$root/build/release/godwit
pinned_kib=0

# device_up NETDEV: rxe0 over it.
device_up() { rdma link add rxe0 type rxe netdev "$1"; }

# device_alone: rxe0 for a host by itself, at 10.7.0.1.
device_alone() {
	ip link set dummy0 mtu 9000 && ip link set dummy0 up && ip addr add 10.7.0.1/24 dev dummy0 &&
		device_up dummy0
}

# What of RDMA this host has alive: "pd 1 cq 1 qp 1 cm_id 0 mr 0 srq 0" when nobody uses it (the
# kernel's own). "none" without a device. Not the contexts: librdmacm keeps a process's for good.
census() {
	local line
	line=$(rdma resource show 2>/dev/null | sed -n 's/^[0-9]*: rxe0: //p' | sed 's/ctx [0-9]* //; s/ *$//')
	echo "${line:-none}"
}

# within SECONDS COMMAND...: until it succeeds.
within() {
	local end=$((${EPOCHREALTIME/./} + $1 * 1000000))
	shift
	until "$@"; do
		((${EPOCHREALTIME/./} < end)) || return 1
		sleep 0.05
	done
}

# KiB that the kernel counts as pinned by PID; 0 when it has ended. Without a fork: it is called often.
pinned() {
	local lines=() line
	pinned_kib=0
	mapfile -t lines 2>/dev/null <"/proc/$1/status"
	for line in "${lines[@]}"; do
		[[ $line != VmPin:* ]] || pinned_kib=${line//[^0-9]/}
	done
}

pins_nothing() { pinned "$1" && ((pinned_kib == 0)); }
pins_something() { pinned "$1" && ((pinned_kib > 0)); }

# watch_pins FILE PID...: the most that any of them pins at a time, in KiB, and how often it was looked, until
# FILE.stop is there.
watch_pins() {
	local file=$1 most=0 nr=0 pid pause
	shift
	[[ -p $file.pause ]] || mkfifo "$file.pause"
	exec {pause}<>"$file.pause"
	until [[ -e $file.stop ]]; do
		for pid in "$@"; do
			pinned "$pid"
			((pinned_kib <= most)) || most=$pinned_kib
		done
		nr=$((nr + 1))
		read -rt 0.01 -u "$pause" # nothing ever comes: it sleeps without a fork
	done
	echo "$most $nr" >"$file"
}

# watch_newest FILE NAME: the same, of VMM NAME, which may be yet to start: its process is in NAME.pid then.
watch_newest() {
	within 120 test -s "$work/$2.pid" && watch_pins "$1" "$(cat "$work/$2.pid")"
}

# vmm NAME [PREFIX...] run|receive ...: a VMM in the background: `pid`. Its guest's console waits for ever for what
# nobody writes; no descriptor of ours is open for that, which the next VMM would inherit.
vmm() {
	local name=$1
	shift
	mkfifo "$work/$name.keys"
	"$@" --serial stdio --qmp "unix:$work/$name.qmp" <>"$work/$name.keys" >"$work/$name.log" 2>&1 &
	pid=$!
	children+=("$pid")
}

# listen NAME URI [PREFIX...] [-- OPTION...]: a destination; where it listens in `uri`.
listen() {
	local name=$1 address=$2 prefix=()
	shift 2
	while (($# > 0)) && [[ $1 != -- ]]; do
		prefix+=("$1")
		shift
	done
	vmm "$name" "${prefix[@]}" "$godwit" receive "$address" "${@:2}"
	await_listening "$name"
}

# listen_ahead NAME URI MEMORY: the same, and it has allocated the guest's memory before.
listen_ahead() {
	vmm "$1" "$godwit" run --incoming "$2" --memory "$3" --prealloc
	await_listening "$1"
}

await_listening() {
	wait_for 90 "$pid" "$work/$1.log" 'waiting for a guest at' || return 1
	uri=$(sed -n 's/.*waiting for a guest at //p' "$work/$1.log")
}

# boot_workload NAME GUEST MEMORY: the workload guest, working.
boot_workload() {
	vmm "$1" "$godwit" run --kernel "$root/build/release/experiments/guest/workload.elf" \
		--append "$2" --memory "$3"
	wait_for 120 "$pid" "$work/$1.log" '^t='
}

# works NAME: its guest writes another line.
works() {
	local before
	before=$(grep -c '^t=' "$work/$1.log")
	within 90 more_lines "$1" "$before"
}

more_lines() { (($(grep -c '^t=' "$work/$1.log") > $2)); }

pages_are_right() { "$root/build/release/godwit-guest-check" "$work/$1.qmp" >"$work/$1.check" 2>&1; }
