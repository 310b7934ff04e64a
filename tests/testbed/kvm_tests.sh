#!/usr/bin/env bash
# Every test program that uses KVM, on the testbed's complete KVM. Their own output is the report.
# shellcheck source-path=SCRIPTDIR
set -uo pipefail
# shellcheck source=../../scripts/common.sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../../scripts/common.sh"

status=0
while read -r name; do
	[[ -n $name ]] || continue
	echo "program $name"
	timeout "${KVM_TEST_SECONDS:-240}" "$root/build/release/tests/$name" 2>&1
	result=$?
	echo "program $name: status $result"
	((result == 0)) || status=1
done <"$root/build/release/tests/kvm-tests"
exit $status
