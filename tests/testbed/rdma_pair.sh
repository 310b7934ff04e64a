# shellcheck shell=bash
# shellcheck disable=SC2154 # root and work come from scripts/common.sh
# Two testbed hosts, a and b, with a soft-RoCE device each and VMMs on them, for tests that run on this machine.
# Sourced after scripts/common.sh and report.sh; then work_begin, then pair_start.

bed() { timeout 400 "$root/experiments/testbed/testbed" "$@"; }

# What the commands below share on each host. VMMs outlive the command that starts them.
# shellcheck disable=SC2016 # for the shell over there
there='cd /tree; source scripts/common.sh; work=/run/rdma; mkdir -p $work; children=()
source tests/testbed/rdma_host.sh
background() {
	local name=$1
	shift
	setsid "$@" </dev/null >"$work/$name.log" 2>&1 &
	pid=$!
	echo $pid >"$work/$name.pid"
}
vmm() { background "$@" --serial "file:$work/$1.serial" --qmp "unix:$work/$1.qmp"; }
writes_more() { (($(grep -c "$2" "$work/$1.serial") > $3)); }
goes_on() { # NAME PATTERN
	within 120 writes_more "$1" "$2" "$(grep -c "$2" "$work/$1.serial")"
}
is_census() { [[ $(census) == "$1" ]]; }
# How long the kernel still counts memory of VMM NAME as pinned: unpinned_us.
await_unpinned() {
	local begin=${EPOCHREALTIME/./}
	within 20 pins_nothing "$(cat "$work/$1.pid")"
	unpinned_us=$((${EPOCHREALTIME/./} - begin))
}
'
on() { bed run --timeout 300 "$1" -- bash -c "$there$2"; }

address_of() { [[ $1 == a ]] && echo 10.77.0.1 || echo 10.77.0.2; }

# pair_start [OPTION]...: the hosts, with what `testbed start` is told more.
pair_start() {
	export GODWIT_TESTBED=$work/bed
	trap 'bed stop; work_end' EXIT
	expect "two hosts start" bed start --hosts 2 --rdma "$@"
	expect "a device on a" on a "device_up br0"
	expect "a device on b" on b "device_up br0"
}

pair_show() {
	cat "$work/report"
	# shellcheck disable=SC2016
	for host in a b; do on $host 'tail -n 5 $work/*.log'; done
} >&2

# boot_on HOST NAME GUEST [MEMORY]: the workload guest, working.
# shellcheck disable=SC2016
boot_on() {
	on "$1" "vmm $2 \$godwit run --memory ${4:-128M}"' --kernel build/release/experiments/guest/workload.elf \
		--append "'"$3"'" && wait_for 120 $pid $work/'"$2"'.serial "^t="'
}

# receive HOST NAME [OPTION]...: a destination there.
# shellcheck disable=SC2016
receive() {
	on "$1" "vmm $2 \$godwit receive rdma:$(address_of "$1"):4444 ${*:3}
		wait_for 60 \$pid \$work/$2.log '^waiting for'"
}

# migrate HOST NAME HOST [OPTION]...: what guest NAME's VMM is told; its output in $work/report, and after that
# how long something was pinned still.
migrate() {
	# shellcheck disable=SC2016
	on "$1" "timeout 250 \$godwit migrate \$work/$2.qmp rdma:$(address_of "$3"):4444 ${*:4}"'
		status=$?; await_unpinned '"$2"'; echo "pinned for $unpinned_us us more"
		exit $status' >"$work/report" 2>&1
}

# Nothing was pinned any more a second after the migration's end, whichever it was.
unpinned_at_once() {
	local us
	us=$(sed -n 's/^pinned for \([0-9]*\) us more$/\1/p' "$work/report")
	[[ -n $us ]] && ((us <= 1000000))
}

alive() { on "$1" "goes_on $2 '$3'"; }
pages_right() { on "$1" "pages_are_right $2"; }
pinning() { on "$1" "within 100 pins_something \$(cat \$work/$2.pid)"; }
says() { grep -q -- "$1" "$work/report"; }

# What of RDMA a host holds; before there was a VMM, and now.
objects() { on "$1" census; }
objects_are() { on "$1" "within 30 is_census '$2'"; }
