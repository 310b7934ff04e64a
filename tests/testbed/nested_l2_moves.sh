#!/usr/bin/env bash
# The guest of a guest changes its host: from one Linux hypervisor (L1) to another, from there to the
# host below both, and back into the first. Whatever runs it is a godwit; nobody but the three knows.
# Runs in the testbed host (modules tun and bridge): tests/testbed/nested_l2_moves.sh GUEST-DIR
# GUEST-DIR: what experiments/testbed/linux-guest/build-guest --hypervisor has built.
# shellcheck source-path=SCRIPTDIR disable=SC2317 # functions are called by expect
set -uo pipefail
# shellcheck source=../../scripts/common.sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../../scripts/common.sh"
# shellcheck source=report.sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/report.sh"

guest=$1
build=$root/build/release
declare -A keys pids

# start_l1 NAME TAP ADDRESS PARAMETER...
start_l1() {
	local name=$1 fd
	mkfifo "$work/$name.keys"
	exec {fd}<>"$work/$name.keys"
	keys[$name]=$fd
	"$build/godwit" run --kernel "$guest/vmlinux" --initrd "$guest/initramfs.cpio" --memory 384M \
		--nested require --net "tap:$2" --serial stdio --append \
		"$(cat "$guest/cmdline") busy.mem=4 busy.rate=20 net=$3/24 ${*:4}" \
		<"$work/$name.keys" >"$work/$name.log" 2>&1 &
	pids[$name]=$!
	children+=("$!")
}

# tell L1 COMMAND: on its console.
tell() { printf '%s\n' "$2" >&"${keys[$1]}"; }

# says L1 PATTERN [LINES]: waits until L1's console has so many such lines more than at the last mark.
says() {
	local name=$1 pattern=$2 lines=${3:-1} end=$((SECONDS + 400))
	while (($(tail -n "+${mark[$name]:-1}" "$work/$name.log" 2>/dev/null | grep -c -- "$pattern") < lines)); do
		((SECONDS < end)) && kill -0 "${pids[$name]}" || return 1
		sleep 0.2
	done
}

declare -A mark
marked() { mark[$1]=$(($(wc -l <"$work/$1.log") + 1)); }

# In all that L2 has said, wherever it was.
no_errors() { ! grep -hE ' errors=[1-9]|CORRUPT|FAILED' "$work"/*.log; }

on_failure() { tail -n 15 "$work"/*.log >&2; }

work_begin
brctl addbr br0 && ip addr add 10.77.0.1/24 dev br0 && ip link set br0 up
for tap in tap0 tap1; do
	tunctl -t "$tap" >/dev/null && brctl addif br0 "$tap" && ip link set "$tap" up
done
start_l1 a tap0 10.77.0.2 l2.fill=1M l2.ws=256K l2.rate=50
expect "the first L1 has a guest" says a 'L2: t=[0-9.]* pages=' 2
start_l1 b tap1 10.77.0.3 l1.vmm=none
expect "the second L1 has none" says b 'L1: busy t=[1-9]'

tell b "receive tcp:0.0.0.0:23100"
expect "the second L1 waits" says b 'L2: waiting for a guest'
tell a "migrate tcp:10.77.0.3:23100"
expect "L2 works in the other L1" says b 'L2: t=[0-9.]* pages=.* cpus=' 3
expect "it has left the first" says a 'L1: its godwit ended'

"$build/godwit" receive tcp:10.77.0.1:23101 --serial stdio --qmp "unix:$work/host.qmp" \
	</dev/null >"$work/host.log" 2>&1 &
pids[host]=$!
children+=("$!")
expect "the host below waits" says host '^waiting for a guest'
tell b "migrate tcp:10.77.0.1:23101"
expect "L2 works on the host itself" says host '^t=[0-9.]* pages=.* cpus=' 3
expect "it has left the second" says b 'L1: its godwit ended'
expect "every page of it is right" "$build/godwit-guest-check" "$work/host.qmp"

marked a
tell a "receive tcp:0.0.0.0:23102"
expect "the first L1 waits" says a 'L2: waiting for a guest'
expect "it goes back" "$build/godwit" migrate "$work/host.qmp" tcp:10.77.0.2:23102 --downtime-limit 2s \
	--verify
expect "L2 works where it began" says a 'L2: t=[0-9.]* pages=.* cpus=' 3
expect "it never found an error" no_errors
grep -h 't=[0-9.]* pages=' "$work/a.log" | tail -n 1 | sed 's/^/    /'
report_end
