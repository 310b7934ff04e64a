#!/usr/bin/env bash
# The workload guest moves twice with each dirty tracker and codec, and every byte is checked.
# Runs in the testbed host.
# shellcheck source-path=SCRIPTDIR
set -uo pipefail
# shellcheck source=../../scripts/common.sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../../scripts/common.sh"
# shellcheck source=report.sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/report.sh"

work_begin
# shellcheck disable=SC2317 # called by expect
on_failure() { cat "$work/output" >&2; }

# shellcheck disable=SC2317 # called by expect
moves() {
	timeout 200 "$root/scripts/move-workload" --memory 128M --guest 'fill=32M ws=4M rate=500' \
		"$@" >"$work/output" 2>&1
}

expect "workload guest, tracker bitmap" moves --dirty bitmap
expect "workload guest, tracker clear-log, 2 channels, lz4" \
	moves --dirty clear-log --streams 2 --codec lz4
report_end
