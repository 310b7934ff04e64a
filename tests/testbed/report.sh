# shellcheck shell=bash
# How shell tests report: one line a test, "ok NAME" or "FAIL NAME". scripts/check counts them.
# Sourced.

nr_failed=0

not() { ! "$@" 2>/dev/null; }

# The caller may redefine it: what to show after the first failure.
on_failure() { :; }

# expect NAME CONDITION...: one test.
expect() {
	local name=$1
	shift
	if "$@"; then
		printf 'ok %s\n' "$name"
		return
	fi
	printf 'FAIL %s\n' "$name"
	((nr_failed++ == 0)) && on_failure
}

report_end() { exit $((nr_failed > 0)); }
