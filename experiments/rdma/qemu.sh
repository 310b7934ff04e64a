# shellcheck shell=bash
# shellcheck disable=SC2154,SC2034 # root, work, children and guest_mib are the caller's; it uses the rest
# QEMU as the peer: VMMs with the same guest, told what to do through a named pipe that is their monitor. Sourced
# where they run, after scripts/common.sh, tests/testbed/rdma_host.sh and table.sh.

# qemu_start NAME [OPTION]...: one in the background: `pid`. It holds its monitor's pipe open at both ends.
qemu_start() {
	local name=$1
	shift
	mkfifo "$work/$name.monitor"
	setsid qemu-system-x86_64 -M microvm,x-option-roms=off,isa-serial=on,acpi=off -accel kvm -cpu host -nodefaults \
		-no-user-config -display none -m 384M -L /usr/share/qemu \
		-kernel "$root/build/release/experiments/guest/workload.elf" -append "fill=${guest_mib}M ws=0" \
		-serial "file:$work/$name.serial" -monitor stdio "$@" <>"$work/$name.monitor" \
		>"$work/$name.out" 2>"$work/$name.errors" &
	pid=$!
	children+=("$pid")
	echo "$pid" >"$work/$name.pid"
}

qemu_tell() { printf '%s\n' "${@:2}" >"$work/$1.monitor"; }

# qemu_boot NAME: the guest, working.
qemu_boot() {
	qemu_start "$1"
	wait_for 120 "$pid" "$work/$1.serial" '^t=' || echo "its guest does not work" >&2
}

qemu_listens() { rdma resource show cm_id 2>/dev/null | grep -q LISTEN; }

# qemu_await NAME ADDRESS ALL: a destination that listens, with the capability rdma-pin-all on or off.
qemu_await() {
	qemu_start "$1" -incoming defer
	qemu_tell "$1" "migrate_set_capability rdma-pin-all $3" "migrate_incoming rdma:$2:4444"
	within 30 qemu_listens || echo "the destination does not listen" >&2
}

# qemu_ended NAME: its migration has, either way, or its process.
qemu_ended() {
	: >"$work/$1.out"
	qemu_tell "$1" 'info migrate'
	sleep 1
	grep -aqE 'Migration status: (completed|failed)' "$work/$1.out" || ! kill -0 "$(cat "$work/$1.pid")" 2>/dev/null
}

# What `info migrate` calls WHAT, of NAME: a number.
qemu_says() { tr -d '\r' <"$work/$2.out" | sed -n "s/.*$1: \([0-9]*\).*/\1/p" | tail -n 1; }

# qemu_move NAME ADDRESS ALL: moves the paused guest; "MB/s CPU-ms/GiB of the source, of the machine; -; ms in all",
# by what QEMU says that it has transferred and how long it took. What went wrong, and what it wrote, to stderr.
qemu_move() {
	local before all source_pid
	source_pid=$(cat "$work/$1.pid")
	qemu_tell "$1" stop
	before=$(cpu_of "$source_pid") all=$(cpu_of_all)
	qemu_tell "$1" "migrate_set_capability rdma-pin-all $3" 'migrate_set_parameter max-bandwidth 10G' \
		"migrate -d rdma:$2:4444"
	within 240 qemu_ended "$1" || echo "it does not end" >&2
	before=$(($(cpu_of "$source_pid") - before)) all=$(($(cpu_of_all) - all))
	tr -d '\r' <"$work/$1.out" | grep -aE 'status: failed' >&2
	sed "s/^/  $1 says: /" "$work/$1.errors" >&2
	awk -v kib="$(qemu_says 'transferred ram' "$1")" -v ms="$(qemu_says 'total time' "$1")" \
		-v cpu="$before" -v all="$all" 'BEGIN {
			if (kib + 0 == 0 || ms + 0 == 0) exit
			gib = kib / 1048576
			printf "%.1f %.0f %.0f - %d\n", kib * 1.024 / ms, cpu * 10 / gib, all * 10 / gib, ms
		}'
}

qemu_end() { kill -KILL "$(cat "$work/$1.pid")" 2>/dev/null; }
