#!/usr/bin/env bash
# A Debian server is on its way from one host to another when the cable is cut, the destination loses
# its power or the source does, in each phase: it runs on exactly one side, or nowhere when that host
# is gone, its disk has every acknowledged write, and the error says which side has it.
#
# Which phase is no matter of luck: both VMMs (tests/rig/held_vmm.c) hold where they are told to.
# Runs on this machine: tests/testbed/two_hosts_failures.sh [--harm cut|destination|source]... [PHASE]...
# shellcheck source-path=SCRIPTDIR disable=SC2317 # expect calls most functions
set -uo pipefail
# shellcheck source=../../scripts/common.sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../../scripts/common.sh"
# shellcheck source=report.sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/report.sh"
work_begin
# shellcheck source=../../experiments/testbed/lib/server.sh
source "$root/experiments/testbed/lib/server.sh"

phases=() harms=()
while (($# > 0)); do
	case $1 in
	--harm) harms+=("$2") && shift 2 ;;
	-*) die 2 "unknown '$1': there is --harm cut|destination|source" ;;
	*) phases+=("$1") && shift ;;
	esac
done
((${#harms[@]} > 0)) || harms=(cut destination source)
((${#phases[@]} > 0)) ||
	phases=(src.negotiate src.describe src.image src.disks src.precopy src.pause src.final_ram
		src.state dst.negotiate dst.describe dst.image dst.disk_piece dst.receive dst.load
		dst.ready src.commit src.committed)

readonly held="8>>/tmp/held 9<>/tmp/go build/release/tests/rig/godwit-held @/tmp/points 8:9"
server_program=$held receiver_program="$held --incoming"
readonly shared=/dev/vda,lock=off
from=a to=b

on_failure() { tail -n 20 "$work"/*.errors "$work/error" >&2; }

host_up() { host_tap "$1" && bed run "$1" -- mkfifo /tmp/go; }

# ---- A migration that holds ----

# depart PHASE: the migration, up to there; `holder` is the host whose VMM holds.
depart() {
	local disk=$shared words=()
	[[ $1 == src.* ]] && holder=$from || holder=$to
	if [[ $1 == src.disks || $1 == dst.disk_piece ]]; then
		disk=/scratch/vm.raw words=(--copy-disks all)
	fi
	receiver "$to" "$disk" || return 1
	# shellcheck disable=SC2016 # for the shell over there
	bed run "$holder" -- sh -c ': >/tmp/held; echo "$1" >/tmp/points' sh "$1"
	bed run --timeout 400 "$from" -- "$host_program" migrate /tmp/vm.qmp "tcp:$to:$migration_port" \
		"${words[@]}" >/dev/null 2>"$work/error" &
	mover=$!
	bed run --timeout 200 "$holder" -- sh -c 'until grep -q . /tmp/held; do sleep 0.1; done'
}

# let_go: it goes on, and holds no more.
let_go() { bed run "$holder" -- sh -c 'rm /tmp/points; echo 1<>/tmp/go'; }

# ---- What there is to see afterwards ----

# The exit status of `godwit migrate` is $1 and it says $2.
source_says() {
	local status
	wait "$mover"
	status=$?
	sed 's/^/    /' "$work/error"
	((status == $1)) && { [[ -z $2 ]] || grep -q "$2" "$work/error"; }
}

has_it() { source_says 3 'the guest goes on at the source'; }
cannot_know() { source_says 5 'outcome unknown; this side stays paused'; }

# By src.committed the destination's answer has come; its VMM ends.
has_left() { source_says 0 '' && [[ $(ended "$from") == 0 ]]; }

status_is() {
	bed run "$1" -- "$host_program" ctl /tmp/vm.qmp query-status | grep -q "\"running\": $2"
}

# The server answers, and its VMM is that of host $1.
runs_on() { guest true && status_is "$1" true; }

comes_to() {
	# shellcheck disable=SC2016 # for the shell over there
	bed run --timeout 60 "$1" -- sh -c 'until "$1" ctl /tmp/vm.qmp query-status |
		grep -q "\"running\": true"; do sleep 0.1; done' sh "$host_program"
}

quit_on() { bed run "$1" -- "$host_program" ctl /tmp/vm.qmp quit >/dev/null && ended "$1" >/dev/null; }

# has_none PHASE: the destination gave up, and said so. One that nobody has spoken to waits on.
has_none() {
	if [[ $1 == src.negotiate ]]; then
		status_is "$to" false && quit_on "$to"
	else
		[[ $(ended "$to") == 3 ]]
	fi
}

# The user has looked: it does not run at the destination, and never will.
goes_on_when_told() {
	bed run "$from" -- "$host_program" ctl /tmp/vm.qmp cont x-godwit-force=true >/dev/null &&
		runs_on "$from"
}

swap() {
	local was=$from
	from=$to to=$was
}

# ---- The disk of a server whose host is gone ----

# Its client waits for ever for an answer.
drop_writer() {
	# shellcheck disable=SC2016 # for the shell over there
	bed run client -- sh -c 'kill -KILL $(cat /tmp/writer.pid)'
	wait "${talkers[writer]}"
}

repairs_itself() {
	e2fsck -fp "$work/guest/root.raw" >"$work/error"
	(($? <= 1)) && e2fsck -fn "$work/guest/root.raw" >"$work/error" 2>&1
}

nothing_lost() {
	bed run --timeout 300 client -- /guest/writer check "$address" 6379 /tmp/journal
}

# starts_again WHAT
starts_again() {
	drop_writer
	expect "$1: the disk repairs itself" repairs_itself
	expect "$1: the server starts again" server_start "$from" "$shared"
	expect "$1: no acknowledged write is lost" nothing_lost
	talk writer /guest/writer write "$address" 6379 86400 /tmp/journal
}

# ---- The harm ----

harm_cut() {
	local what="$1, cable cut"
	[[ $1 != src.committed ]] || comes_to "$to"
	bed cut "$from" "$to"
	let_go
	case $1 in
	src.commit)
		expect "$what: the source cannot know, and stays paused" cannot_know
		expect "$what: the guest does not run there" status_is "$from" false
		expect "$what: nor on the other host, which says so" has_none "$1"
		expect "$what: it goes on at the source when told to" goes_on_when_told
		;;
	src.committed)
		expect "$what: the source says that the guest has left" has_left
		expect "$what: it runs on the other host" runs_on "$to"
		swap
		;;
	*)
		expect "$what: the source says that it has the guest" has_it
		expect "$what: it runs there" runs_on "$from"
		expect "$what: and not on the other host, which says so" has_none "$1"
		;;
	esac
	bed restore
}

harm_destination() {
	local what="$1, destination dead"
	[[ $1 != src.committed ]] || comes_to "$to"
	bed kill "$to"
	[[ $holder == "$to" ]] || let_go
	case $1 in
	src.commit)
		expect "$what: the source cannot know, and stays paused" cannot_know
		expect "$what: it goes on there when told to" goes_on_when_told
		;;
	src.committed)
		expect "$what: the source says that the guest has left" has_left
		starts_again "$what"
		;;
	*)
		expect "$what: the source says that it has the guest" has_it
		expect "$what: it runs there" runs_on "$from"
		;;
	esac
	bed boot "$to" && host_up "$to"
}

harm_source() {
	local what="$1, source dead"
	[[ $1 != src.committed ]] || comes_to "$to"
	bed kill "$from"
	wait "$mover"
	[[ $holder == "$from" ]] || let_go
	if [[ $1 == src.committed ]]; then
		expect "$what: the guest runs on the other host" runs_on "$to"
		bed boot "$from" && host_up "$from"
		swap
		return
	fi
	expect "$what: the other host does not run what it has not got" has_none "$1"
	bed boot "$from" && host_up "$from"
	starts_again "$what"
}

expect "two hosts and a client start" server_bed --program e2fsck \
	--file "$root/build/release/tests/rig/godwit-held:build/release/tests/rig/godwit-held"
for host in a b; do
	bed run "$host" -- mkfifo /tmp/go
done
expect "Debian's redis serves on host a" server_start a "$shared"
((nr_failed == 0)) || report_end
talk writer /guest/writer write "$address" 6379 86400 /tmp/journal
for harm in "${harms[@]}"; do
	for phase in "${phases[@]}"; do
		expect "$phase: under way" depart "$phase"
		"harm_$harm" "$phase"
		((nr_failed == 0)) || report_end
	done
done
expect "redis' client kept its connection through what the guest lived through" hush writer
expect "no acknowledged write is lost" nothing_lost
guest 'server-init stop >/dev/null 2>&1 &' >/dev/null
expect "the server powers off" test "$(ended "$from")" = 0
expect "its file system is clean" bed run "$from" -- e2fsck -fn /dev/vda
report_end
