#!/usr/bin/env bash
# The testbed of several hosts itself: commands, files, cables, power. Runs on this machine.
# shellcheck source-path=SCRIPTDIR
set -uo pipefail
# shellcheck source=../../scripts/common.sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../../scripts/common.sh"
# shellcheck source=report.sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/report.sh"

# shellcheck disable=SC2317 # called by expect
bed() { timeout --foreground 300 "$root/experiments/testbed/testbed" "$@"; }

# shellcheck disable=SC2317 # called by expect
reaches() { bed run "$1" -- ping -c 3 -A -W "${3:-30}" "$2" >/dev/null 2>&1; }

# shellcheck disable=SC2317 # called by expect
ends_with() {
	local status=$1 got=0
	shift
	bed "$@" >/dev/null 2>&1 || got=$?
	[[ $got == "$status" ]]
}

# 50,028 bytes take 200 ms at 2 Mbit/s, there and back.
# shellcheck disable=SC2317 # called by expect
slower_when_shaped() {
	bed rate a b 2Mbps
	bed run a -- ping -c 3 -s 50000 b | sed -n 's|.*min/avg/max = \([0-9]*\).*|\1|p' >"$work/ms"
	(($(cat "$work/ms") >= 380))
}

work_begin
export GODWIT_TESTBED=$work/bed
trap 'bed stop; work_end' EXIT
expect "two hosts start" bed start --hosts 2 --memory 1G --scratch 64M \
	--tree "$root/experiments/testbed"
expect "a host has KVM" bed run b -- test -c /dev/kvm
expect "a host has a file system of its own" bed run b -- grep -q ' /scratch ext4 ' /proc/mounts
# The tap's address is the lowest there is: a bridge left to itself would take it.
expect "its bridge carries large frames, also with a guest's tap in it" bed run b -- sh -c \
	'tunctl -t tap0 >/dev/null && ip link set tap0 address 02:00:00:00:00:01 && brctl addif br0 tap0 &&
		grep -qx 60000 /sys/class/net/br0/mtu'
expect "and keeps its address" bed run b -- cmp /sys/class/net/br0/address /sys/class/net/eth0/address
expect "a command's status comes back" ends_with 42 run a -- sh -c 'exit 42'
expect "a command's time is limited" ends_with 124 run --timeout 1 a -- sleep 60
head -c 3000000 /dev/urandom >"$work/bytes"
expect "files go in" bed put a "$work/bytes" /tmp
expect "files come out" bed get a /tmp/bytes "$work/back"
expect "and are the same" cmp "$work/bytes" "$work/back/bytes"
expect "input and output pass at once" \
	cmp "$work/bytes" <(bed run -i a -- cat <"$work/bytes")
expect "the hosts reach each other" reaches a b
bed cut a b
expect "not when the cable is cut" not reaches a b 5
bed restore
expect "and again when it is joined" reaches a b
expect "a slow cable is slow" slower_when_shaped
bed kill b
expect "a dead host says so" ends_with 125 run b -- true
expect "the other goes on" bed run a -- true
expect "a dead host boots again" bed boot b
expect "and is reached" reaches a b
bed stop
expect "nothing is left" test ! -e "$GODWIT_TESTBED"
report_end
