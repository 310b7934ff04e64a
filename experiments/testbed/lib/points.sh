# shellcheck shell=bash
# shellcheck disable=SC2154,SC2034 # the caller has or uses these, as said below
# The points of a testbed network: which there are, what they boot, their processes. Sourced after
# common.sh, packages.sh, image.sh and boot.sh.
#
# `dir` is the testbed's folder:
#   points          a line each: NAME ADDRESS MAC MEMORY
#   disks, cpus     a line each: [NAME=]FILE, [NAME=]MODEL
#   net/            the switch: its sockets, pid, log
#   initramfs.cpio  what all points boot; line, operator, switch: programs for this side
#   NAME/           a point: commands (its operator's socket), pid, operator.pid, log (kernel),
#                   qemu.log, scratch.img
# The caller of points_define and points_build sets what start_defaults sets.

readonly point_modules=(virtio_net virtio_blk crc32c_generic ext4 bridge tun)
readonly nr_lines=8

# ---- Processes ----

# A pid in a file may have become somebody else's by now: the time of its start tells them apart.
start_time() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }

process_note() { printf '%s %s\n' "$1" "$(start_time "$1")" >"$2"; }

process_lives() {
	local pid born
	read -r pid born 2>/dev/null <"$1" && [[ -n $born && $(start_time "$pid") == "$born" ]]
}

end_process() {
	local pid
	process_lives "$1" || return 0
	read -r pid _ <"$1"
	kill -KILL "$pid" 2>/dev/null || true
	wait "$pid" 2>/dev/null || true # bash would report it else, where it is our child
	while process_lives "$1"; do
		sleep 0.02
	done
	rm -f "$1"
}

# ---- What there is ----

points_define() {
	local n name
	points=()
	for ((n = 1; n <= nr_hosts; n++)); do
		name=$(printf '%b' "\\x$(printf %x $((96 + n)))")
		points+=("$name")
		printf '%s 10.77.0.%d 52:54:00:77:00:%02x %s\n' "$name" "$n" "$n" "$memory"
	done >"$dir/points"
	if [[ $client == yes ]]; then
		points+=(client)
		echo "client 10.77.0.100 52:54:00:77:00:64 512M" >>"$dir/points"
	fi
	printf '%s\n' "${disks[@]}" >"$dir/disks"
	printf '%s\n' "${cpus[@]}" >"$dir/cpus"
}

compile() {
	local out=$1
	shift
	gcc -std=gnu17 -D_GNU_SOURCE -O2 -Wall -Wextra -o "$out" "$@" || die 125 "cannot build ${out##*/}"
}

