#!/usr/bin/env bash
# A stock Debian guest uses every virtio device, and moves twice while its disk is busy: first with
# its disks shared, then with the busy one copied.
#
# Runs in the testbed host (module tun): tests/testbed/devices.sh GUEST-DIR
# Prints "ok NAME" or "FAIL NAME: why" for each thing it looks at.
# shellcheck source-path=SCRIPTDIR
set -uo pipefail
# shellcheck source=../../scripts/common.sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../../scripts/common.sh"
# shellcheck source=report.sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/report.sh"
# shellcheck source=vmm.sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/vmm.sh"

guest=$1
godwit=$root/build/release/godwit
address=10.78.0.2

# tell COMMAND PATTERN: the guest is told so, and then says that, which is in `answer`. Nothing that
# it has said before counts.
tell() {
	local before end=$((SECONDS + 180))
	before=$(wc -l <"$work/$vmm.log")
	printf '%s\n' "$1" >&"$keys"
	until answer=$(grep -m 1 -- "$2" < <(whole_lines "$work/$vmm.log" | tail -n +$((before + 1)))); do
		((SECONDS < end)) && kill -0 "$pid" || return 1
		sleep 0.1
	done
}

# says COMMAND PATTERN TEXT: the answer to COMMAND, the line with PATTERN, has TEXT.
# shellcheck disable=SC2317 # called by expect
says() { tell "$1" "$2" && [[ $answer == *"$3"* ]]; }

# The last number that `disk` gave as NAME= in the log of VMM $1.
disk_said() { sed -n "s/.*disk vda t=.*\b$2=\([0-9]*\).*/\1/p" "$work/$1.log" | tail -n 1; }

# MiB of the host's memory that the guest's memory takes.
memory_in_use() {
	stat -L -c %b "/proc/$pid/fd/"* 2>/dev/null | sort -n | tail -n 1 | awk '{print int($1 / 2048)}'
}

# shellcheck disable=SC2317 # called by expect
memory_shrinks_to() {
	local end=$((SECONDS + 180))
	until (($(memory_in_use) <= $1)); do
		((SECONDS < end)) || return 1
		sleep 0.2
	done
}

# shellcheck disable=SC2317 # called by expect
balloon_leaves() {
	local end=$((SECONDS + 180))
	"$godwit" ctl "$work/$vmm.qmp" balloon "value=$1" >/dev/null
	until (($("$godwit" ctl "$work/$vmm.qmp" query-balloon --json |
		sed 's/.*"actual": *\([0-9]*\).*/\1/') == $1)); do
		((SECONDS < end)) || return 1
		sleep 0.2
	done
}

# move TO TAP DISK OPTION...: the guest goes to a new VMM called TO, on TAP, where its first disk is
# DISK.
# shellcheck disable=SC2317 # called by expect
move() {
	local from=$vmm to=$1 tap=$2 disk=$3 uri
	shift 3
	start_vmm "$to" receive tcp:127.0.0.1:0 --console stdio --net "tap:$tap" --disk "$disk" \
		--disk "$work/still,readonly=on" --disk "$work/small/image"
	vmm=$to
	uri=$(listening "$to") || return 1
	"$godwit" migrate "$work/$from.qmp" "$uri" "$@" >"$work/report.$to" 2>&1
}

# expect_move NAME MOVE...: without it, there is nothing more to look at.
expect_move() {
	local from=$pid
	expect "$1" move "${@:2}"
	((nr_failed == 0)) || report_end
	wait "$from"
}

work_begin
# shellcheck disable=SC2317 # called by expect
on_failure() { tail -n 25 "$work"/*.log "$work"/report.* >&2; }

for tap in tap0 tap1; do tunctl -t "$tap" >/dev/null; done
ip addr add 10.78.0.1/24 dev tap0 && ip link set tap0 up
truncate -s 16M "$work/busy"
truncate -s 1M "$work/still"
# A disk larger than the file system its image is on.
mkdir "$work/small" && mount -t tmpfs -o size=1M small "$work/small"
trap 'umount -l "$work/small"; work_end' EXIT
truncate -s 8M "$work/small/image"

vmm=one
start_vmm one run --kernel "$guest/vmlinux" --initrd "$guest/initramfs.cpio" --memory 256M --cpus 2 \
	--append "$(cat "$guest/cmdline") busy.rate=50 busy.mem=4 net=$address/24 devices=1" \
	--serial "file:$work/serial" --console stdio --rng --balloon --net tap:tap0 \
	--disk "$work/busy,queues=2,serial=the-busy-one" --disk "$work/still,readonly=on" \
	--disk "$work/small/image"
expect "Linux boots and looks for devices" wait_for 180 "$pid" "$work/one.log" 'devices disks='
expect "its disk is busy" wait_for 180 "$pid" "$work/one.log" 'disk vda t=[2-9]'
grep 'devices disks' "$work/one.log" | sed 's/^/    /'
expect "it finds the disks, their queues and a serial number" \
	grep -q 'devices disks=3 queues=2 serial=the-busy-one readonly=1' "$work/one.log"
expect "it finds the source of entropy" grep -q 'devices.*rng=virtio_rng.0' "$work/one.log"
expect "which gives some" says entropy 'devices entropy' entropy=4096
expect "the network card works" ping -c 1 -W 30 "$address"
expect "a read-only disk is not written" says readonly 'devices readonly' status=1

expect "the guest uses memory" says 'fill 24' 'devices filled' filled
full=$(memory_in_use)
tell empty 'devices emptied'
expect "and gives back what it frees" memory_shrinks_to $((full - 8))
printf '    %s MiB, then %s MiB\n' "$full" "$(memory_in_use)"
expect "a balloon takes more" balloon_leaves $((192 << 20))

expect_move "it moves, its disks shared" two tap1 "$work/busy"
expect "the disk goes on" wait_for 180 "$pid" "$work/two.log" 'disk vda t='
expect "every block of it is right" says check 'disk vda check' 'blocks=4096 bad=0'
expect "what was given back did not move" test "$(memory_in_use)" -le $((full - 8))
expect "the balloon takes more here, too" balloon_leaves $((176 << 20))
expect "entropy goes on" says entropy 'devices entropy' entropy=4096
expect_move "it moves, its disk copied" three tap0 "$work/copy" --copy-disks 0
expect "the network card works again" ping -c 1 -W 30 "$address"
expect "every block of the copy is right" says check 'disk vda check' 'blocks=4096 bad=0'
expect "no request failed" test "$(disk_said three errors)" = 0
expect "and there were some of each kind" \
	test $(($(disk_said three writes) && $(disk_said three zeroes) && $(disk_said three flushes))) = 1
expect "the kernel warns of nothing" says dmesg 'devices dmesg' warnings=0
expect "a host without room is an error in the guest" says full 'devices full' status=1
expect "and for the others nothing" says check 'disk vda check' 'blocks=4096 bad=0'
sed -n 's/^ *\(downtime .*\|disks .*\)/    \1/p' "$work"/report.*
grep 'disk vda t=' "$work/three.log" | tail -n 1 | sed 's/^/    /'
report_end
