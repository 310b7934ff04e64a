#include "vmm/cpu_model.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define NR_WORDS_MAX  24
#define LEAF_SIZES    0x80000008u
#define LEAF_XSAVE    0xdu
#define BASELINE_BITS 40 /* of physical address: 1 TiB; every CPU with EPT or NPT has them */

/* A model is another one and more. Feature names are those of vmm/cpuid_names.c. */
struct model {
	const char *name;
	const char *base; /* NULL: nothing */
	const char *features;
};

/*
 * The levels are the x86-64 psABI's (section "Micro-Architecture Levels"), whose OSXSAVE and
 * LZCNT are "xsave" and "abm" here. The first one also has what every 64-bit kernel expects of a
 * platform, and what KVM itself provides on all hosts.
 */
static const struct model models[] = {
	{"x86-64-v1", NULL,
	 "fpu de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr "
	 "sse sse2 syscall nx lm"},
	{"x86-64-v2", "x86-64-v1", "cx16 lahf_lm popcnt sse3 sse4_1 sse4_2 ssse3"},
	{"Westmere", "x86-64-v2", "aes pclmulqdq"},
	{"SandyBridge", "Westmere", "avx xsave rdtscp"},
	{"x86-64-v3", "x86-64-v2", "avx avx2 bmi1 bmi2 f16c fma abm movbe xsave"},
	{"Haswell", "x86-64-v3",
	 "aes pclmulqdq rdtscp pcid invpcid fsgsbase smep erms rdrand xsaveopt"},
	{"EPYC", "x86-64-v3",
	 "aes pclmulqdq rdtscp fsgsbase smep smap rdrand rdseed adx clflushopt sha_ni pdpe1gb "
	 "xsaveopt xsavec xgetbv1 sse4a misalignsse 3dnowprefetch cr8_legacy mmxext fxsr_opt"},
	{"EPYC-Rome", "EPYC", "clwb rdpid umip clzero wbnoinvd"},
	{"x86-64-v4", "x86-64-v3", "avx512f avx512bw avx512cd avx512dq avx512vl"},
	{"Skylake-Server", "x86-64-v4",
	 "aes pclmulqdq rdtscp pcid invpcid fsgsbase smep smap erms rdrand rdseed adx clflushopt "
	 "clwb pdpe1gb xsaveopt xsavec xgetbv1 3dnowprefetch"},
	{"Icelake-Server", "Skylake-Server",
	 "avx512vbmi avx512_vbmi2 avx512_vnni avx512_bitalg avx512_vpopcntdq avx512ifma gfni vaes "
	 "vpclmulqdq sha_ni umip rdpid fsrm wbnoinvd"},
};

#define NR_MODELS (sizeof(models) / sizeof(models[0]))

/* What a guest of any model is given where KVM has it: KVM makes these, not the processor, and the
 * destination's check still covers them. vmx and svm are there only when --nested asked for them.
 */
static const char provided[] = "x2apic tsc_deadline_timer tsc_adjust hypervisor vmx svm";

/* The extended state that features need: bits of XCR0 (Intel SDM vol. 1, chapter 13). */
static const struct {
	const char *feature;
	uint32_t xcr0;
} states[] = {
	{"fpu", 0x3},      {"avx", 0x4},   {"mpx", 0x18},
	{"avx512f", 0xe0}, {"pku", 0x200}, {"amx_tile", 0x60000},
};

/* A bit mask for each feature word, in the order of cpuid_feature_word(). */
struct features {
	uint32_t bits[NR_WORDS_MAX];
};

/* Names like "lm (64-bit mode)" are found by their first word. */
static bool is_called(const char *name, const char *wanted, size_t len)
{
	return name && !strncmp(name, wanted, len) && (!name[len] || name[len] == ' ');
}

/* XCR0's words describe state, not features. */
static bool is_state_word(const struct cpuid_feature_word *w)
{
	return w->function == LEAF_XSAVE && w->index == 0;
}

static bool find_feature(const char *name, size_t len, uint32_t *word, uint32_t *bit)
{
	const struct cpuid_feature_word *w;

	for (*word = 0; (w = cpuid_feature_word(*word)) != NULL; ++*word)
		for (*bit = 0; *bit < 32 && !is_state_word(w); ++*bit)
			if (is_called(w->names[*bit], name, len))
				return true;
	return false;
}

