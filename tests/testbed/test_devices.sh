#!/usr/bin/env bash
# What kvm-unit-tests use of the machine, tried out by images of our own (tests/multiboot): where
# those are linked to, with one CPU and with several, and how they end. Runs in the testbed host.
# shellcheck source-path=SCRIPTDIR
set -uo pipefail
# shellcheck source=../../scripts/common.sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../../scripts/common.sh"
# shellcheck source=report.sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/report.sh"

images=$root/build/release/tests/multiboot

work_begin
# shellcheck disable=SC2317 # called by expect
on_failure() { cat "$work/output" >&2; }

# run IMAGE OPTION...: its output in $work/output, its exit status is the result.
run() {
	timeout 60 "$root/build/release/godwit" run --kernel "$images/multiboot_$1.elf" --memory 64M \
		--serial stdio "${@:2}" </dev/null >"$work/output" 2>&1
}

# shellcheck disable=SC2317 # called by expect
ends_with() {
	local status=$1
	shift
	run "$@"
	(($? == status))
}

# all_pass NAME-OF-RUN IMAGE OPTION...: each check of the image is a test of its own.
all_pass() {
	local what=$1 status line
	shift
	run "$@" --test-devices
	status=$?
	while read -r line; do
		expect "$what: ${line#* }" test "${line%% *}" = ok
	done < <(tr -d '\r' <"$work/output" | grep -E '^(ok|FAIL) ')
	expect "$what ends with status 1" test $status = 1
	expect "$what is complete" grep -q '^ok hpet' "$work/output"
}

printf 'NR_CPUS=3\n' >"$work/environment"
all_pass "at 4 MiB, 1 CPU" checks
all_pass "at 4 MiB, 3 CPUs, a module" checks --cpus 3 --initrd "$work/environment"
all_pass "at 32 KiB, 2 CPUs" checks_low --cpus 2
expect "exit status 7 arrives as 15" ends_with 15 checks --append 'exit=7' --test-devices
expect "Shutdown powers off" ends_with 0 checks --append shutdown --test-devices
expect "a reset boots the image again" ends_with 1 checks --append 'reset exit=0' --test-devices
expect "and it says so" grep -q '^ok reset' "$work/output"
expect "S3 lasts until the clock's alarm, and wakes where the FACS says" ends_with 7 checks --append sleep --test-devices
expect "also with several CPUs" ends_with 7 checks --append sleep --test-devices --cpus 3
expect "without --test-devices there is no sleep" ends_with 199 checks --append sleep --debug-exit
expect "without --test-devices there is no fw_cfg" ends_with 3 checks --append fw-cfg --debug-exit
expect "nor an echo port" ends_with 3 checks --append echo-port --debug-exit
expect "nor its memory" ends_with 3 checks --append test-memory --debug-exit
report_end
