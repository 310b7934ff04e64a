#!/usr/bin/env bash
# A stock Debian kernel with a busy userspace is booted in one VMM, migrated to another, and must carry on: memory,
# clocks, timer, kernel log, reboot, power-off.
#
# Runs in the testbed host, with --verify: tests/testbed/linux_migration.sh GUEST-DIR [MIGRATE-OPTION]...
# CPUS=N in the environment gives the guest N vCPUs (default 1), LISTEN=URI says how it goes (default over TCP;
# rdma:10.7.0.1:0 makes a soft-RoCE device for it: host run --rdma).
# Prints "ok NAME" or "FAIL NAME: why" for each thing it looks at.
# shellcheck source-path=SCRIPTDIR
set -uo pipefail
# shellcheck source=../../scripts/common.sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../../scripts/common.sh"
# shellcheck source=report.sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/report.sh"
# shellcheck source=vmm.sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/vmm.sh"

guest=$1
shift
build=$root/build/release
cpus=${CPUS:-1}
listen=${LISTEN:-tcp:127.0.0.1:0}

# The value of field $2 in the last whole busy line of log $1.
busy_field() { grep 'real_drift_us=' "$work/$1.log" | tail -n 1 | sed -n "s/.*\b$2=\(-\?[0-9]*\).*/\1/p"; }

nr_busy() { grep -c 'real_drift_us=' "$work/$1.log"; }

# shellcheck disable=SC2317 # called through expect, as ask_clock is
# The next line with "busy clock" in log descriptor $answers, in `answer`. `read` hands over half a
# line, too, when no more has come yet. Nothing is forked: that would be measured along.
next_answer() {
	local end=$((SECONDS + 30)) part
	answer=
	while ((SECONDS < end)); do
		IFS= read -r part <&"$answers" && {
			answer+=$part
			[[ $answer == *'busy clock real_us='* ]] && return
			answer=
			continue
		}
		answer+=$part
		read -r -t 0.002 <&"$never"
	done
	return 1
}

# shellcheck disable=SC2317
# The guest's CLOCK_REALTIME is ahead of this host's by clock_low to clock_high us: between asking
# and having the answer, at the best of a few attempts. For log $1.
ask_clock() {
	local asked answered guest_us answer answers i
	clock_low=0 clock_high=1000000000
	for ((i = 0; i < 8; i++)); do
		exec {answers}<"$work/$1.log"
		while read -r <&"$answers"; do :; done
		asked=${EPOCHREALTIME/./}
		printf 'clock\n' >&"$keys"
		next_answer || return 1
		answered=${EPOCHREALTIME/./}
		exec {answers}<&-
		guest_us=${answer#*real_us=}
		guest_us=${guest_us%$'\r'}
		((answered - asked < clock_high - clock_low)) || continue
		clock_low=$((guest_us - answered)) clock_high=$((guest_us - asked))
	done
	echo "    the guest's clock is ${clock_low} to ${clock_high} us ahead of the host's"
}

# By how many us the clock that was $1 to $2 ahead, and is now clock_low to clock_high, has moved at
# least.
clock_moved() {
	local forth=$((clock_low - $2)) back=$(($1 - clock_high)) least
	least=$((forth > back ? forth : back))
	echo $((least > 0 ? least : 0))
}

# What the report in file $1 calls the claimed downtime, in us.
claimed_us() {
	awk 'BEGIN { us["ns"] = 0.001; us["us"] = 1; us["ms"] = 1000; us["s"] = 1000000 }
		/claimed/ { for (i = 1; i < NF; i++) if ($i == "claimed")
			printf "%d\n", $(i + 1) * us[$(i + 2)] }' "$1"
}

work_begin
mkfifo "$work/never"
exec {never}<>"$work/never"
on_failure() { tail -n 25 "$work"/*.log >&2; }

if [[ $listen == rdma:* ]]; then
	# shellcheck source=rdma_host.sh
	source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/rdma_host.sh"
	expect "a soft-RoCE device" device_alone
fi
start_vmm source run --serial stdio --kernel "$guest/vmlinux" --initrd "$guest/initramfs.cpio" \
	--append "$(cat "$guest/cmdline") busy.rate=100 busy.mem=16" --memory 256M \
	--cpus "$cpus"
source_pid=$pid
expect "Linux boots and its userspace is busy" \
	wait_for 180 "$source_pid" "$work/source.log" 'busy t=[1-9][0-9]* '
expect "Linux uses every CPU" grep -q "busy start .*cpus=$cpus\b" "$work/source.log"
expect "it says what time it is" ask_clock source
low=$clock_low high=$clock_high
start_vmm destination receive --serial stdio "$listen"
uri=$(listening destination)
expect "the destination listens" test -n "$uri"
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
expect "it says what time it is, too" ask_clock destination
moved_us=$(clock_moved "$low" "$high") blackout_us=$(claimed_us "$work/report.log")
echo "    CLOCK_REALTIME moved by at least $moved_us us in a blackout of $blackout_us us"
expect "CLOCK_REALTIME is right within the blackout" test "$moved_us" -le "${blackout_us:-0}"
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
nr=$(grep -c 'busy start' "$work/destination.log")
printf 'reboot\n' >&"$keys"
expect "the guest can reboot itself, without files here" \
	wait_for 180 "$pid" "$work/destination.log" 'guest init uptime='
for ((i = 0; i < 600; i++)); do
	(($(grep -c 'busy start' "$work/destination.log") > nr)) && break
	sleep 0.1
done
printf 'poweroff\n' >&"$keys"
for ((i = 0; i < 300; i++)); do
	kill -0 "$pid" 2>/dev/null || break
	sleep 0.1
done
expect "the guest can power itself off" not kill -0 "$pid"
wait "$pid"
expect "the destination's exit status" test $? = 0
report_end
