# shellcheck shell=bash
# shellcheck disable=SC2154,SC2034 # the caller has or uses these, as said below
# What every testbed script shares: messages, tool checks, the cache's place.
# Sourced. The caller sets `program` (the name messages start with).

say() { printf '%s: %s\n' "$program" "$*" >&2; }

# die STATUS MESSAGE...: one line on stderr, then exit.
die() {
	local status=$1
	shift
	say "$*"
	exit "$status"
}

# need_tools TOOL=PACKAGE...: every missing tool is named with its Debian package.
need_tools() {
	local pair missing=()
	for pair in "$@"; do
		command -v "${pair%%=*}" >/dev/null || missing+=("$pair")
	done
	((${#missing[@]} == 0)) && return
	for pair in "${missing[@]}"; do
		say "'${pair%%=*}' is not installed: install the Debian package ${pair#*=}"
	done
	exit 125
}

# need_files FILE=PACKAGE...: the same for what is no program.
need_files() {
	local pair complete=yes
	for pair in "$@"; do
		[[ -e ${pair%%=*} ]] && continue
		say "${pair%%=*} is missing: install the Debian package ${pair#*=}"
		complete=no
	done
	[[ $complete == yes ]] || exit 125
}

cache_root() { printf '%s/godwit/testbed' "${XDG_CACHE_HOME:-${HOME:?}/.cache}"; }
