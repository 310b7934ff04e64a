#!/usr/bin/env bash
# A stock Debian kernel with a busy userspace is booted in one VMM, migrated over TCP to another,
# and must carry on: memory, clocks, timer, kernel log, power-off.
#
# Runs in the testbed host, with --verify: tests/testbed/linux_migration.sh GUEST-DIR [MIGRATE-OPTION]...
# Prints "ok NAME" or "FAIL NAME: why" for each thing it looks at.
# shellcheck source-path=SCRIPTDIR
set -uo pipefail
# shellcheck source=../../scripts/common.sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../../scripts/common.sh"
# shellcheck source=report.sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/report.sh"

guest=$1
shift
build=$root/build/release

start_vmm() {
	local name=$1
	shift
	mkfifo "$work/$name.keys"
	exec {keys}<>"$work/$name.keys"
	"$build/godwit" "$@" --serial stdio --qmp "unix:$work/$name.qmp" <"$work/$name.keys" \
		>"$work/$name.log" 2>&1 &
	pid=$!
	children+=("$pid")
}

# The value of field $2 in the last whole busy line of log $1.
busy_field() { grep 'real_drift_us=' "$work/$1.log" | tail -n 1 | sed -n "s/.*\b$2=\(-\?[0-9]*\).*/\1/p"; }

nr_busy() { grep -c 'real_drift_us=' "$work/$1.log"; }

work_begin
on_failure() { tail -n 25 "$work"/*.log >&2; }

start_vmm source run --kernel "$guest/vmlinux" --initrd "$guest/initramfs.cpio" \
	--append "$(cat "$guest/cmdline") busy.rate=100 busy.mem=16" --memory 256M
source_pid=$pid
expect "Linux boots and its userspace is busy" \
	wait_for 180 "$source_pid" "$work/source.log" 'busy t=[1-9][0-9]* '
start_vmm destination receive tcp:127.0.0.1:0
expect "the destination listens" \
	wait_for 30 "$pid" "$work/destination.log" '^waiting for a guest at'
uri=$(sed -n 's/^waiting for a guest at //p' "$work/destination.log")
"$build/godwit" migrate "$work/source.qmp" "$uri" --verify "$@" >"$work/report.log" 2>&1
status=$?
expect "the migration succeeds" test "$status" = 0
((status == 0)) || report_end
sed 's/^/    /' "$work/report.log"
wait "$source_pid"
expect "the emptied source ends by itself" test $? = 0

t=$(busy_field source t)
for ((i = 0; i < 600; i++)); do
	(($(nr_busy destination) >= 4)) && break
	sleep 0.1
done
expect "busy goes on" test "$(nr_busy destination)" -ge 4
grep 'real_drift_us=' "$work/destination.log" | tail -n 2 | sed 's/^/    /'
expect "its seconds go on counting" test "$(busy_field destination t)" -gt "${t:-0}"
expect "memory is right" test "$(busy_field destination mem_bad)" = 0
expect "memory is being checked" test "$(busy_field destination mem_ok)" -gt 0
expect "the clock never ran back" test "$(busy_field destination mono_back)" = 0
expect "the timer fires" test "$(busy_field destination timer)" -gt 0

printf 'check\n' >&"$keys"
wait_for 60 "$pid" "$work/destination.log" 'busy check pages='
expect "every page of the guest's own check" \
	grep -q 'busy check pages=[1-9][0-9]* bad=0' "$work/destination.log"
printf 'dmesg\n' >&"$keys"
wait_for 60 "$pid" "$work/destination.log" 'busy dmesg warnings='
expect "the kernel warns of nothing" grep -q 'busy dmesg warnings=0' "$work/destination.log"
printf 'poweroff\n' >&"$keys"
for ((i = 0; i < 300; i++)); do
	kill -0 "$pid" 2>/dev/null || break
	sleep 0.1
done
expect "the guest can power itself off" not kill -0 "$pid"
wait "$pid"
expect "the destination's exit status" test $? = 0
report_end
