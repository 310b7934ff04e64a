#!/usr/bin/env bash
# The workload guest moves by RDMA within one host, over a soft-RoCE device, and what can go wrong goes
# wrong: the destination is killed, the device is taken away, limits are too low. Each time the guest
# goes on, the error says why, and nothing stays pinned or allocated, by the kernel's own books.
#
# Runs in the testbed host: experiments/testbed/host run --rdma --file /usr/bin/setpriv -- tests/testbed/rdma.sh
# shellcheck source-path=SCRIPTDIR
# shellcheck disable=SC2317 # much is called by expect
set -uo pipefail
here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
# shellcheck source=../../scripts/common.sh
source "$here/../../scripts/common.sh"
# shellcheck source=report.sh
source "$here/report.sh"
# shellcheck source=rdma_host.sh
source "$here/rdma_host.sh"

# An ordinary user's: what may be pinned is limited, and where there are no user namespaces either, guest memory is a
# memfd of small pages.
limited_to() { # KIB COMMAND...
	ulimit -l "$1"
	exec /usr/bin/setpriv --bounding-set=-ipc_lock,-sys_admin --inh-caps=-ipc_lock,-sys_admin "${@:2}"
}
export -f limited_to

# migrate [OPTION]...: the guest of VMM `at` to the destination at `uri`; its output in $work/report.
migrate() { timeout 300 "$godwit" migrate "$work/$at.qmp" "$uri" "$@" >"$work/report" 2>&1; }

# start_slowly [OPTION]...: the same in the background, slow enough to be disturbed, until it pins.
start_slowly() {
	migrate --bandwidth 50Mbps "$@" &
	migrating=$!
	within 60 pins_something "$at_pid"
}

# failed_as WORDS: the migration fails and says so.
failed_as() {
	local status=0
	wait "$migrating" || status=$?
	sed 's/^/    /' "$work/report" | tail -n 2
	((status == 3)) && grep -q -- "$1" "$work/report" &&
		grep -q 'the guest goes on at the source' "$work/report"
}

