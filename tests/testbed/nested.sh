#!/usr/bin/env bash
# Guests that are hypervisors: what the host offers, migrations with live L2s stopped at random
# points, and the exit table. Runs in the testbed host: tests/testbed/nested.sh [MIGRATIONS]
# In the environment: PATIENCE, how long one guest, or one table, may take.
# shellcheck source-path=SCRIPTDIR
set -uo pipefail
# shellcheck source=../../scripts/common.sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../../scripts/common.sh"
# shellcheck source=report.sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/report.sh"

count=${1:-8}
patience=${PATIENCE:-300s}
godwit=$root/build/release/godwit

work_begin
# shellcheck disable=SC2317 # called by expect
on_failure() { tail -n 40 "$work/output" >&2; }

# shellcheck disable=SC2317 # called by expect
run() { timeout 3000 "$godwit" nested "$@" >"$work/output" 2>&1; }

expect "guests can be hypervisors here" run probe
expect "migrations with live L2s: $count" run soak --count "$count" --patience "$patience"
sed -n '/^$/,$p' "$work/output" | sed 's/^/    /'
expect "more, by clear-log, shadow paging only" \
	run soak --count $((count / 2)) --patience "$patience" --dirty clear-log --seed 2 \
	--append "l1.mode=work l1.guests=2 l1.npt=0 fill=4M ws=1M rate=300 gap=1000 longgap=5000 quiet=1"
# A user's Ctrl-C.
# shellcheck disable=SC2317 # called by expect
interrupted() {
	local status=0 pid
	"$godwit" nested soak --count 1000000 --patience "$patience" >"$work/output" 2>&1 &
	pid=$!
	children+=("$pid")
	wait_for 300 "$pid" "$work/output" '^ *1 ' && kill -INT "$pid"
	wait "$pid" || status=$?
	((status == 4)) && grep -q 'error: .*interrupted' "$work/output" &&
		grep -q '^[0-9]* migrations\?: ' "$work/output"
}

# shellcheck disable=SC2317 # called by expect
labs_are_gone() { ! compgen -G '/tmp/godwit-lab.*' >&2; }

expect "one that is interrupted says so, and how far it came" interrupted
expect "and leaves nothing in /tmp" labs_are_gone
expect "no exit table for a file that cannot be written" \
	grep -q "/nowhere/x: No such file" <(run bench --save /nowhere/x; cat "$work/output")
expect "nor for a QEMU that is not there" grep -q "no such program" <(run bench --qemu /nowhere; cat "$work/output")
expect "the exit table, before and after a migration" run bench --rounds 64 --patience "$patience"
sed 's/^/    /' "$work/output"
expect "the table is whole" test "$(grep -cE '^  [a-z-]+ +[0-9]+ +[0-9]+ ' "$work/output")" = 18
# Column 6: exits of L0 for one of L2.
expect "an exit of L2 is several of L0" \
	grep -qE '^  cpuid( +[0-9.]+){4} +([2-9]|[1-9][0-9]+)\.' "$work/output"
report_end
