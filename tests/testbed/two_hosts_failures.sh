#!/usr/bin/env bash
# A Debian server is on its way from host a to host b when the cable is cut, host b loses its power or
# host a does, in each phase: it runs on exactly one side, or nowhere when that host is gone, its disk
# has every acknowledged write, and the error says which side has it.
#
# Which phase is no matter of luck: the VMM on host b (tests/rig/held_vmm.c) holds there.
# Runs on this machine: tests/testbed/two_hosts_failures.sh [PHASE]...
# shellcheck source-path=SCRIPTDIR disable=SC2317 # expect calls most functions
set -uo pipefail
# shellcheck source=../../scripts/common.sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../../scripts/common.sh"
# shellcheck source=report.sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/report.sh"
work_begin
# shellcheck source=../../experiments/testbed/lib/server.sh
source "$root/experiments/testbed/lib/server.sh"

phases=("$@")
((${#phases[@]} > 0)) ||
	phases=(dst.negotiate dst.describe dst.image dst.disk_piece dst.receive dst.load dst.ready)

on_failure() { cat "$work"/*.errors "$work/error" >&2; }

# held PHASE DISK: a receiver on host b that will stop there.
held() {
	bed run b -- sh -c 'rm -f /tmp/held; [ -p /tmp/go ] || mkfifo /tmp/go'
	vmm b build/release/tests/rig/godwit-held "$1" 8:9 receive "tcp:0.0.0.0:$migration_port" \
		/tmp/vm.qmp "$2" tap:tap0 '8>/tmp/held 9<>/tmp/go' && said b 30 '^waiting for a guest at'
}

# let_go: it goes on, from here to the end.
let_go() { bed run b -- sh -c 'yes | head -c 4000 >/tmp/go'; }

# depart PHASE: the migration, up to that phase.
depart() {
	local disk=/dev/vda,lock=off words=()
	[[ $1 != dst.disk* ]] || disk=/scratch/vm.raw words=(--copy-disks all)
	held "$1" "$disk" || return 1
	bed run --timeout 400 a -- "$host_program" migrate /tmp/vm.qmp "tcp:b:$migration_port" \
		"${words[@]}" >/dev/null 2>"$work/error" &
	mover=$!
	bed run --timeout 200 b -- sh -c 'until grep -q . /tmp/held; do sleep 0.1; done'
}

says_it_is_at_the_source() {
	wait "$mover"
	(($? == 3)) && grep -q 'the guest goes on at the source' "$work/error"
}

# The server answers, and its answers come from host a.
runs_on_a_only() {
	guest true && bed run a -- "$host_program" ctl /tmp/vm.qmp query-status | grep -q '"running": true'
}

gave_up_on_b() { [[ $(ended b) == 3 ]]; }

cut_in() {
	expect "$1: under way" depart "$1"
	bed cut a b
	let_go
	expect "$1, cable cut: the source says that it has the guest" says_it_is_at_the_source
	expect "$1, cable cut: it runs there" runs_on_a_only
	expect "$1, cable cut: and not on host b, which says so" gave_up_on_b
	sed 's/^/    /' "$work/error"
	bed restore
}

kill_b_in() {
	expect "$1: under way" depart "$1"
	bed kill b
	expect "$1, host b dead: the source says that it has the guest" says_it_is_at_the_source
	expect "$1, host b dead: it runs there" runs_on_a_only
	sed 's/^/    /' "$work/error"
	bed boot b && host_tap b
}

kill_a_in() {
	expect "$1: under way" depart "$1"
	bed kill a
	wait "$mover"
	let_go
	expect "$1, host a dead: host b does not run what it has not got" gave_up_on_b
}

# What redis has made durable is in its file of commands.
journal_is_on_disk() {
	bed get client /tmp/journal "$work"
	debugfs -R "rdump /var/lib/redis $work" "$work/guest/root.raw" 2>"$work/error"
	cat "$work"/redis/appendonlydir/*.aof | tr -d '\r' | sed -n 's/^key://p' | sort >"$work/durable"
	[[ -s $work/journal && -z $(sort "$work/journal" | comm -23 - "$work/durable") ]]
}

repairs_cleanly() {
	e2fsck -fp "$work/guest/root.raw" >"$work/error"
	(($? <= 1)) && e2fsck -fn "$work/guest/root.raw" >"$work/error" 2>&1
}

expect "two hosts and a client start" server_bed \
	--file "$root/build/release/tests/rig/godwit-held:build/release/tests/rig/godwit-held"
expect "Debian's redis serves on host a" server_start a /dev/vda,lock=off
((nr_failed == 0)) || report_end
talk writer /guest/writer write "$address" 6379 86400 /tmp/journal
for phase in "${phases[@]}"; do
	cut_in "$phase"
done
kill_b_in dst.receive
kill_b_in dst.ready
expect "redis' client kept its connection through all of it" hush writer
expect "no acknowledged write is lost" \
	bed run --timeout 300 client -- /guest/writer check "$address" 6379 /tmp/journal
talk writer /guest/writer write "$address" 6379 86400 /tmp/journal
kill_a_in dst.load
expect "the disk repairs itself" repairs_cleanly
expect "it has every acknowledged write" journal_is_on_disk
report_end
