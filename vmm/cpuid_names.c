/* Feature bits and their names, as in Linux's /proc/cpuinfo (Intel SDM vol. 2A, CPUID; AMD APM
 * vol. 3, appendix E; KVM's own: Documentation/virt/kvm/x86/cpuid.rst). */
#include "nested/caps.h"
#include "vmm/cpuid.h"

#define BIT(n) (1u << (n))

static const char *const leaf1_ecx[32] = {
	"sse3",   "pclmulqdq",  "dtes64",  "monitor", "ds_cpl",
	"vmx",    "smx",        "est",     "tm2",     "ssse3",
	"cid",    "sdbg",       "fma",     "cx16",    "xtpr",
	"pdcm",   NULL,         "pcid",    "dca",     "sse4_1",
	"sse4_2", "x2apic",     "movbe",   "popcnt",  "tsc_deadline_timer",
	"aes",    "xsave",      "osxsave", "avx",     "f16c",
	"rdrand", "hypervisor",
};

static const char *const leaf1_edx[32] = {
	"fpu",  "vme",  "de",   "pse", "tsc",  "msr", "pae",   "mce", "cx8",     "apic", NULL,
	"sep",  "mtrr", "pge",  "mca", "cmov", "pat", "pse36", "pn",  "clflush", NULL,   "dts",
	"acpi", "mmx",  "fxsr", "sse", "sse2", "ss",  "ht",    "tm",  "ia64",    "pbe",
};

static const char *const leaf7_ebx[32] = {
	"fsgsbase",   "tsc_adjust",   "sgx",      "bmi1",       "hle",      "avx2",
	"fdp_excptn", "smep",         "bmi2",     "erms",       "invpcid",  "rtm",
	"cqm",        "zero_fcs_fds", "mpx",      "rdt_a",      "avx512f",  "avx512dq",
	"rdseed",     "adx",          "smap",     "avx512ifma", NULL,       "clflushopt",
	"clwb",       "intel_pt",     "avx512pf", "avx512er",   "avx512cd", "sha_ni",
	"avx512bw",   "avx512vl",
};

static const char *const leaf7_ecx[32] = {
	"prefetchwt1",
	"avx512vbmi",
	"umip",
	"pku",
	"ospke",
	"waitpkg",
	"avx512_vbmi2",
	"shstk",
	"gfni",
	"vaes",
	"vpclmulqdq",
	"avx512_vnni",
	"avx512_bitalg",
	"tme",
	"avx512_vpopcntdq",
	NULL,
	"la57",
	NULL,
	NULL,
	NULL,
	NULL,
	NULL,
	"rdpid",
	"kl",
	"bus_lock_detect",
	"cldemote",
	NULL,
	"movdiri",
	"movdir64b",
	"enqcmd",
	"sgx_lc",
	"pks",
};

static const char *const leaf7_edx[32] = {
	[1] = "sgx_keys",
	[2] = "avx512_4vnniw",
	[3] = "avx512_4fmaps",
	[4] = "fsrm",
	[5] = "uintr",
	[8] = "avx512_vp2intersect",
	[9] = "srbds_ctrl",
	[10] = "md_clear",
	[11] = "rtm_always_abort",
	[14] = "serialize",
	[15] = "hybrid_cpu",
	[16] = "tsxldtrk",
	[18] = "pconfig",
	[19] = "arch_lbr",
	[20] = "ibt",
	[22] = "amx_bf16",
	[23] = "avx512_fp16",
	[24] = "amx_tile",
	[25] = "amx_int8",
	[26] = "spec_ctrl (ibrs, ibpb)",
	[27] = "stibp",
	[28] = "flush_l1d",
	[29] = "arch_capabilities",
	[30] = "core_capabilities",
	[31] = "ssbd",
};

static const char *const leaf7_1_eax[32] = {
	[0] = "sha512",    [1] = "sm3",       [2] = "sm4",   [4] = "avx_vnni", [5] = "avx512_bf16",
	[7] = "cmpccxadd", [10] = "fzrm",     [11] = "fsrs", [12] = "fsrc",    [21] = "amx_fp16",
	[22] = "hreset",   [23] = "avx_ifma", [26] = "lam",
};

static const char *const leaf7_1_edx[32] = {
	[4] = "avx_vnni_int8", [5] = "avx_ne_convert", [8] = "amx_complex",
	[14] = "prefetchi",    [19] = "avx10",
};

static const char *const leaf7_2_edx[32] = {
	[0] = "psfd",   [1] = "ipred_ctrl", [2] = "rrsba_ctrl",
	[3] = "ddpd_u", [4] = "bhi_ctrl",   [5] = "mcdt_no",
};

