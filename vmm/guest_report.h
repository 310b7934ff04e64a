/*
 * The report a workload guest publishes in its own memory: the ABI between experiments/guest/ and
 * any VMM or tool that reads guest memory from outside.
 *
 * The guest owns and writes it; the VMM only reads, without an exit and while the guest runs. It is
 * one header page followed by one page per vCPU, contiguous and page aligned in guest-physical
 * memory. The guest announces it by `outl(gpa >> 12)` to GUEST_REPORT_PORT (again after a reset).
 *
 * What a reader may rely on while the guest runs:
 *  - Every scalar is naturally aligned and has one writer, so a single load is never torn.
 *  - `magic` is stored last when the header is set up; `state` only moves forward. Header fields
 *    other than `state` and `tsc_*` do not change once `state` is at least GUEST_STATE_FILLING.
 *  - A vCPU page is written by its own vCPU alone. pages_written, pages_verified, nr_errors,
 *    tsc_backwards, last_tsc and gap_seq never decrease (last_tsc: unless the host's TSC did).
 *  - Gap ring (gaps over long_gap_threshold_ns only): entry `n % GUEST_REPORT_NR_GAPS` is stored
 * before gap_seq becomes n + 1. Read gap_seq, copy, read it again: entries older than `second -
 * GUEST_REPORT_NR_GAPS + 1` may be overwritten ones.
 *  - reset_seq is odd while the gap statistics (histogram, nr_gaps, max, sum) are being cleared; a
 *    reader retries when it is odd or changed. Between resets they only grow.
 *  - In-flight protocol, per vCPU: inflight_version, inflight_gfn, page words in ascending order,
 *    version table entry, inflight_gfn = GUEST_NO_GFN; in this order, on a TSO machine. In a guest
 *    paused anywhere, each vCPU thus has at most one page that is not exactly at its table's
 *    version, and that page is a prefix of the new version followed by a suffix of the old one.
 */
#ifndef GODWIT_VMM_GUEST_REPORT_H
#define GODWIT_VMM_GUEST_REPORT_H

#include <stdint.h>

#define GUEST_REPORT_PORT        0x6770
#define GUEST_REPORT_MAGIC       0x54524f5045524457ull /* "WDREPORT" in memory order */
#define GUEST_REPORT_ABI         1u
#define GUEST_REPORT_MAX_CPUS    64
#define GUEST_REPORT_MAX_EXTENTS 16
#define GUEST_REPORT_NR_GAPS     64
#define GUEST_REPORT_NR_BUCKETS  496
#define GUEST_NO_GFN             UINT64_MAX

enum guest_state {
	GUEST_STATE_BOOTING = 1, /* reading options and memory map, starting vCPUs */
	GUEST_STATE_FILLING = 2, /* writing version 1 of every page of the fill */
	GUEST_STATE_RUNNING = 3, /* the measured workload */
	GUEST_STATE_FAILED = 4,  /* stopped; the reason is on the serial port */
};

enum guest_tsc_source {
	GUEST_TSC_OPTION = 1,   /* tsc_khz= on the command line */
	GUEST_TSC_CPUID_HV = 2, /* CPUID 0x40000010 */
	GUEST_TSC_CPUID_15 = 3, /* CPUID 0x15 */
	GUEST_TSC_PIT = 4,      /* measured against PIT channel 0, good to about 0.2 % */
	GUEST_TSC_CPUID_16 = 5, /* CPUID 0x16: nominal base frequency */
};

/* Pages of the fill, in fill-index order: index i of the fill is page i - first_index here. */
struct guest_extent {
	uint64_t gpa;
	uint64_t nr_pages;
	uint64_t first_index;
};

/* One stretch of time in which a vCPU did not run, by its own TSC. */
struct guest_gap {
	uint64_t tsc_start;
	uint64_t tsc_cycles;
};

/* A page the guest found wrong. Rewritten as errors go on: a reader may see a mix of two in
 * last_bad. */
struct guest_bad_page {
	uint64_t gfn;
	uint32_t expected, found; /* versions; found is what the page's header says, if it is one */
	uint32_t verdict;         /* enum page_verdict of experiments/guest/pattern.h */
	uint32_t reserved;
};

