#!/usr/bin/env bash
# Every test program that uses KVM, on the testbed's complete KVM, but for those whose names are in
# KVM_TESTS_LEFT_OUT. Their own output is the report.
# shellcheck source-path=SCRIPTDIR
set -uo pipefail
# shellcheck source=../../scripts/common.sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../../scripts/common.sh"

status=0
while read -r name; do
	[[ -n $name ]] || continue
	if [[ " ${KVM_TESTS_LEFT_OUT:-} " == *" $name "* ]]; then
		echo "SKIP $name (KVM_TESTS_LEFT_OUT)"
		continue
	fi
	echo "program $name"
	timeout "${KVM_TEST_SECONDS:-500}" "$root/build/release/tests/$name" 2>&1
	result=$?
	echo "program $name: status $result"
	((result == 0)) || status=1
done <"$root/build/release/tests/kvm-tests"
exit $status