ended() { ! kill -0 "$1" 2>/dev/null; }
nothing_is_left() { within 60 pins_nothing "$at_pid" && within 60 is_census "$base"; }
is_census() { [[ $(census) == "$1" ]]; }
left() { echo "    left: $(census), pinned $pinned_kib" >&2; }
# A hypervisor with live guests: L1 and each L2 must go on after every move, all compared by digests.
soak() {
	timeout 300 "$godwit" nested soak --count 4 --over rdma:10.7.0.1 --patience 120s >"$work/soak" 2>&1
}
# Loopback is no address of the device.
soak_nowhere() {
	! timeout 300 "$godwit" nested soak --count 2 --over rdma:127.0.0.1 --patience 120s >"$work/soak" 2>&1 &&
		grep -q 'error: migration 1: .*no device here leads to 127.0.0.1' "$work/soak" && ! compgen -G '/tmp/godwit-lab.*' >&2
}
doctor_says() { "$godwit" doctor | grep -q -- "$1"; }
has_small_pages() {
	local fd
	for fd in /proc/"$1"/fd/*; do
		[[ $(readlink "$fd") != /memfd:godwit-guest-memory* ]] || return 0
	done
	return 1
}
has_all_memory() { (($(sed -n 's/^RssShmem:[^0-9]*\([0-9]*\) kB/\1/p' "/proc/$1/status") >= $2)); }
says() { grep -q -- "$2" "$work/$1.log"; }

warned_twice() { (($(grep -c -- "$2" "$work/$1.log") == 2)); } # as destination, then as source

# arrived NAME: the guest has moved there and works; that VMM is where it is from now on.
arrived() {
	within 60 ended "$at_pid" && at=$1 at_pid=$pid && works "$at" && pages_are_right "$at"
}

work_begin
on_failure() { left; tail -n 15 "$work"/*.log "$work/report" >&2; }

expect "a soft-RoCE device" device_alone
expect "doctor knows it" doctor_says '^ok *RDMA devices *rxe0/1 RoCE active'
expect "and its address" doctor_says '10\.7\.0\.1'
base=$(census)
expect "the guest boots" boot_workload one "fill=32M ws=4M rate=500" 128M
at=one at_pid=$pid

# ---- Into memory that is there already ----

listen_ahead zero rdma:10.7.0.1:0 128M
expect "a destination allocates its memory before it listens" has_all_memory "$pid" 131072
expect "it moves there" migrate --verify
expect "whole" arrived zero

# ---- It works: never more pinned than allowed ----

listen two rdma:10.7.0.1:0 -- --rdma-pin 12M
watch_pins "$work/pins" "$at_pid" "$pid" &
watcher=$!
expect "it moves by RDMA over two queue pairs" migrate --streams 2 --rdma-pin 8M --verify
: >"$work/pins.stop"
wait "$watcher"
read -r most samples <"$work/pins"
expect "within the budget of 8192 KiB: at most $most pinned, in $samples samples" \
	test "$most" -gt 0 -a "$most" -le 8192
expect "and is whole" arrived two
expect "nothing is left" nothing_is_left

expect "a hypervisor moves with its guests, 4 times" soak
sed -n '/^$/,$p' "$work/soak" | sed 's/^/    /'
expect "one that cannot says so, and leaves nothing in /tmp" soak_nowhere
expect "nothing is left of either" within 60 is_census "$base"

# ---- What goes wrong ----

listen three rdma:10.7.0.1:0
start_slowly
kill -KILL "$pid"
expect "the destination is killed: an error, and where the guest is" failed_as "error: "
expect "the guest goes on" works two
expect "nothing is left by either side" nothing_is_left

# ---- Limits ----

mount -t cgroup2 none /sys/fs/cgroup && echo +rdma >/sys/fs/cgroup/cgroup.subtree_control
mkdir /sys/fs/cgroup/few && echo "rxe0 hca_object=14" >/sys/fs/cgroup/few/rdma.max
in_cgroup() {
	echo $$ >/sys/fs/cgroup/few/cgroup.procs
	exec "$@"
}
export -f in_cgroup
listen grouped rdma:10.7.0.1:0 bash -c 'in_cgroup "$@"' in
expect "a control group with few objects: it moves" migrate --verify
expect "with a warning" says two 'rdma.max'
expect "whole" arrived grouped

too_low() { listen low rdma:10.7.0.1:0 bash -c 'limited_to 4096 "$@"' limited; }
expect "a limit below everything: no destination" not too_low
expect "and what to set" says low 'RLIMIT_MEMLOCK.*ulimit -l'
echo 0 >/proc/sys/user/max_user_namespaces
listen lower rdma:10.7.0.1:0 bash -c 'limited_to 6144 "$@"' limited
expect "a low limit: a smaller budget, with a warning" says lower 'allows 5120 KiB of the budget'
expect "and it moves" migrate
expect "into memory of small pages" has_small_pages "$pid"
expect "whole" arrived lower
expect "nothing is left" nothing_is_left

# ---- The device goes ----

listen four rdma:10.7.0.1:0
start_slowly
rdma link del rxe0 &
deleting=$!
expect "the device is taken away: the error says so" failed_as 'RDMA.*device'
expect "the guest goes on without it" works "$at"
expect "nothing stays pinned" within 60 pins_nothing "$at_pid"
expect "a low limit at the source: a smaller budget, too" warned_twice lower 'allows 5120 KiB of the budget'
expect "no device: no destination" not listen five rdma:10.7.0.1:0
expect "and what to do" says five "godwit doctor"
listen six rdma:10.7.0.1:0 -- --rdma-fallback tcp
expect "it leaves by TCP, where that is allowed" migrate --rdma-fallback tcp --verify
expect "whole" arrived six
# librdmacm keeps a device open as long as the process lives, and soft-RoCE waits for that.
expect "now nobody holds the device" within 60 ended "$deleting"
expect "a new device" device_up dummy0

listen seven rdma:10.7.0.1:0 -- --rdma-fallback tcp
start_slowly --rdma-fallback tcp --verify
rdma link del rxe0 &
wait "$migrating"
expect "taken away with leave to go on: over TCP" test $? = 0
expect "which is said" says six 'channel 0 goes on over TCP'
expect "and in the report" grep -q '1 of 1 channels fell back to TCP' "$work/report"
expect "whole" arrived seven
report_end