struct guest_cpu_report {
	uint32_t cpu;
	uint32_t state;                 /* enum guest_state of this vCPU */
	uint64_t first_index, nr_pages; /* slice of the fill this vCPU owns and writes */
	uint64_t nr_ws_pages;           /* the first so many of them are rewritten */
	uint64_t last_tsc;              /* newest sample: is the vCPU alive? */
	uint64_t pages_written, pages_verified;
	uint64_t inflight_gfn;     /* GUEST_NO_GFN, or the page being written now ... */
	uint32_t inflight_version; /* ... to this version */
	uint32_t reserved0;
	uint64_t nr_errors;
	struct guest_bad_page first_bad, last_bad; /* valid when nr_errors > 0 */
	uint64_t check_seq; /* number of the last whole-slice check this vCPU finished */
	uint64_t check_pages, check_errors;
	uint64_t tsc_backwards; /* samples smaller than the one before */
	uint64_t reset_seq;     /* odd while the statistics below are being cleared */
	uint64_t nr_gaps, max_gap_ns, sum_gap_ns; /* of gaps over gap_threshold_ns */
	uint64_t window, window_max_gap_ns;       /* largest gap in reporting window `window` */
	uint64_t gap_seq;                         /* gaps ever recorded; never reset */
	uint64_t reserved[37];
	uint32_t gap_bucket[GUEST_REPORT_NR_BUCKETS]; /* index: guest_gap_bucket(ns) */
	uint64_t reserved2[8];
	struct guest_gap gap[GUEST_REPORT_NR_GAPS];
	uint64_t reserved3[64];
};

struct guest_report {
	uint64_t magic;
	uint32_t abi;        /* GUEST_REPORT_ABI; readers refuse others */
	uint32_t nr_cpus;    /* vCPU pages that follow */
	uint64_t size;       /* bytes, header page included */
	uint32_t state;      /* enum guest_state */
	uint32_t tsc_source; /* enum guest_tsc_source */
	uint64_t tsc_khz;
	uint64_t tsc_entry;   /* first instruction in ring 3 */
	uint64_t tsc_fill;    /* fill began */
	uint64_t tsc_running; /* fill ended; 0 before */
	uint64_t gap_threshold_ns;
	uint64_t seed;
	uint32_t compress_percent;
	uint32_t nr_extents;
	uint64_t nr_fill_pages, nr_ws_pages;
	uint64_t rate_pages;            /* per second over all vCPUs, 0: unlimited */
	uint64_t version_table_gpa;     /* uint32_t per fill index; 0: not written yet */
	uint64_t long_gap_threshold_ns; /* gaps this long go into the ring as well */
	struct guest_extent extent[GUEST_REPORT_MAX_EXTENTS];
	uint8_t reserved[4096 - 512];
	struct guest_cpu_report cpu[]; /* nr_cpus of them */
};

/*
 * Logarithmic buckets, 8 per octave (12.5 % wide): which one holds `ns`, and where one begins.
 * Exact below 8.
 */
static inline unsigned int guest_gap_bucket(uint64_t ns)
{
	unsigned int msb;

	if (ns < 8)
		return (unsigned int)ns;
	msb = 63u - (unsigned int)__builtin_clzll(ns);
	return (msb - 2) * 8 + ((unsigned int)(ns >> (msb - 3)) & 7u);
}

static inline uint64_t guest_gap_bucket_floor_ns(unsigned int bucket)
{
	if (bucket < 8)
		return bucket;
	return (uint64_t)(8 + bucket % 8) << (bucket / 8 - 1);
}

_Static_assert(sizeof(struct guest_extent) == 24, "ABI");
_Static_assert(sizeof(struct guest_gap) == 16, "ABI");
_Static_assert(sizeof(struct guest_cpu_report) == 4096, "one page per vCPU");
_Static_assert(__builtin_offsetof(struct guest_cpu_report, gap_bucket) == 512, "ABI");
_Static_assert(__builtin_offsetof(struct guest_cpu_report, gap) == 2560, "ABI");
_Static_assert(sizeof(struct guest_report) == 4096, "one header page");
_Static_assert(__builtin_offsetof(struct guest_report, extent) == 128, "ABI");
_Static_assert(__builtin_offsetof(struct guest_report, reserved) == 512, "ABI");

#endif
