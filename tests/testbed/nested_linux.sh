#!/usr/bin/env bash
# Stock Linux as the hypervisor: it runs the workload guest in a godwit of its own, or in QEMU, and is
# migrated with it. Runs in the testbed host: tests/testbed/nested_linux.sh GUEST-DIR [MIGRATIONS]
# GUEST-DIR: what experiments/testbed/linux-guest/build-guest --hypervisor has built.
# In the environment: PATIENCE, how long L1 may take to start, and to show life after a migration;
# MOVE_SECONDS, how long a migration may take with that.
# shellcheck source-path=SCRIPTDIR
set -uo pipefail
# shellcheck source=../../scripts/common.sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../../scripts/common.sh"
# shellcheck source=report.sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/report.sh"

(($# > 0)) || die 2 "which guest? Write the folder that experiments/testbed/linux-guest/build-guest --hypervisor has built"
guest=$1
count=${2:-2}
patience=${PATIENCE:-180s}
move_seconds=${MOVE_SECONDS:-30}
append="$(cat "$guest/cmdline") busy.mem=4 busy.rate=20 l2.fill=1M l2.ws=256K l2.rate=50"

# soak VMM COUNT OPTION...: L1's guest is in VMM.
# shellcheck disable=SC2317 # called by expect
soak() {
	timeout $((${patience%s} + 20 + move_seconds * $2)) "$root/build/release/godwit" nested soak --count "$2" \
		--kernel "$guest/vmlinux" --initrd "$guest/initramfs.cpio" --memory 384M --lines \
		--append "$append l1.vmm=$1" --serial "$work/serial" --patience "$patience" "${@:3}" \
		>"$work/output" 2>&1
}

# Its own counters: at the end no page of L1 or L2 was ever wrong and both have gone on.
last() { tr -d '\r' <"$work/serial" | grep -E "^$1.* $2=" | tail -n 1 | sed -n "s/.* $2=\([0-9]*\).*/\1/p"; }

# shellcheck disable=SC2317 # called by expect
on_failure() { tail -n 20 "$work/output" "$work/serial" >&2; }

work_begin
for how in "godwit $count --over tcp" "qemu $(((count + 1) / 2)) --over unix"; do
	read -ra how <<<"$how"
	: >"$work/serial"
	expect "a Linux with a guest in ${how[0]} moves, ${how[1]} times" soak "${how[@]}"
	sed -n '/^$/,$p' "$work/output" | sed 's/^/    /'
	expect "memory of L1 is right, under ${how[0]}" test "$(last 'L1: busy' mem_bad)" = 0
	expect "the clock of L1 never ran back, under ${how[0]}" test "$(last 'L1: busy' mono_back)" = 0
	expect "memory of L2 is right, in ${how[0]}" test "$(last 'L2: t=' errors)" = 0
	expect "L2 has worked, in ${how[0]}" test "$(last 'L2: t=' pages)" -gt 256
done
report_end
