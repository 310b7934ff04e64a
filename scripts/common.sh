# shellcheck shell=bash
# What demo, check, packages and the shell tests share. Sourced; sets `root`, the repository.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
program=${0##*/}

say() { printf '%s: %s\n' "$program" "$*" >&2; }

# die STATUS MESSAGE...: one line on stderr, then exit.
die() {
	local status=$1
	shift
	say "$*"
	exit "$status"
}

heading() { printf '\n== %s\n' "$*"; }

# Can guests run here? The program itself knows best.
kvm_usable() { "$root/build/release/godwit" doctor >/dev/null 2>&1; }

# work_begin: a private folder `work`; everything in `children` is ended and the folder removed
# when the script ends, however it ends.
work_begin() {
	work=$(mktemp -d "${TMPDIR:-/tmp}/godwit.XXXXXX")
	children=()
	trap work_end EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM HUP
}

work_end() {
	local pid
	for pid in "${children[@]}"; do
		kill "$pid" 2>/dev/null && wait "$pid" 2>/dev/null
	done
	rm -rf "$work"
}

# whole_lines FILE: without the last one as long as that is being written.
whole_lines() { head -n "$(wc -l <"$1")" "$1"; }

# wait_for SECONDS PID FILE PATTERN: until FILE has a whole line that matches; fails when the time is
# over or PID has ended without it. Who has ended may have written it just before.
wait_for() {
	local end=$((SECONDS + $1)) pid=$2 file=$3 pattern=$4 alive=yes
	while ! grep -q -- "$pattern" < <(whole_lines "$file" 2>/dev/null); do
		[[ $alive == yes ]] && ((SECONDS < end)) || return 1
		kill -0 "$pid" 2>/dev/null || alive=no
		sleep 0.1
	done
}
