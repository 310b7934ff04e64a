# shellcheck shell=bash
# shellcheck disable=SC2154,SC2034 # the caller has or uses these, as said below
# VMMs for shell tests. Sourced after common.sh; work_begin comes before a call.

# start_vmm NAME ARG...: godwit in the background, with $work/NAME.qmp, what it prints in
# $work/NAME.log, and standard input from the descriptor $keys. Sets pid.
start_vmm() {
	local name=$1
	shift
	mkfifo "$work/$name.keys"
	exec {keys}<>"$work/$name.keys"
	"$root/build/release/godwit" "$@" --qmp "unix:$work/$name.qmp" <"$work/$name.keys" \
		>"$work/$name.log" 2>&1 &
	pid=$!
	children+=("$pid")
}

# listening NAME: the address at which the VMM called NAME, the last one started, waits for a guest.
listening() {
	wait_for 120 "$pid" "$work/$1.log" '^waiting for a guest at' &&
		sed -n 's/^waiting for a guest at //p' "$work/$1.log"
}
