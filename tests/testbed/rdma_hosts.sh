#!/usr/bin/env bash
# The workload guest and a Linux guest move by RDMA between two hosts, over soft-RoCE on their network; the cable is
# cut while one does. Runs on this machine: tests/testbed/rdma_hosts.sh LINUX-GUEST-DIR
# shellcheck source-path=SCRIPTDIR
# shellcheck disable=SC2317 # much is called by expect
set -uo pipefail
here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
# shellcheck source=../../scripts/common.sh
source "$here/../../scripts/common.sh"
# shellcheck source=report.sh
source "$here/report.sh"

# shellcheck source=rdma_pair.sh
source "$here/rdma_pair.sh"

work_begin
on_failure() { pair_show; }
pair_start --file "$1:/guest"

# ---- The workload guest ----

expect "the workload guest boots on a" boot_on a one "fill=32M ws=4M rate=500"
receive b two
expect "it moves to b by RDMA, over two queue pairs" migrate a one b --streams 2 --rdma-pin 8M --verify
expect "it goes on there" alive b two '^t='
expect "every page is right" pages_right b two

receive a three
migrate b two a --bandwidth 20Mbps &
migrating=$!
expect "back to a: under way" pinning b two
bed cut a b
wait "$migrating"
expect "the cable is cut: the migration fails" test $? = 3
sed 's/^/    /' "$work/report" | tail -n 2
expect "and says where the guest is" says 'the guest goes on at the source'
expect "and why" says 'stopped answering\|no progress\|link cut'
expect "nothing stays pinned" unpinned_at_once
expect "the guest goes on" alive b two '^t='
bed restore a b
# shellcheck disable=SC2016
on a 'kill -KILL $(cat $work/three.pid)' >/dev/null 2>&1 # it may not have noticed yet
receive a four
expect "with the cable joined: a clean retry" migrate b two a --verify
expect "it goes on" alive a four '^t='
expect "every page is right" pages_right a four

# ---- Linux ----

# shellcheck disable=SC2016
expect "Linux boots on a" on a 'vmm linux $godwit run --kernel /guest/vmlinux --initrd /guest/initramfs.cpio \
	--append "$(cat /guest/cmdline) busy.rate=100 busy.mem=16" --memory 256M
	wait_for 250 $pid $work/linux.serial "busy t=[1-9]"'
receive b linux2
expect "it moves to b by RDMA" migrate a linux b --verify
expect "it goes on there, its memory right" alive b linux2 'busy t=.*mem_bad=0'
report_end