static const char *const xcr0_eax[32] = {
	"x87 state",
	"sse state",
	"avx state",
	"mpx bndregs state",
	"mpx bndcsr state",
	"avx512 opmask state",
	"avx512 zmm_hi256 state",
	"avx512 hi16_zmm state",
	NULL,
	"pku state",
	NULL,
	NULL,
	NULL,
	NULL,
	NULL,
	NULL,
	NULL,
	"amx tilecfg state",
	"amx tiledata state",
};

static const char *const xsave_eax[32] = {
	"xsaveopt", "xsavec", "xgetbv1", "xsaves", "xfd",
};

static const char *const ext1_ecx[32] = {
	"lahf_lm",    "cmp_legacy",  "svm",
	"extapic",    "cr8_legacy",  "abm",
	"sse4a",      "misalignsse", "3dnowprefetch",
	"osvw",       "ibs",         "xop",
	"skinit",     "wdt",         NULL,
	"lwp",        "fma4",        "tce",
	NULL,         "nodeid_msr",  NULL,
	"tbm",        "topoext",     "perfctr_core",
	"perfctr_nb", NULL,          "bpext",
	"ptsc",       "perfctr_llc", "mwaitx",
};

static const char *const ext1_edx[32] = {
	[11] = "syscall",  [19] = "mp",      [20] = "nx",     [22] = "mmxext",
	[25] = "fxsr_opt", [26] = "pdpe1gb", [27] = "rdtscp", [29] = "lm (64-bit mode)",
	[30] = "3dnowext", [31] = "3dnow",
};

static const char *const ext7_edx[32] = {
	[8] = "invariant tsc",
};

static const char *const ext8_ebx[32] = {
	[0] = "clzero",           [1] = "irperf",    [2] = "xsaveerptr", [4] = "rdpru",
	[9] = "wbnoinvd",         [12] = "amd_ibpb", [14] = "amd_ibrs",  [15] = "amd_stibp",
	[17] = "stibp_always_on", [24] = "amd_ssbd", [25] = "virt_ssbd", [26] = "amd_ssb_no",
	[28] = "amd_psfd",
};

static const char *const ext21_eax[32] = {
	[0] = "no_nested_data_bp", [2] = "lfence_rdtsc", [6] = "null_sel_clears_base",
	[8] = "autoibrs",          [27] = "sbpb",        [28] = "ibpb_brtype",
	[29] = "srso_no",
};

static const char *const kvm_eax[32] = {
	"kvmclock",
	"kvm_nop_io_delay",
	"kvm_mmu",
	"kvmclock (new MSRs)",
	"kvm_asyncpf",
	"kvm_steal_time",
	"kvm_pv_eoi",
	"kvm_pv_unhalt",
	NULL,
	"kvm_pv_tlb_flush",
	"kvm_asyncpf_vmexit",
	"kvm_pv_send_ipi",
	"kvm_poll_control",
	"kvm_pv_sched_yield",
	"kvm_asyncpf_int",
	"kvm_msi_ext_dest_id",
	"kvm_hc_map_gpa_range",
	"kvm_migration_control",
	[24] = "kvmclock_stable_bit",
};

static const struct cpuid_feature_word words[] = {
	/* OSXSAVE mirrors the guest's CR4; MONITOR its MISC_ENABLE; the hypervisor bit is ours. */
	{1, 0, CPUID_ECX, BIT(3) | BIT(27) | BIT(31), leaf1_ecx},
	/* APIC mirrors the guest's APIC base; HT is topology. */
	{1, 0, CPUID_EDX, BIT(9) | BIT(28), leaf1_edx},
	{7, 0, CPUID_EBX, 0, leaf7_ebx},
	{7, 0, CPUID_ECX, BIT(4), leaf7_ecx}, /* OSPKE mirrors CR4 */
	{7, 0, CPUID_EDX, 0, leaf7_edx},
	{7, 1, CPUID_EAX, 0, leaf7_1_eax},
	{7, 1, CPUID_EDX, 0, leaf7_1_edx},
	{7, 2, CPUID_EDX, 0, leaf7_2_edx},
	{0xd, 0, CPUID_EAX, 0, xcr0_eax},
	{0xd, 1, CPUID_EAX, 0, xsave_eax},
	{0x80000001, 0, CPUID_ECX, 0, ext1_ecx},
	/* On AMD this repeats bits of leaf 1, the APIC bit among them. */
	{0x80000001, 0, CPUID_EDX, BIT(9), ext1_edx},
	{0x80000007, 0, CPUID_EDX, 0, ext7_edx},
	{0x80000008, 0, CPUID_EBX, 0, ext8_ebx},
	{0x8000000a, 0, CPUID_EDX, 0, nested_svm_features},
	{0x80000021, 0, CPUID_EAX, 0, ext21_eax},
	{0x40000001, 0, CPUID_EAX, 0, kvm_eax},
};

const struct cpuid_feature_word *cpuid_feature_word(uint32_t i)
{
	return i < sizeof(words) / sizeof(words[0]) ? &words[i] : NULL;
}
