#include "vmm/cpu_model.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NR_WORDS_MAX      24
#define LEAF_KVM          0x40000001u
#define LEAF_EXTENDED     0x80000000u
#define LEAF_EXT_FEATURES 0x80000001u
#define LEAF_SIZES        0x80000008u
#define LEAF_SVM          0x8000000au
#define LEAF_XSAVE        0xdu
#define VENDOR_BYTES      12
#define LEAST_BITS        32
#define MOST_BITS         52
#define BASELINE_BITS     40 /* of physical address: 1 TiB; every CPU with EPT or NPT has them */

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

/* Bit masks for each feature word, in the order of cpuid_feature_word(). */
struct features {
	uint32_t bits[NR_WORDS_MAX];
	uint32_t refused[NR_WORDS_MAX]; /* taken away by name: not even provided */
};

/* A parsed --cpu. */
struct spec {
	struct features features;
	bool host;             /* all the host has, but for what was taken away */
	const char *vendor;    /* VENDOR_BYTES; NULL: the host's */
	uint32_t address_bits; /* of physical addresses; 0: the model's */
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
	f->bits[word] &= ~(1u << bit);
	f->refused[word] &= ~(1u << bit);
	*(on ? &f->bits[word] : &f->refused[word]) |= 1u << bit;
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

static int set_vendor(struct spec *s, const char *name, size_t len, struct err *e)
{
	if (len != VENDOR_BYTES)
		return err_set(e, ERR_USAGE, EINVAL,
			       "vendor=%.*s: a vendor has %d letters, as GenuineIntel and "
			       "AuthenticAMD have",
			       (int)len, name, VENDOR_BYTES);
	s->vendor = name;
	return 0;
}

static int set_address_bits(struct spec *s, const char *number, size_t len, struct err *e)
{
	char *end;
	unsigned long bits = strtoul(number, &end, 10);

	if (end != number + len || bits < LEAST_BITS || bits > MOST_BITS)
		return err_set(e, ERR_USAGE, EINVAL, "phys-bits=%.*s: %d to %d are possible",
			       (int)len, number, LEAST_BITS, MOST_BITS);
	s->address_bits = (uint32_t)bits;
	return 0;
}

/* What follows a comma: @len bytes. */
static int set_property(struct spec *s, const char *text, size_t len, struct err *e)
{
	static const char vendor[] = "vendor=";
	static const char bits[] = "phys-bits=";
	const size_t after_vendor = sizeof(vendor) - 1;
	const size_t after_bits = sizeof(bits) - 1;

	if (!strncmp(text, vendor, after_vendor))
		return set_vendor(s, text + after_vendor, len - after_vendor, e);
	if (!strncmp(text, bits, after_bits))
		return set_address_bits(s, text + after_bits, len - after_bits, e);
	if (text[0] != '+' && text[0] != '-')
		return err_set(e, ERR_USAGE, EINVAL,
			       "'%.*s': a feature comes with + or -, as in x86-64-v2,+avx,-aes",
			       (int)len, text);
	return set_feature(&s->features, text + 1, len - 1, text[0] == '+', e);
}

/* @host NULL: only what is wrong with @text itself. */
static int parse(const char *text, const struct cpuid *host, struct spec *s, struct err *e)
{
	size_t len = strcspn(text, ",");

	memset(s, 0, sizeof(*s));
	s->host = len == 4 && !strncmp(text, "host", len);
	if (s->host && host)
		set_all_of(&s->features, host);
	else if (!s->host && set_model(&s->features, text, len, e) < 0)
		return -e->code;
	for (const char *at = text + len; *at; at += len) {
		len = strcspn(at + 1, ",") + 1;
		if (set_property(s, at + 1, len - 1, e) < 0)
			return -e->code;
	}
	return 0;
}

int cpu_model_check(const char *spec, struct err *e)
{
	struct spec s;

	return parse(spec, NULL, &s, e);
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

static void limit_addresses(struct cpuid *c, uint32_t bits)
{
	for (uint32_t i = 0; i < c->nr; i++) {
		struct cpuid_entry *en = &c->entries[i];

		if (en->function == LEAF_SIZES && (en->eax & 0xff) > bits)
			en->eax = (en->eax & ~0xffu) | bits;
	}
}

/* Leaf 0 has the vendor in EBX, EDX, ECX; AMD's repeat it in leaf 0x80000000. */
static void set_vendor_leaves(struct cpuid *c, const char *vendor)
{
	for (uint32_t i = 0; i < c->nr; i++) {
		struct cpuid_entry *en = &c->entries[i];

		if (en->function != 0 && (en->function != LEAF_EXTENDED || !en->ebx))
			continue;
		memcpy(&en->ebx, vendor, 4);
		memcpy(&en->edx, vendor + 4, 4);
		memcpy(&en->ecx, vendor + 8, 4);
	}
}

/* The bits of @w that a guest of features @f may have. */
static uint32_t allowed(const struct cpuid *c, const struct cpuid_feature_word *w, uint32_t wanted,
			uint32_t refused)
{
	switch (w->function) {
	case LEAF_KVM: /* what KVM offers beside the processor is the same on all hosts of a kernel
			*/
	case LEAF_SVM: /* --nested's to give, not a model's */
		return ~refused;
	case LEAF_EXT_FEATURES:
		if (w->reg == CPUID_EDX)
			wanted |= repeated_bits(c);
		break;
	}
	return (wanted | w->ignored) & ~refused;
}

static void limit_features(struct cpuid *c, const struct features *f)
{
	const struct cpuid_feature_word *w;
	struct features also = {.bits = {0}};
	struct err never = ERR_INIT; /* these names are ours, and tested */

	(void)set_features(&also, provided, &never);
	for (uint32_t i = 0; (w = cpuid_feature_word(i)) != NULL; i++)
		if (!is_state_word(w))
			cpuid_mask(c, w, allowed(c, w, f->bits[i] | also.bits[i], f->refused[i]));
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
	return err_set(e, ERR_UNSUPPORTED, ENOTSUP, "CPU model %.100s: this host's KVM lacks %s",
		       spec, list);
}

int cpu_model_apply(const char *text, const struct cpuid *host, struct cpuid *out, struct err *e)
{
	struct spec s;

	if (out != host)
		*out = *host;
	if (!text || !strcmp(text, "host"))
		return 0;
	if (parse(text, host, &s, e) < 0 || check_host(text, &s.features, host, e) < 0)
		return -e->code;
	if (s.address_bits || !s.host)
		limit_addresses(out, s.address_bits ? s.address_bits : BASELINE_BITS);
	limit_features(out, &s.features);
	fit_xsave(out, &s.features);
	drop_leaves(out, &s.features);
	if (s.vendor)
		set_vendor_leaves(out, s.vendor);
	return 0;
}

const char *cpu_model_name(uint32_t i)
{
	return i < NR_MODELS ? models[i].name : NULL;
}
