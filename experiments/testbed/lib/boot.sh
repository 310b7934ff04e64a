# shellcheck shell=bash
# shellcheck disable=SC2154,SC2034 # the caller has or uses these, as said below
# Runs the testbed host, an AMD under QEMU or an Intel under Bochs (bochs.sh), and follows it.
# Sourced after common.sh.
#
# The caller sets `work` (private temporary folder), `packages`, `memory`, `log`, `cpu`.
# `emulator_pid` is the running emulator, if any; `followers` copy its output to ours and
# end by themselves when it has.

emulator_pid=''
followers=()

# twice_tsc_khz: TCG's TSC is this machine's, and BogoMIPS is twice its frequency. Left to itself the kernel
# measures it while it boots, and where others use the processor it is off by up to a factor of seven: then all
# time limits in there are, too, and two hosts differ.
twice_tsc_khz() { sed -n '/^bogomips/ { s/.*: \([0-9]*\)\.\([0-9][0-9]\)$/\1\20/p; q }' /proc/cpuinfo; }

# qemu_compose MEMORY INITRAMFS APPEND [CPU]: QEMU's command into `qemu_words`. SVM needs nothing of the
# machine but the CPU; TCG has a thread for each CPU. The kernel is the uncompressed ELF (PVH): no
# decompression. The caller may set `processors` (1).
qemu_compose() {
	local khz threads=single
	((${processors:-1} == 1)) || threads=multi
	khz=$(twice_tsc_khz)
	# shellcheck disable=SC2054 # QEMU's commas
	qemu_words=(qemu-system-x86_64 -accel "tcg,thread=$threads,tb-size=512" -cpu "${4:-EPYC,+svm,+npt}"
		-smp "${processors:-1}" -m "$1" -M pc,usb=off -nodefaults -no-user-config -display none -no-reboot
		-rtc base=utc -kernel "$packages/vmlinux" -initrd "$2"
		-append "console=ttyS0 panic=-1 tsc=reliable no_timer_check${khz:+ tsc_early_khz=$((khz / 2))} $3")
}

qemu_start() {
	local append=$1
	shift
	qemu_compose "$memory" "$work/initramfs.cpio" "$append"
	# pdeathsig: QEMU must not outlive this script, however it ends. Without <&0 its input would
	# be empty.
	setpriv --pdeathsig KILL "${qemu_words[@]}" -serial "file:$log" "$@" <&0 &
	emulator_pid=$!
}

emulator_stop() {
	[[ -n $emulator_pid ]] || return 0
	kill "$emulator_pid" 2>/dev/null || true
	wait "$emulator_pid" 2>/dev/null || true
	emulator_pid=
}

# boot_abandon: for an early end; output still on its way is dropped.
boot_abandon() {
	((${#followers[@]} == 0)) || kill "${followers[@]}" 2>/dev/null || true
	emulator_stop
	((${#followers[@]} == 0)) || wait "${followers[@]}" 2>/dev/null || true
}

emulator_running() { kill -0 "$emulator_pid" 2>/dev/null; }

# The ports are files, not pipes, so that a slow reader of our output can neither
# stall the machine nor lose bytes when it ends.
boot_job() {
	local n
	mkfifo "$work/control"
	exec {control}<>"$work/control"
	for n in 2 3 4; do
		: >"$work/port$n"
	done
	case $cpu in
	amd) qemu_start_job >"$work/emulator.log" 2>&1 </dev/null ;;
	intel) bochs_start "quiet rdinit=/init" ;;
	esac
	follow "$work/port2" &
	followers=($!)
	follow "$work/port3" >&2 &
	followers+=($!)
}

qemu_start_job() {
	local n ports=(-device virtio-serial-pci)
	ports+=(-chardev "file,id=p1,path=$work/control"
		-device "virtserialport,nr=1,chardev=p1,name=org.godwit.control")
	for n in 2 3 4; do
		ports+=(-chardev "file,id=p$n,path=$work/port$n"
			-device "virtserialport,nr=$n,chardev=p$n,name=org.godwit.port$n")
	done
	qemu_start "quiet rdinit=/init" "${ports[@]}"
}

# follow FILE: what arrives there, until the emulator ends; without Bochs' padding.
follow() {
	local unpad=(cat)
	# By lines, or what was said last is lost when the time is over.
	[[ $cpu != intel ]] || unpad=(stdbuf -oL tr -d '\0')
	tail -c +1 -f -s 0.05 --pid="$emulator_pid" "$1" 2>/dev/null | "${unpad[@]}"
}

# control_read SECONDS: one line of the control port into `reply`. Fails when QEMU
# is gone (status 1) or the time is over (status 2).
control_read() {
	local deadline=$((SECONDS + $1)) part
	reply=
	while ((SECONDS <= deadline)); do
		if IFS= read -r -t 1 -u "$control" part; then
			reply+=$part
			[[ -z $reply ]] || return 0
			continue
		fi
		reply+=$part # the second is over in the middle of a line
		emulator_running || return 1
	done
	return 2
}

# ports_drain OUT ERR TAR: waits until the ports' files have the bytes that the
# machine says it wrote.
ports_drain() {
	local want=("$@") n have end=$((SECONDS + 40)) # it goes on for a minute
	for n in 2 3 4; do
		until have=$(stat -c %s "$work/port$n") && ((have >= want[n - 2])); do
			if ((SECONDS >= end)) || ! emulator_running; then
				say "warning: output lost: $have of ${want[n - 2]} bytes of port $n arrived"
				break
			fi
			sleep 0.02
		done
	done
}

# boot_failed REASON: explains with the kernel's last words, then exits 125.
boot_failed() {
	emulator_stop
	say "$1; the end of its kernel log (--log FILE keeps it whole):"
	tail -n 80 "$log" 2>/dev/null | tr -d '\r' | sed 's/^/    /' >&2
	sed "/TCG doesn't support requested feature/d; s/^/    /" "$work/emulator.log" >&2
	exit 125
}
