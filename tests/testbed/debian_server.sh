#!/usr/bin/env bash
# An unmodified Debian with systemd on a virtio disk: starts, lets root log in on the serial port,
# reboots and powers off when told to. Runs on this machine: tests/testbed/debian_server.sh
# shellcheck source-path=SCRIPTDIR disable=SC2317 # expect calls most functions
set -uo pipefail
# shellcheck source=../../scripts/common.sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../../scripts/common.sh"
# shellcheck source=report.sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/report.sh"
work_begin
# shellcheck source=../../experiments/testbed/lib/server.sh
source "$root/experiments/testbed/lib/server.sh"

on_failure() { bed run a -- tail -n 40 /tmp/vm.log >&2; }

# keys TEXT: types a line on the serial port. What was shown before does not count any more.
keys() {
	seen=$(bed run a -- sh -c 'wc -l </tmp/vm.log')
	bed run a -- sh -c "echo '$1' >/tmp/keys"
}

# shows PATTERN: the screen does, since the last line was typed.
shows() {
	# shellcheck disable=SC2016 # for the shell over there
	bed run --timeout 400 a -- sh -c 'until tail -n "+$1" /tmp/vm.log | grep -qE "$2"; do
		[ ! -e /tmp/vm.status ] || exit 1; sleep 0.5; done' sh $((seen + 1)) "$1"
}

log_in() {
	shows 'debian login:' && keys root && shows 'Password:' && keys godwit && shows 'root@debian:~#'
}

start() {
	# The pipe must always have a writer, or the first line would end it.
	bed run a -- mkfifo /tmp/keys
	vmm a "$host_program" run --kernel /guest/vmlinux --initrd /guest/initramfs.cpio --memory 512M \
		--append "'$(cat "$work/guest/cmdline")'" --disk /dev/vda --net tap:tap0 --serial stdio \
		'<>/tmp/keys'
}

seen=0
expect "hosts start" server_bed
expect "Debian starts" start
expect "root logs in on the serial port" log_in
keys 'systemctl is-active redis-server iperf3 | sort | uniq -c'
expect "its services run" shows '2 active'
keys reboot
expect "it reboots, and root logs in again" log_in
keys poweroff
expect "it powers off" test "$(ended a)" = 0
expect "its file system is clean" e2fsck -fn "$work/guest/root.raw"
report_end
