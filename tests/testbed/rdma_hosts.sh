#!/usr/bin/env bash
# The workload guest and a Linux guest move by RDMA between two hosts, over soft-RoCE on their network; the cable is
# cut while one does. Runs on this machine: tests/testbed/rdma_hosts.sh LINUX-GUEST-DIR
# shellcheck source-path=SCRIPTDIR
# shellcheck disable=SC2317 # much is called by expect
set -uo pipefail
here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
# shellcheck source=../../scripts/common.sh
source "$here/../../scripts/common.sh"
# shellcheck source=report.sh
source "$here/report.sh"

bed() { timeout 400 "$root/experiments/testbed/testbed" "$@"; }

# What the commands below share on each host. VMMs outlive the command that starts them.
# shellcheck disable=SC2016 # for the shell over there
there='cd /tree; source scripts/common.sh; work=/run/rdma; mkdir -p $work; children=()
source tests/testbed/rdma_host.sh
vmm() {
	local name=$1
	shift
	setsid "$@" --serial "file:$work/$name.serial" --qmp "unix:$work/$name.qmp" </dev/null >"$work/$name.log" 2>&1 &
	pid=$!
	echo $pid >"$work/$name.pid"
}
writes_more() { (($(grep -c "$2" "$work/$1.serial") > $3)); }
goes_on() { # NAME PATTERN
	within 120 writes_more "$1" "$2" "$(grep -c "$2" "$work/$1.serial")"
}
'
on() { bed run --timeout 300 "$1" -- bash -c "$there$2"; }

# receive HOST NAME [OPTION]...: a destination there.
# shellcheck disable=SC2016
receive() {
	local address=10.77.0.1
	[[ $1 == a ]] || address=10.77.0.2
	on "$1" "vmm $2 \$godwit receive rdma:$address:4444 ${*:3}; wait_for 60 \$pid \$work/$2.log '^waiting for'"
}

# migrate HOST NAME HOST [OPTION]...: what guest NAME's VMM is told; its output in $work/report.
migrate() {
	local address=10.77.0.1
	[[ $3 == a ]] || address=10.77.0.2
	on "$1" "timeout 250 \$godwit migrate \$work/$2.qmp rdma:$address:4444 ${*:4}" >"$work/report" 2>&1
}

alive() { on "$1" "goes_on $2 '$3'"; }
pages_right() { on "$1" "pages_are_right $2"; }
unpinned() { on "$1" "within 20 pins_nothing \$(cat \$work/$2.pid)"; }
pinning() { on "$1" "within 100 pins_something \$(cat \$work/$2.pid)"; }
says() { grep -q -- "$1" "$work/report"; }

work_begin
export GODWIT_TESTBED=$work/bed
on_failure() {
	cat "$work/report"
	# shellcheck disable=SC2016
	for host in a b; do on $host 'tail -n 5 $work/*.log'; done
} >&2
trap 'bed stop; work_end' EXIT
expect "two hosts start" bed start --hosts 2 --rdma --file "$1:/guest"
expect "a device on a" on a "device_up br0"
expect "a device on b" on b "device_up br0"

# ---- The workload guest ----

# shellcheck disable=SC2016
expect "the workload guest boots on a" on a 'vmm one $godwit run --memory 128M \
	--kernel build/release/experiments/guest/workload.elf --append "fill=32M ws=4M rate=500"
	wait_for 120 $pid $work/one.serial "^t="'
receive b two
expect "it moves to b by RDMA, over two queue pairs" migrate a one b --streams 2 --rdma-pin 8M --verify
expect "it goes on there" alive b two '^t='
expect "every page is right" pages_right b two

receive a three
migrate b two a --bandwidth 20Mbps &
migrating=$!
expect "back to a: under way" pinning b two
bed cut a b
wait "$migrating"
expect "the cable is cut: the migration fails" test $? = 3
sed 's/^/    /' "$work/report" | tail -n 1
expect "and says where the guest is" says 'the guest goes on at the source'
expect "and why" says 'stopped answering\|no progress\|link cut'
expect "nothing stays pinned" unpinned b two
expect "the guest goes on" alive b two '^t='
bed restore a b
# shellcheck disable=SC2016
on a 'kill -KILL $(cat $work/three.pid)' >/dev/null 2>&1 # it may not have noticed yet
receive a four
expect "with the cable joined: a clean retry" migrate b two a --verify
expect "it goes on" alive a four '^t='
expect "every page is right" pages_right a four

# ---- Linux ----

# shellcheck disable=SC2016
expect "Linux boots on a" on a 'vmm linux $godwit run --kernel /guest/vmlinux --initrd /guest/initramfs.cpio \
	--append "$(cat /guest/cmdline) busy.rate=100 busy.mem=16" --memory 256M
	wait_for 250 $pid $work/linux.serial "busy t=[1-9]"'
receive b linux2
expect "it moves to b by RDMA" migrate a linux b --verify
expect "it goes on there, its memory right" alive b linux2 'busy t=.*mem_bad=0'
report_end