static int set_feature(struct features *f, const char *name, size_t len, bool on, struct err *e)
{
	uint32_t word;
	uint32_t bit;

	if (!len || !find_feature(name, len, &word, &bit))
		return err_set(
			e, ERR_USAGE, EINVAL,
			"there is no CPU feature '%.*s'; they are called as in /proc/cpuinfo",
			(int)len, name);
	if (on)
		f->bits[word] |= 1u << bit;
	else
		f->bits[word] &= ~(1u << bit);
	return 0;
}

/* A list of names between blanks. */
static int set_features(struct features *f, const char *names, struct err *e)
{
	while (*names) {
		size_t len = strcspn(names, " ");

		if (set_feature(f, names, len, true, e) < 0)
			return -e->code;
		names += len + strspn(names + len, " ");
	}
	return 0;
}

static const struct model *find_model(const char *name, size_t len)
{
	for (size_t i = 0; i < NR_MODELS; i++)
		if (strlen(models[i].name) == len && !strncmp(models[i].name, name, len))
			return &models[i];
	return NULL;
}

static int no_such_model(const char *name, size_t len, struct err *e)
{
	char known[256] = "host";

	for (size_t i = 0; i < NR_MODELS; i++) {
		size_t used = strlen(known);

		snprintf(known + used, sizeof(known) - used, ", %s", models[i].name);
	}
	return err_set(e, ERR_USAGE, EINVAL, "there is no CPU model '%.*s'; choose %s", (int)len,
		       name, known);
}

static int set_model(struct features *f, const char *name, size_t len, struct err *e)
{
	const struct model *m = find_model(name, len);

	if (!m)
		return no_such_model(name, len, e);
	for (; m; m = m->base ? find_model(m->base, strlen(m->base)) : NULL)
		if (set_features(f, m->features, e) < 0)
			return -e->code;
	return 0;
}

static void set_all_of(struct features *f, const struct cpuid *host)
{
	const struct cpuid_feature_word *w;

	for (uint32_t i = 0; (w = cpuid_feature_word(i)) != NULL; i++)
		f->bits[i] = cpuid_register(host, w);
}

/* @host NULL: only what is wrong with @spec itself. */
static int parse(const char *spec, const struct cpuid *host, struct features *f, struct err *e)
{
	size_t len = strcspn(spec, ",");

	memset(f, 0, sizeof(*f));
	if (!strncmp(spec, "host", len) && len == 4) {
		if (host)
			set_all_of(f, host);
	} else if (set_model(f, spec, len, e) < 0) {
		return -e->code;
	}
	for (const char *at = spec + len; *at; at += len) {
		len = strcspn(at + 1, ",") + 1;
		if (at[1] != '+' && at[1] != '-')
			return err_set(e, ERR_USAGE, EINVAL,
				       "'%.*s': a feature comes with + or -, as in "
				       "x86-64-v2,+avx,-aes",
				       (int)len - 1, at + 1);
		if (set_feature(f, at + 2, len - 2, at[1] == '+', e) < 0)
			return -e->code;
	}
	return 0;
}

int cpu_model_check(const char *spec, struct err *e)
{
	struct features f;

	return parse(spec, NULL, &f, e);
}

/* The AMD leaf 0x80000001 repeats in EDX what leaf 1 says there. */
static uint32_t repeated_bits(const struct cpuid *c)
{
	const uint32_t same = 0x0183f3ff; /* AMD APM vol. 3, appendix E.4.1 */
	const struct cpuid_entry *en = cpuid_find(c, 1, 0);

	return en ? en->edx & same : 0;
}

