#!/usr/bin/env bash
# Two hosts in small: network namespaces of this machine, joined by a cable with a rate. A guest moves
# over it, there and back; then the cable is pulled under way. Needs no root where users may make
# namespaces. Runs on this machine's KVM, in seconds.
# shellcheck source-path=SCRIPTDIR disable=SC2317 # expect calls most functions
set -uo pipefail
# shellcheck source=../../scripts/common.sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../../scripts/common.sh"
# shellcheck source=report.sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/report.sh"

readonly build=$root/build/release rate_mbit=400

# Says why and ends when it cannot be done here; else goes on in namespaces of its own.
if [[ ${1:-} != inside ]]; then
	kvm_usable || { echo "SKIP a guest moves between namespaces: no KVM here" && exit; }
	unshare -Urn tc qdisc add dev lo root tbf rate 1mbit burst 10k latency 50ms 2>/dev/null || {
		echo "SKIP a guest moves between namespaces: users may not make any here, or no tbf"
		exit
	}
	exec unshare -Urn --fork --kill-child "$0" inside
fi

on_failure() { tail -n 15 "$work"/*.log "$work/report" >&2; }

# In host b; here is host a.
in_b() { nsenter --target "$host_b" --net "$@"; }

shape() {
	tc qdisc replace dev cable root tbf rate "${1}mbit" burst 256k latency 50ms
	in_b tc qdisc replace dev cable root tbf rate "${1}mbit" burst 256k latency 50ms
}

hosts_begin() {
	unshare --net sleep infinity &
	host_b=$!
	children+=("$host_b")
	until [[ $(readlink "/proc/$host_b/ns/net") != "$(readlink /proc/self/ns/net)" ]]; do
		sleep 0.05
	done
	ip link add cable type veth peer name cable netns "$host_b" &&
		ip address add 10.78.0.1/24 dev cable && ip link set cable up &&
		in_b ip address add 10.78.0.2/24 dev cable && in_b ip link set cable up && shape "$rate_mbit"
}

# vmm NAME WORD...: started by those words, its pid in `pid`.
vmm() {
	local name=$1
	shift
	mkfifo "$work/$name.keys"
	# shellcheck disable=SC2034 # held open, so that the guest's input does not end
	exec {keys}<>"$work/$name.keys"
	"$@" --serial stdio --qmp "unix:$work/$name.qmp" <"$work/$name.keys" >"$work/$name.log" 2>&1 &
	pid=$!
	children+=("$pid")
}

# move FROM URI: to the VMM that waits there; its report in $work/report.
move() { timeout 120 "$build/godwit" migrate "$work/$1.qmp" "$2" --json "${@:3}" >"$work/report" 2>&1; }

uri_of() {
	wait_for 60 "$pid" "$work/$1.log" '^waiting for a guest at' &&
		sed -n 's/^waiting for a guest at //p' "$work/$1.log"
}

nr_lines() { grep -c '^t=' "$work/$1.log"; }

# It prints a line a second.
works_on() {
	local before end=$((SECONDS + 60))
	before=$(nr_lines "$1")
	until (($(nr_lines "$1") > before)); do
		((SECONDS < end)) || return 1
		sleep 0.1
	done
}

intact() { "$build/godwit-guest-check" "$work/$1.qmp" >/dev/null; }

number() { sed -n "s/.*\"$1\": *\([0-9]*\).*/\1/p" "$work/report" | sed -n 1p; }

# Mbit/s over the whole of the migration: the first second may be faster by what a burst holds.
within_rate() { (($(number wire_bytes) * 8000 / $(number total_ns) <= rate_mbit * 11 / 10)); }

# pulled: the cable comes off while memory is being sent.
pulled() {
	local mover
	move third "$uri" &
	mover=$!
	until "$build/godwit" ctl "$work/third.qmp" query-migrate --json | grep -q '"phase": *"precopy"'; do
		kill -0 "$mover" || return 1
		sleep 0.05
	done
	ip link set cable down
	wait "$mover"
	(($? == 3)) && grep -q 'the guest goes on at the source' "$work/report"
}

work_begin
expect "two hosts and a cable" hosts_begin
vmm first "$build/godwit" run --kernel "$build/experiments/guest/workload.elf" --memory 256M \
	--append 'fill=64M ws=8M rate=1000'
expect "a guest works on host a" wait_for 120 "$pid" "$work/first.log" '^t='
vmm second in_b "$build/godwit" receive tcp:10.78.0.2:0
expect "it moves to host b" move first "$(uri_of second)"
printf '    %s bytes in %s ns\n' "$(number wire_bytes)" "$(number total_ns)"
expect "no faster than the cable" within_rate
expect "with every page" intact second
vmm third "$build/godwit" receive tcp:10.78.0.1:0
expect "and back, compared" move second "$(uri_of third)" --verify
shape 20
vmm fourth in_b "$build/godwit" receive tcp:10.78.0.2:0
uri=$(uri_of fourth)
expect "the cable is pulled under way: the source says that it has the guest" pulled
expect "the guest works on there" works_on third
expect "with every page" intact third
report_end