points_build() {
	local stage=$dir/stage file name
	compile "$dir/line" "$testbed/line/line.c"
	compile "$dir/operator" "$testbed/line/operator.c"
	compile "$dir/switch" "$testbed"/net/{switch,path}.c
	[[ $rdma == no ]] || modules+=("${rdma_modules[@]}")
	stage_base "${point_modules[@]}" "${modules[@]}"
	[[ $rdma == no ]] || stage_rdma
	stage_tree "$whole_tree"
	stage_bash
	for file in "${files[@]}"; do
		stage_file "${file%%:*}" "$([[ $file == *:* ]] && printf '%s' "${file#*:}")"
	done
	for name in "${programs[@]}"; do
		stage_command "$name"
	done
	compile "$stage/bin/agent" -static "$testbed/line/agent.c"
	cp "$testbed/point-init" "$stage/etc/point"
	stage_libraries
	image_pack "$dir/initramfs.cpio"
	rm -rf "$stage"
	points_scratch
}

points_scratch() {
	local point
	for point in "${points[@]}"; do
		mkdir -p "$dir/$point"
		[[ -n $scratch && $point != client ]] || continue
		truncate -s "$scratch" "$dir/$point/scratch.img"
		mke2fs -q -t ext4 -E lazy_itable_init=1,nodiscard "$dir/$point/scratch.img" ||
			die 125 "--scratch $scratch: mke2fs failed"
	done
}

# ---- Running ----

net_start() {
	mkdir -p "$dir/net"
	setsid "$dir/switch" serve "$dir/net" "${points[@]}" </dev/null >"$dir/net/log" 2>&1 &
	process_note $! "$dir/net/pid"
	wait_socket "$dir/net/switch" "$dir/net/pid" ||
		die 125 "the switch did not start: $(cat "$dir/net/log")"
}

# point_disks NAME: QEMU's words for its disks into `words`; sets `scratch_device`.
point_disks() {
	local disk file n=0 letters=abcdefghijklmnop
	words=() scratch_device=
	while read -r disk; do
		file=${disk#*=}
		[[ -n $disk && $1 != client ]] || continue
		[[ $disk != *=* || ${disk%%=*} == "$1" ]] || continue
		words+=(-drive "if=none,id=d$n,file=$file,format=raw,cache=none,aio=threads,file.locking=off"
			-device "virtio-blk-pci,drive=d$n,share-rw=on")
		n=$((n + 1))
	done <"$dir/disks"
	if [[ -e $dir/$1/scratch.img ]]; then
		words+=(-drive "if=none,id=d$n,file=$dir/$1/scratch.img,format=raw,cache=unsafe,discard=unmap"
			-device "virtio-blk-pci,drive=d$n")
		scratch_device=vd${letters:n:1}
	fi
}

# point_cpu NAME: its CPU model; nothing: the usual one.
point_cpu() { sed -n "s/^$1=//p; /^[a-z]=/!p" "$dir/cpus" | sed -n '$p'; }

# wait_socket PATH PID-FILE: until that process has made it; fails when it has died, or takes a minute.
wait_socket() {
	local end=$((SECONDS + 60))
	until [[ -S $1 ]]; do
		process_lives "$2" && ((SECONDS < end)) || return 1
		sleep 0.02
	done
}

operator_start() {
	rm -f "$dir/$1/commands" "$dir/$1/lines"
	setsid "$dir/operator" "$dir/$1/lines" "$nr_lines" "$dir/$1/commands" </dev/null \
		>"$dir/$1/operator.log" 2>&1 &
	process_note $! "$dir/$1/operator.pid"
	wait_socket "$dir/$1/lines" "$dir/$1/operator.pid" || die 125 "point $1: $(cat "$dir/$1/operator.log")"
}

point_start() {
	local point=$1 ip mac size n words scratch_device hosts
	read -r _ ip mac size < <(grep "^$point " "$dir/points")
	hosts=$(awk '{ printf "%s%s=%s", sep, $2, $1; sep = "," }' "$dir/points")
	point_disks "$point"
	qemu_compose "$size" "$dir/initramfs.cpio" "quiet rdinit=/init point.name=$point \
point.ip=$ip/24 point.hosts=$hosts${scratch_device:+ point.scratch=$scratch_device}" "$(point_cpu "$point")"
	words+=(-serial "file:$dir/$point/log" -device virtio-rng-pci
		-netdev "stream,id=net,server=off,addr.type=unix,addr.path=$dir/net/$point.port"
		-device "virtio-net-pci,netdev=net,mac=$mac,romfile="
		-device "virtio-serial-pci,max_ports=$((nr_lines + 1))")
	for ((n = 0; n < nr_lines; n++)); do
		words+=(-chardev "socket,id=l$n,path=$dir/$point/lines"
			-device "virtserialport,nr=$((n + 1)),chardev=l$n,name=org.godwit.line$n")
	done
	operator_start "$point"
	setsid "${qemu_words[@]}" "${words[@]}" </dev/null >"$dir/$point/qemu.log" 2>&1 &
	process_note $! "$dir/$point/pid"
}

point_wait() {
	local point=$1 end=$((SECONDS + 300))
	while ((SECONDS < end)); do
		! "$dir/line" -t 100 "$dir/$point/commands" true 2>/dev/null || return 0
		process_lives "$dir/$point/pid" || break
		sleep 0.2
	done
	say "point $point did not come up; the end of its kernel log:"
	tail -n 40 "$dir/$point/log" 2>/dev/null | tr -d '\r' | sed 's/^/    /' >&2
	sed "/TCG doesn't support requested feature/d; s/^/    /" "$dir/$point/qemu.log" >&2
	exit 125
}
