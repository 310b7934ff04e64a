#!/usr/bin/env bash
# A Debian server moves between two hosts while clients on a third point use it: with a disk that both
# hosts see, as a block device (shared: there are no locks between hosts) and as a file on NFS (nfs: with
# locks, and a stranger who tries all the time), and with one that is copied; there and back. What the
# clients noticed is in one table with what the VMM claims.
#
# Runs on this machine: tests/testbed/two_hosts.sh [--rounds N] [--kind shared|nfs|copied]
# Prints "ok NAME" or "FAIL NAME" for each thing it looks at.
# shellcheck source-path=SCRIPTDIR disable=SC2317 # expect calls most functions
set -uo pipefail
# shellcheck source=../../scripts/common.sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../../scripts/common.sh"
# shellcheck source=report.sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/report.sh"
work_begin
# shellcheck source=../../experiments/testbed/lib/server.sh
source "$root/experiments/testbed/lib/server.sh"
# shellcheck source=../../experiments/testbed/lib/nfs.sh
source "$root/experiments/testbed/lib/nfs.sh"

rounds=1 kinds=(shared nfs copied)
begin=$SECONDS
while (($# > 0)); do
	case $1 in
	--rounds) rounds=$2 ;;
	--kind) kinds=("$2") ;;
	*) die 2 "unknown '$1': there are --rounds N and --kind shared|nfs|copied" ;;
	esac
	shift 2
done

readonly kernel_complaints='clocksource|rcu|hung_task|blocked for|I/O error|EXT4-fs|lockup|BUG|WARNING'

# json FIELD: a number of the last migration's report.
json() { sed -n "s/.*\"$1\": *\([0-9]*\).*/\1/p" "$work/report" | sed -n 1p; }

ms() { awk -v ns="${1:-0}" 'BEGIN { printf "%.1f", ns / 1e6 }'; }

# move FROM TO DISK: DISK is the path on TO.
move() {
	local from=$1 to=$2 disk=$3 words=()
	[[ $kind != copied ]] || words=(--copy-disks all)
	receiver "$to" "$disk" || return 1
	watch_begin
	bed run --timeout 400 "$from" -- "$host_program" migrate /tmp/vm.qmp \
		"tcp:$to:$migration_port" --json "${words[@]}" >"$work/report" 2>"$work/error" || {
		cat "$work/error" >&2
		return 1
	}
	watch_end || return 1
	printf '%-7s %s to %s %9s %8s %8s %8s %5s/%s\n' "$kind" "$from" "$to" \
		"$(ms "$(json total_ns)")" "$(ms "$(json downtime_ns)")" "$(value echo longest_gap_ms)" \
		"$(value ask longest_gap_ms)" "$(value echo lost)" "$(value echo sent)" >>"$work/table"
	[[ $(ended "$from") == 0 ]] || return 1
	[[ $kind != copied ]] || bed run "$from" -- rm "$disk" # an old copy now
	[[ $kind != nfs ]] || locked_on "$from" "$disk"
}

# stays: what the clients notice when nothing moves.
stays() {
	watch_begin
	sleep 5
	watch_end || return 1
	printf '%-7s %-8s %9s %8s %8s %8s %5s/%s\n' "$kind" stays - - "$(value echo longest_gap_ms)" \
		"$(value ask longest_gap_ms)" "$(value echo lost)" "$(value echo sent)" >>"$work/table"
}

round_trip() { move a b "$1" && move b a "$1"; }

# Seconds in which something came.
nr_streaming() { grep 'bits/sec' "$work/iperf" | grep -vc ' 0.00 bits/sec'; }

still_streaming() {
	local before end=$((SECONDS + 60))
	before=$(nr_streaming)
	until (($(nr_streaming) > before)); do
		((SECONDS < end)) && kill -0 "${talkers[iperf]}" || return 1
		sleep 0.2
	done
}

