#!/usr/bin/env bash
# A hypervisor with live guests is offered to hosts that lack something of what it was promised: they refuse
# before a byte of its memory has been sent, say what is missing, and it goes on where it is. One that was
# started on the lesser host moves both ways. Runs on this machine, with two testbed hosts.
# shellcheck source-path=SCRIPTDIR disable=SC2317 # much is called by expect
set -uo pipefail
# shellcheck source=../../scripts/common.sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../../scripts/common.sh"
# shellcheck source=report.sh
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/report.sh"

# In the foreground: whoever ends this script ends that, too, and no host is left behind.
bed() { timeout --foreground 500 "$root/experiments/testbed/testbed" "$@"; }

# What the commands below share on each host. VMMs outlive the command that starts them.
# shellcheck disable=SC2016 # for the shell over there
there='cd /tree; source scripts/common.sh; work=/run; children=()
godwit=build/release/godwit
vmm() { # NAME run|receive...
	setsid $godwit "${@:2}" --serial "file:$work/$1.serial" --qmp "unix:$work/$1.qmp" \
		</dev/null >"$work/$1.log" 2>&1 &
	pid=$!
}
nr_lines() { cat "$work/$1.serial" 2>/dev/null | grep -c "^l1: ticks="; }
goes_on() { # NAME: three lines more, and none of them tells of an error
	local end=$((SECONDS + 240)) before=$(nr_lines $1)
	until (($(nr_lines $1) > before + 2)); do
		((SECONDS < end)) || return 1
		sleep 0.2
	done
	! grep "^l1: ticks=" "$work/$1.serial" | grep -q " errors=[1-9]"
}
reload() { # PARAMETER...: what KVM offers its guests
	rmmod kvm_amd && insmod "$(find /lib/modules -name "kvm-amd.ko")" "$@"
}
'
on() { bed run --timeout 450 "$1" -- bash -c "$there$2"; }

# boot HOST NAME PAGING: a hypervisor with two guests, all at work.
# shellcheck disable=SC2016
boot() {
	on "$1" "vmm $2 run --nested require --kernel build/release/nested/l1.elf --memory 64M \
		--append 'l1.mode=work l1.guests=2 l1.npt=$3 fill=4M ws=1M rate=300 gap=1000 longgap=5000'"'
		wait_for 200 $pid $work/'"$2"'.serial "^l1: ticks=" && goes_on '"$2"
}

# receive HOST NAME: its port is in $work/port, a new one each time: who waited before may not have ended yet.
# shellcheck disable=SC2016
receive() {
	on "$1" "vmm $2 receive tcp:0.0.0.0:0"'
		wait_for 200 $pid $work/'"$2"'.log "^waiting for" &&
			sed -n "s/^waiting for a guest at .*://p" $work/'"$2"'.log' >"$work/port"
}

# offer HOST NAME HOST: what it says is in $work/said.
offer() {
	# shellcheck disable=SC2016
	on "$1" "timeout 240 \$godwit migrate \$work/$2.qmp tcp:$3:$(cat "$work/port") --json" >"$work/said" 2>&1
}

says() { grep -qF -- "$1" "$work/said"; }
alive() { on "$1" "goes_on $2"; }

# What the destination knew, too: it says so when it has told the source.
# shellcheck disable=SC2016
heard() {
	on "$1" 'end=$((SECONDS + 60))
	until grep -qF -- "'"$3"'" $work/'"$2"'.log; do
		((SECONDS < end)) || exit 1
		sleep 0.2
	done'
}

# refused NAME WHAT...: b refuses the hypervisor of a, naming WHAT.
refused() {
	local name=$1 what=$2 to=refusal.$RANDOM
	expect "$name: b waits for a guest" receive b "$to"
	offer a l1 b
	expect "$name: it is refused" test $? = 3
	grep '^godwit: error:' "$work/said" | sed 's/^/    /'
	expect "$name: the source hears why" says "$what"
	expect "$name: the destination says why" heard b "$to" "$what"
	expect "$name: no memory was sent" says '"rounds": []'
	expect "$name: the hypervisor and its guests go on" alive a l1
}

# shellcheck disable=SC2016
on_failure() { cat "$work/said"; on a 'tail -n 5 $work/*.log'; on b 'tail -n 5 $work/*.log'; } >&2

work_begin
export GODWIT_TESTBED=$work/bed
trap 'bed stop; work_end' EXIT
expect "two hosts start, b without nested paging" bed start --hosts 2 --memory 1G --cpu b=EPYC,+svm,-npt
expect "a hypervisor with two guests boots on a" boot a l1 1
# About one look in six finds it in L2, nearly always on the way there: its guests' work is short.
# shellcheck disable=SC2016
expect "it is seen at work" on a 'end=$((SECONDS + 120))
	until $godwit nested view $work/l1.qmp >$work/view &&
		grep -q "^vCPU 0 .*SVM: in L2, .*VMCB at 0x" $work/view; do
		((SECONDS < end)) || { cat $work/view; exit 1; }
	done'
refused "without nested paging" "npt (SVM)"
expect "b reloads KVM" on b "reload nested=0"
refused "without nesting" "a guest on this host cannot be a hypervisor"
expect "b has no KVM" on b "rmmod kvm_amd"
refused "without SVM" "/dev/kvm"
expect "b has KVM again" on b "reload nested=1 2>/dev/null || insmod \$(find /lib/modules -name kvm-amd.ko) nested=1"

expect "a hypervisor boots on b, the lesser host" boot b small 0
expect "a waits for it" receive a up
expect "it moves to a" offer b small a
expect "it goes on there, its guests, too" alive a up
expect "b waits for it" receive b back
expect "and back" offer a up b
expect "it goes on there" alive b back
report_end
