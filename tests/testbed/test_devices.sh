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

# experiments/kvm-unit-tests/run on a suite of our own: what it runs, and what it leaves out and why.
mkdir "$work/suite"
cp "$images"/multiboot_checks.elf "$work/suite/checks.flat"
cat >"$work/suite/unittests.cfg" <<'END'
[seven]
file = checks.flat
smp = 2
test_args = 'exit=7'
qemu_params = -cpu max,-x2apic,+svm,host-phys-bits -m 64
arch = x86_64

[passes]
file = checks.flat
extra_params = -append "exit=`echo 0`" -m 64
timeout = 60s

[other-bits]
file = checks.flat
arch = i386

[checked]
file = checks.flat
check = /proc/sys/kernel/ostype=Plan9

[absent]
file = absent.flat

[by-name]
file = checks.flat
groups = long nodefault
test_args = 'exit=0'

[hyperv]
file = checks.flat
extra_params = -cpu host,hv_passthrough

[iommu]
file = checks.flat
qemu_params = -M q35,kernel-irqchip=split -device intel-iommu

[sparse]
file = checks.flat
smp = 1,maxcpus=256
END
suite() {
	timeout 120 "$root/experiments/kvm-unit-tests/run" --only godwit "$@" "$work/suite" >"$work/rows" 2>&1
	cp "$work/rows" "$work/output"
}
# shellcheck disable=SC2317 # called by expect
row() { grep "^$1 " "$work/rows" | grep -qF -- "$2"; }
suite
expect "a suite's test that fails" row seven "FAIL(15)"
expect "a suite's test that passes" row passes "PASS"
expect "left out: built for another CPU" row other-bits "SKIP: i386 only"
expect "left out: a check of the suite's" row checked "SKIP: /proc/sys/kernel/ostype is not Plan9"
expect "left out: not built" row absent "SKIP: no absent.flat here"
expect "left out: by name only" row by-name "SKIP: not by default"
expect "left out: Hyper-V" row hyperv "SKIP: Godwit has no Hyper-V's interfaces (hv_passthrough)"
expect "left out: another machine" row iommu "SKIP: Godwit has no -machine q35"
expect "left out: more CPUs than it begins with" row sparse "SKIP: Godwit has no -smp 1,maxcpus=256"
expect "counted" grep -q '^2 run, 7 left out$' "$work/rows"
suite --group long
expect "a group's tests run" row by-name "PASS"
suite --print
expect "a test's command line is printed" row seven "--cpus 2 --cpu host,-x2apic --nested on"
expect "one that it has not is not left out in silence" grep -q "has no test 'seventh'" \
	<("$root/experiments/kvm-unit-tests/run" --print "$work/suite" seventh 2>&1)
report_end