on_failure() { tail -n 15 "$work"/*.errors "$work/error" "$work/iperf" >&2; }

# ---- Locks ----

readonly in_use='is in use by a process of another user or of another host'

# locked_on HOST DISK: a VMM there cannot have it.
locked_on() {
	bed run --timeout 20 "$1" -- "$host_program" run --kernel /guest/vmlinuz --disk "$2" \
		--serial null 2>"$work/error" && return 1
	grep -q "$in_use" "$work/error"
}

# On a third host, again and again: what it was told is in $work/stranger.
stranger_begin() {
	# shellcheck disable=SC2016 # for the shell over there
	talk stranger sh -c 'while :; do timeout 5 "$@" 2>&1; echo "status $?"; sleep 0.1; done' sh \
		"$host_program" run --kernel /guest/vmlinuz --disk "$1" --serial null
}

# It was refused each time, and tried often enough.
stranger_stayed_out() {
	hush stranger
	! grep -vE "$in_use|^status 1$" "$work/stranger" &&
		(($(grep -c "$in_use" "$work/stranger") > 10 * rounds))
}

# ---- A trial ----

# disk_of KIND: where both hosts, or a, have it. Only a file has holes to leave out when it is copied.
disk_of() {
	[[ $1 == shared ]] && echo /dev/vda,lock=off && return
	bed run --timeout 200 a -- gnu-cp --sparse=always /dev/vda /scratch/vm.raw || return 1
	[[ $1 == copied ]] && echo /scratch/vm.raw && return
	nfs_share a /scratch && nfs_mount a a /shared && nfs_mount b a /shared &&
		nfs_mount client a /shared && echo /shared/vm.raw
}

# trial KIND: from power on to power off.
trial() {
	local kind=$1 round disk nr_lines
	disk=$(disk_of "$kind")
	expect "$kind: Debian's redis serves on host a" server_start a "$disk"
	((nr_failed == 0)) || return
	nr_lines=$(guest 'dmesg | wc -l')
	# In small pieces: one of iperf3's usual 128 KiB keeps this server's processor for 400 ms.
	talk iperf iperf3 -c "$address" -R -b 500K -l 1400 -t 86400 -i 1 --forceflush
	talk writer /guest/writer write "$address" 6379 86400 "/tmp/journal.$kind"
	expect "$kind: its clients are served" stays
	if [[ $kind == nfs ]]; then
		expect "$kind: the other host cannot open its disk" locked_on b "$disk"
		stranger_begin "$disk"
	fi
	for ((round = 1; round <= rounds && nr_failed == 0; round++)); do
		expect "$kind: round trip $round" round_trip "$disk"
		say "after $((SECONDS - begin)) s"
	done
	expect "$kind: the iperf3 stream flows on its connection" still_streaming
	expect "$kind: redis' client kept its connection" hush writer
	hush iperf
	expect "$kind: no acknowledged write is lost" bed run --timeout 300 client -- \
		/guest/writer check "$address" 6379 "/tmp/journal.$kind"
	[[ $kind != nfs ]] ||
		expect "$kind: at no time could a third host open its disk" stranger_stayed_out
	guest "dmesg | tail -n +$((nr_lines + 1))" >"$work/dmesg"
	expect "$kind: the guest's kernel complains of nothing" \
		not grep -iE "$kernel_complaints" "$work/dmesg"
	guest 'server-init stop >/dev/null 2>&1 &' >/dev/null
	expect "$kind: the server powers off" test "$(ended a)" = 0
	expect "$kind: its file system is clean" bed run a -- e2fsck -fn "${disk%,lock=off}"
	cat "$work/writer" "$work/dmesg"
}

# For each kind, of all its moves: columns 5 to 8 of the table.
medians() {
	local which column
	for which in "${kinds[@]}"; do
		printf '%-7s %-8s' "$which" median
		for column in 5 6 7 8; do
			awk -v kind="$which" -v c="$column" '$1 == kind && $3 == "to" { print $c }' "$work/table" |
				sort -n | awk -v w=$((column == 5 ? 10 : 9)) '{ v[NR] = $1 }
					END { printf "%*s", w, NR ? (v[int((NR + 1) / 2)] + v[int(NR / 2) + 1]) / 2 : "-" }'
		done
		echo
	done
}

expect "two hosts and a client start" server_bed --program e2fsck --file /bin/cp:/usr/bin/gnu-cp \
	"${nfs_options[@]}"
for kind in "${kinds[@]}"; do
	((nr_failed > 0)) || trial "$kind"
done
printf '\ndisk    move     total ms  claimed     echo  request  lost  (longest gaps, ms; each is sent every %s and %s ms)\n' \
	"$echo_ms" "$ask_ms"
cat "$work/table"
medians
report_end
