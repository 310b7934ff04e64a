#!/usr/bin/env bash
# A guest is on its way between two hosts by RDMA when the cable is cut or the destination's process is killed, in each
# phase: the guest goes on at the source, the error says why in plain words, nothing is pinned a second later, no
# RDMA object is left on either side, and the next attempt works.
#
# Which phase is no matter of luck: the destination (tests/rig/held_vmm.c) holds there.
# Runs on this machine: tests/testbed/rdma_failures.sh [PHASE]...
# shellcheck source-path=SCRIPTDIR
# shellcheck disable=SC2317 # much is called by expect
set -uo pipefail
here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
# shellcheck source=../../scripts/common.sh
source "$here/../../scripts/common.sh"
# shellcheck source=report.sh
source "$here/report.sh"
# shellcheck source=rdma_pair.sh
source "$here/rdma_pair.sh"

phases=("$@")
((${#phases[@]} > 0)) ||
	phases=(dst.negotiate dst.describe dst.rdma_accept dst.rdma_pin dst.batch dst.load dst.ready)

# held PHASE: a destination on host $to that will stop there.
# shellcheck disable=SC2016
held() {
	on "$to" 'rm -f /tmp/held $work/held.qmp; : >/tmp/held; [[ -p /tmp/go ]] || mkfifo /tmp/go
		background held build/release/tests/rig/godwit-held '"$1"' 8:9 \
			--incoming rdma:'"$(address_of "$to")"':4444 --qmp unix:$work/held.qmp 8>/tmp/held 9<>/tmp/go
		wait_for 60 $pid $work/held.log "^waiting for"'
}

# depart PHASE: the migration, up to that phase.
depart() {
	held "$1" || return 1
	migrate "$from" "$guest" "$to" --streams 2 --rdma-pin 8M &
	mover=$!
	on "$to" 'within 100 grep -q . /tmp/held'
}

let_go() { on "$to" 'yes | head -c 4000 >/tmp/go'; }

fails() {
	local status=0
	wait "$mover" || status=$?
	sed 's/^/    /' "$work/report" | tail -n 2
	((status == 3)) && says 'the guest goes on at the source'
}

# An error that somebody can do something about, and not a number of a work request.
plain() { says 'error: .*[a-z]' && ! grep -qiE 'wrid|wr_id|status [0-9]+|0x[0-9a-f]' "$work/report"; }

# shellcheck disable=SC2016
destination_ended() { on "$to" 'within 60 eval "! kill -0 $(cat $work/held.pid) 2>/dev/null"'; }

# after WHAT: what holds after every failure.
after() {
	expect "$1: the source says that it has the guest" fails
	expect "$1: and why, in plain words" plain
	expect "$1: nothing is pinned a second later" unpinned_at_once
	expect "$1: the guest goes on" alive "$from" "$guest" '^t='
	expect "$1: the destination ends" destination_ended
	expect "$1: the source's RDMA objects are gone" objects_are "$from" "${base[$from]}"
	expect "$1: the destination's are, too" objects_are "$to" "${base[$to]}"
}

cut_in() {
	expect "$1: under way" depart "$1"
	bed cut a b
	let_go
	after "$1, cable cut"
	bed restore a b
}

# shellcheck disable=SC2016
kill_in() {
	expect "$1: under way" depart "$1"
	on "$to" 'kill -KILL $(cat $work/held.pid)'
	after "$1, destination killed"
}

# retry PHASE: it moves after all, and the next phase is tried in the other direction.
retry() {
	nr_moves=$((nr_moves + 1))
	receive "$to" "g$nr_moves"
	expect "$1: the next attempt works" migrate "$from" "$guest" "$to" --streams 2 --rdma-pin 8M --verify
	expect "$1: nothing is pinned at the source" unpinned_at_once
	guest=g$nr_moves swap=$from from=$to to=$swap
	expect "$1: the guest goes on" alive "$from" "$guest" '^t='
	expect "$1: every page is right" pages_right "$from" "$guest"
}

work_begin
on_failure() { pair_show; }
pair_start --memory 1G
declare -A base=([a]=$(objects a) [b]=$(objects b))
guest=g0 from=a to=b nr_moves=0
expect "the workload guest boots on a" boot_on a g0 "fill=32M ws=4M rate=500"
((nr_failed == 0)) || report_end
for phase in "${phases[@]}"; do
	cut_in "$phase"
	kill_in "$phase"
	retry "$phase"
done
report_end
