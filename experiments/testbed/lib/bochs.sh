# shellcheck shell=bash
# shellcheck disable=SC2154,SC2034 # the caller has or uses these, as said below
# Runs the Intel testbed host under Bochs, the one emulator of Debian's that has VMX. Sourced after
# common.sh and boot.sh; the caller sets what boot.sh asks for.
#
# Four serial ports: the kernel's log, control, stdout, stderr; a disk takes the tar of /out. Bochs
# writes a port's file in blocks of 4 KiB, so the machine pads what must arrive now (see init).

# A Haswell, because kvm-intel wants EPT and unrestricted guests. Its TSC ticks once an instruction,
# and `ips` of them are a second to its timers, so a low rate shortens what the kernel waits for them.
readonly bochs_cpu='model=corei7_haswell_4770, count=1, ips=50000000, reset_on_triple_fault=0'
readonly bochs_disk_bytes=512M
readonly isolinux=/usr/lib/ISOLINUX/isolinux.bin ldlinux=/usr/lib/syslinux/modules/bios/ldlinux.c32

bochs_need_tools() {
	need_tools bochs-bin=bochs genisoimage=genisoimage gzip=gzip script=bsdutils setpriv=util-linux
	need_files "/usr/lib/x86_64-linux-gnu/bochs/plugins/libbx_term_gui.so=bochs-term" \
		"$isolinux=isolinux" "$ldlinux=syslinux-common" \
		/usr/share/bochs/BIOS-bochs-latest=bochsbios /usr/share/vgabios/vgabios.bin=vgabios
}

bochs_megabytes() {
	case $memory in
	*G) printf '%d' $((${memory%G} * 1024)) ;;
	*M) printf '%d' "${memory%M}" ;;
	esac
}

# bochs_cdrom APPEND: the kernel and the initramfs as a CD, Bochs' way to boot anything.
bochs_cdrom() {
	local cd=$work/cd
	mkdir "$cd"
	ln -s "$isolinux" "$ldlinux" "$packages/vmlinuz" "$cd/"
	gzip -1 <"$work/initramfs.cpio" >"$cd/initrd"
	rm "$work/initramfs.cpio"
	printf 'DEFAULT host\nPROMPT 0\nLABEL host\n KERNEL vmlinuz\n INITRD initrd\n APPEND %s\n' \
		"$1" >"$cd/isolinux.cfg"
	genisoimage -quiet -f -o "$work/cd.iso" -b isolinux.bin -c boot.cat -no-emul-boot \
		-boot-load-size 4 -boot-info-table "$cd" || die 125 "genisoimage cannot make the CD"
	rm -r "$cd"
}

bochs_configure() {
	local n
	cat <<END
megs: $(bochs_megabytes)
cpu: $bochs_cpu
romimage: file=/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=/usr/share/vgabios/vgabios.bin
pci: enabled=1, chipset=i440fx
ata0-master: type=cdrom, path=$work/cd.iso, status=inserted
ata1-master: type=disk, mode=flat, path=$work/port4
boot: cdrom
com1: enabled=1, mode=file, dev=$log
com2: enabled=1, mode=file, dev=$work/control
com3: enabled=1, mode=file, dev=$work/port2
com4: enabled=1, mode=file, dev=$work/port3
display_library: term
clock: sync=none, time0=utc
log: $work/emulator.log
panic: action=fatal
error: action=ignore
info: action=ignore
debug: action=ignore
END
}

# bochs_start APPEND: `reboot=t` makes a kernel that panics end Bochs, which takes no triple fault.
bochs_start() {
	truncate -s "$bochs_disk_bytes" "$work/port4"
	bochs_cdrom "console=ttyS0,115200 panic=-1 reboot=t $1"
	bochs_configure >"$work/bochsrc"
	# Its debugger is to continue, and to give up rather than ask when the machine stops.
	printf 'c\nq\n' >"$work/bochs.commands"
	# Its display wants a terminal; `script` is one. When that dies, Bochs is hung up on.
	TERM=xterm setpriv --pdeathsig KILL script -qec \
		"exec bochs-bin -q -f '$work/bochsrc' -rc '$work/bochs.commands'" /dev/null \
		>"$work/terminal.log" 2>&1 </dev/null &
	emulator_pid=$!
	bochs_drain_screen
}

# With a debugger Bochs shows the machine's screen on a terminal of its own, and stops for good when
# nobody reads there.
bochs_drain_screen() {
	local screen='' tries
	for ((tries = 0; tries < 100 && ${#screen} == 0; tries++)); do
		sleep 0.1
		screen=$(sed -n 's/^Bochs connected to screen "\(.*\)".*/\1/p' "$work/terminal.log" | tr -d '\r')
	done
	[[ -c $screen ]] || boot_failed "Bochs did not start: $(tail -n 3 "$work/terminal.log")"
	stty raw -echo <"$screen"
	cat "$screen" >/dev/null 2>&1 & # ends with Bochs
}