/* Only the state that the remaining features have is left, at the place KVM gave it. */
static void fit_xsave(struct cpuid *c, const struct features *f)
{
	uint32_t xcr0 = 0;
	uint32_t end = 576; /* legacy region and header */
	uint32_t kept = 0;

	for (size_t i = 0; i < sizeof(states) / sizeof(states[0]); i++) {
		uint32_t word;
		uint32_t bit;

		if (find_feature(states[i].feature, strlen(states[i].feature), &word, &bit) &&
		    f->bits[word] >> bit & 1)
			xcr0 |= states[i].xcr0;
	}
	for (uint32_t i = 0; i < c->nr; i++) {
		struct cpuid_entry en = c->entries[i];

		if (en.function == LEAF_XSAVE && en.index >= 2) {
			if (en.index > 31 || !(xcr0 >> en.index & 1))
				continue;
			if (en.ebx + en.eax > end)
				end = en.ebx + en.eax;
		}
		c->entries[kept++] = en;
	}
	c->nr = kept;
	for (uint32_t i = 0; i < c->nr; i++) {
		struct cpuid_entry *en = &c->entries[i];

		if (en->function == LEAF_XSAVE && en->index == 0) {
			en->eax &= xcr0;
			en->edx = 0;
			en->ecx = end;
		} else if (en->function == LEAF_XSAVE && en->index == 1) {
			en->ecx = en->edx = 0; /* supervisor state: of no feature here */
		}
	}
}

/* Leaves that describe one feature, without it. */
static void drop_leaves(struct cpuid *c, const struct features *f)
{
	static const struct {
		const char *feature;
		uint32_t function;
	} leaves[] = {{"monitor", 0x5},   {"sgx", 0x12},      {"intel_pt", 0x14},
		      {"amx_tile", 0x1d}, {"amx_tile", 0x1e}, {"avx10", 0x24}};

	for (size_t i = 0; i < sizeof(leaves) / sizeof(leaves[0]); i++) {
		uint32_t word;
		uint32_t bit;

		if (find_feature(leaves[i].feature, strlen(leaves[i].feature), &word, &bit) &&
		    !(f->bits[word] >> bit & 1))
			cpuid_remove(c, leaves[i].function);
	}
}

static void limit_addresses(struct cpuid *c)
{
	for (uint32_t i = 0; i < c->nr; i++) {
		struct cpuid_entry *en = &c->entries[i];

		if (en->function == LEAF_SIZES && (en->eax & 0xff) > BASELINE_BITS)
			en->eax = (en->eax & ~0xffu) | BASELINE_BITS;
	}
}

static void limit_features(struct cpuid *c, const struct features *f)
{
	const struct cpuid_feature_word *w;
	struct features also = {{0}};
	struct err never = ERR_INIT; /* these names are ours, and tested */

	(void)set_features(&also, provided, &never);
	for (uint32_t i = 0; (w = cpuid_feature_word(i)) != NULL; i++) {
		uint32_t keep = f->bits[i] | also.bits[i] | w->ignored;

		/* What KVM offers beside the processor is the same on all hosts of a kernel. */
		if (is_state_word(w) || w->function == 0x40000001)
			continue;
		if (w->function == 0x80000001 && w->reg == CPUID_EDX)
			keep |= repeated_bits(c);
		cpuid_mask(c, w, keep);
	}
}

static int check_host(const char *spec, const struct features *f, const struct cpuid *host,
		      struct err *e)
{
	char list[ERR_MSG_BYTES / 2] = "";
	const struct cpuid_feature_word *w;

	for (uint32_t i = 0; (w = cpuid_feature_word(i)) != NULL; i++)
		if (!is_state_word(w))
			cpuid_list_missing(w, f->bits[i] & ~cpuid_register(host, w) & ~w->ignored,
					   list, sizeof(list));
	if (!list[0])
		return 0;
	return err_set(e, ERR_UNSUPPORTED, ENOTSUP,
		       "CPU model %.100s: this host's KVM lacks %s (see 'godwit doctor')", spec,
		       list);
}

int cpu_model_apply(const char *spec, const struct cpuid *host, struct cpuid *out, struct err *e)
{
	struct features f;

	if (out != host)
		*out = *host;
	if (!spec || !strcmp(spec, "host"))
		return 0;
	if (parse(spec, host, &f, e) < 0 || check_host(spec, &f, host, e) < 0)
		return -e->code;
	if (strncmp(spec, "host,", 5) != 0)
		limit_addresses(out);
	limit_features(out, &f);
	fit_xsave(out, &f);
	drop_leaves(out, &f);
	return 0;
}

const char *cpu_model_name(uint32_t i)
{
	return i < NR_MODELS ? models[i].name : NULL;
}
