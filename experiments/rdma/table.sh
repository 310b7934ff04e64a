# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # `message` is for those who source it, `rounds` is theirs
# What the measurements of RDMA on one host (inside) and between two (hosts) share: the figures. Sourced.

message=2097152 # what Godwit writes at most at once: a chunk

guest_mib=256 # of incompressible pages; what ib_write_bw moves, too

# An emulator translates a program's code anew for every address it is loaded at, which costs the first tenths of a
# second of each process.
steady_addresses() { echo 0 >/proc/sys/kernel/randomize_va_space; }

# touch_memory MIB: so much of this host's memory, once: an emulator gets it from its own host at the first touch, which
# whoever comes first would pay for.
touch_memory() { head -c $(($1 << 20)) /dev/zero >"$work/touched" && rm "$work/touched"; }

# Completions with an error that led to a new try, and requests that came twice, since the device is there.
sent_twice() { cat /sys/class/infiniband/rxe0/ports/1/hw_counters/completer_retry_err \
	/sys/class/infiniband/rxe0/ports/1/hw_counters/duplicate_request 2>/dev/null | paste -sd/; }

# Clock ticks (10 ms) of CPU that PID has used; and that the machine has, what interrupts did included.
cpu_of() { awk '{ sub(/.*\) /, ""); print $12 + $13 }' "/proc/$1/stat"; }
cpu_of_all() { awk '/^cpu / { print $2 + $3 + $4 + $7 + $8; exit }' /proc/stat; }

# field NAME FILE: the first number so called in a JSON report.
field() { sed -n "s/.*\"$1\": \([0-9]*\).*/\1/p" "$2" | sed -n 1p; }

# page_rates REPORT TICKS TICKS US: of a report's first round "MB/s; CPU-ms/GiB, twice; ms"; and how many ms the whole
# migration took.
page_rates() {
	sed -n '/"rounds"/,$p' "$1" >"$1.rounds"
	awk -v ns="$(field duration_ns "$1.rounds")" -v pages="$(field raw_pages "$1.rounds")" \
		-v cpu="$2" -v all="$3" -v us="$4" -v total="$(field total_ns "$1")" 'BEGIN {
			gib = pages * 4096 / 1073741824
			printf "%.1f %.0f %.0f %.0f %.0f\n", pages * 4096 / ns * 1000, cpu * 10 / gib, all * 10 / gib,
				us / 1000, total / 1000000
		}'
}

# again_rates REPORT: MB/s of its second round; CPU time and pinning are of the whole, hence of no use here.
again_rates() {
	sed -n '/"number": 2,/,$p' "$1" >"$1.rounds"
	awk -v ns="$(field duration_ns "$1.rounds")" -v pages="$(field raw_pages "$1.rounds")" \
		'BEGIN { printf "%.1f - - - -\n", pages * 4096 / ns * 1000 }'
}

# median FILE COLUMN; most FILE COLUMN; spread FILE: the first column, least to most.
median() {
	awk -v c="$2" '{ print $c }' "$1" | sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'
}
most() { awk -v c="$2" '{ print $c }' "$1" | sort -n | tail -n 1; }
spread() { awk '{ print $1 }' "$1" | sort -n | sed -n '1p;$p' | paste -sd- | sed 's/-/ to /'; }

# of_limit FILE LIMIT-FILE: the medians' ratio, and the median of what each run was of its own round's limit: this
# machine's speed changes between rounds.
of_limit() {
	paste -d' ' <(cut -d' ' -f1 "$1") <(cut -d' ' -f1 "$2") | awk '$2 > 0 { print $1 / $2 }' | sort -n >"$1.of"
	awk -v a="$(median "$1" 1)" -v b="$(median "$2" 1)" -v c="$(median "$1.of" 1)" \
		'BEGIN { if (b > 0) printf "%.2f, %.2f", a / b, c }'
	rm "$1.of"
}

row() { printf '%-28s %8s %18s %12s %16s %8s %10s\n' "$@"; }

# throughput_table FOLDER: the medians of FOLDER/{limit,all,16M,ahead,again,tcp,qemu-on,qemu-off}-{1,2}, as far as they are
# there, which write_bw, pages_by, pages_again and qemu_move wrote.
throughput_table() {
	local nr kind file
	row "medians of $rounds" "MB/s" "spread" "of the limit" "CPU ms/GiB" "ms to 0" "ms in all"
	for nr in 1 2; do
		row "ib_write_bw, $nr QP" "$(median "$1/limit-$nr" 1)" "$(spread "$1/limit-$nr")" "" "" "" ""
		for kind in all 16M ahead again tcp qemu-on qemu-off; do
			file=$1/$kind-$nr
			[[ -e $file ]] || continue
			row "$(row_name "$kind" "$nr")" "$(median "$file" 1)" "$(spread "$file")" \
				"$(of_limit "$file" "$1/limit-$nr")" \
				"$(median "$file" 2)/$(median "$file" 3)" "$(most "$file" 4)" "$(median "$file" 5)"
		done
	done
	for file in "$1"/*-[12]; do
		echo "all of ${file##*/}: $(cut -d' ' -f1 "$file" | paste -sd' ')"
	done
	echo "MB/s: 10^6 bytes a second. CPU: of the source's process / of its machine, interrupts included."
	echo "Of the limit: the medians' ratio, and the median of the ratios within each round."
	echo "ms to 0: the longest time from the end of a migration until nothing was pinned. In all: setup included."
}

row_name() {
	case $1 in
	tcp) echo "godwit tcp:, $2 stream(s)" ;;
	ahead) echo "  all, dest. --prealloc" ;;
	again) echo "  all, in the second round" ;;
	qemu-*) echo "qemu rdma:, rdma-pin-all ${1#qemu-}" ;;
	*) echo "godwit rdma:, $2 QP, $1" ;;
	esac
}
