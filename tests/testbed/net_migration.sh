#!/usr/bin/env bash
# A stock Debian guest talks over a bridge while it is migrated, twice, between two VMMs of one host,
# each with a tap of its own: its connections stay open, no byte of a stream is lost, and the bridge
# learns its new place from the destination.
#
# Runs in the testbed host (modules tun and bridge): tests/testbed/net_migration.sh GUEST-DIR
# Prints "ok NAME" or "FAIL NAME: why" for each thing it looks at.
# shellcheck source-path=SCRIPTDIR disable=SC2317 # expect calls most functions
set -uo pipefail
# shellcheck source=../../scripts/common.sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../../scripts/common.sh"
# shellcheck source=report.sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/report.sh"
# shellcheck source=vmm.sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/vmm.sh"

guest=$1
godwit=$root/build/release/godwit
address=10.77.0.2 echo_ms=100
# On a CPU this slow TCP would think the path slow and send segments of two packets.
long_segments=sysctl.net.ipv4.tcp_min_tso_segs=40

# talk NAME WORD...: a client in the background, until it is told to stop; its line in $work/NAME.
talk() {
	"$guest/peer" "$2" "$address" 7000 3600 "${@:3}" >"$work/$1" 2>&1 &
	talkers+=("$!")
	children+=("$!")
}

# The value of NAME= in the line of client $1.
said() { sed -n "s/.*\b$2=\([0-9.]*\).*/\1/p" "$work/$1"; }

# The tap behind which the bridge has learnt the guest's MAC address. /sys/class/net/br0/brforward is
# an array of struct __fdb_entry (linux/if_bridge.h): 6 bytes of address, 1 of port, 9 more.
tap_of_guest() {
	local mac port tap
	mac=$(ip neigh show "$address" | sed -n 's/.*lladdr \([0-9a-f:]*\).*/\1/p' | tr : ' ')
	port=$(od -An -v -tx1 -w16 /sys/class/net/br0/brforward |
		sed -n "s/^ $mac \(..\) .*/0x\1/p")
	for tap in tap0 tap1; do
		(($(cat "/sys/class/net/$tap/brport/port_no") == ${port:-0})) && echo "$tap"
	done
}

is_behind() { [[ $(tap_of_guest) == "$1" ]]; }

# learnt TAP: the bridge finds the guest there. When it has, is what the network makes of it: the host's entry for
# the guest's address may have gone stale while nobody answered, and comes back with the next packet.
learnt() {
	local end=$((SECONDS + 60))
	until is_behind "$1"; do
		((SECONDS < end)) || return 1
		sleep 0.1
	done
}

# Datagrams get lost while nobody answers, which may be for a moment or long: no more than that, and some.
answered() {
	local sent lost gap_ms
	sent=$(said echo sent) lost=$(said echo lost) gap_ms=$(said echo longest_gap_ms)
	((sent > lost && lost <= 2 * ${gap_ms%.*} / echo_ms + sent / 10))
}

# move FROM TO TAP [OPTION]...: the guest of VMM FROM goes to a new VMM called TO, on TAP.
move() {
	local from=$1 to=$2 tap=$3
	shift 3
	local uri
	start_vmm "$to" receive --serial stdio tcp:127.0.0.1:0 --net "tap:$tap"
	uri=$(listening "$to") || return 1
	"$godwit" migrate "$work/$from.qmp" "$uri" "$@" >"$work/report.$to" 2>&1
}

work_begin
on_failure() { tail -n 25 "$work"/*.log "$work"/report.* >&2; }
talkers=()

brctl addbr br0 && ip addr add 10.77.0.1/24 dev br0 && ip link set br0 up
for tap in tap0 tap1; do
	tunctl -t "$tap" >/dev/null && brctl addif br0 "$tap" && ip link set "$tap" up
done

start_vmm one run --serial stdio --kernel "$guest/vmlinux" --initrd "$guest/initramfs.cpio" --memory 256M \
	--append "$(cat "$guest/cmdline") busy.rate=50 busy.mem=4 net=$address/24 $long_segments" \
	--net tap:tap0
one_pid=$pid
expect "Linux boots with a network card" wait_for 180 "$one_pid" "$work/one.log" 'busy t=[1-9]'
expect "the guest answers" ping -c 1 -W 60 "$address"
expect "the bridge knows where it is" learnt tap0

talk stream receive
talk echo echo "$echo_ms"
sleep 5
expect "it moves to another tap" move one two tap1
wait "$one_pid"
expect "the bridge has learnt its new place" learnt tap1
printf 'dmesg\n' >&"$keys"
wait_for 60 "$pid" "$work/two.log" 'busy dmesg warnings='
expect "the kernel warns of nothing" grep -q 'busy dmesg warnings=0' "$work/two.log"
# Comparing everything takes long enough for the guest's clock watchdog to remark on it.
expect "it moves back, and is compared" move two three tap0 --verify
expect "and the bridge has learnt that" learnt tap0
sleep 5
kill "${talkers[@]}" # the stream's ends with the next bytes: they must come
wait "${talkers[@]}"
sed 's/^/    /' "$work"/stream "$work"/echo
expect "the stream has every byte" test "$(said stream bad)" = 0
expect "the stream flows to the end" test "$(said stream bytes)" -gt 1000000
expect "datagrams are answered" answered
sed -n 's/^ *\(downtime .*\)/    \1/p' "$work"/report.*
report_end
