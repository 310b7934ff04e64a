#include "vmm/cpuid.h"

#include <errno.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "vmm/kvm.h"

#define LEAF_FEATURES     0x1u
#define LEAF_CACHE        0x4u
#define LEAF_EXTENDED     0x7u
#define LEAF_PMU          0xau
#define LEAF_TOPOLOGY     0xbu
#define LEAF_TOPOLOGY_V2  0x1fu
#define LEAF_KVM_BASE     0x40000000u
#define LEAF_KVM_FEATURES 0x40000001u
#define LEAF_KVM_TIMING   0x40000010u
#define LEAF_EXT_FEATURES 0x80000001u
#define LEAF_EXT_SIZES    0x80000008u
#define LEAF_SVM          0x8000000au
#define LEAF_AMD_TOPOLOGY 0x8000001eu
#define LEAF_AMD_MEMCRYPT 0x8000001fu
#define LEAF_AMD_PERFMON  0x80000022u

#define F1_ECX_DTES64       (1u << 2)
#define F1_ECX_VMX          (1u << 5)
#define F1_ECX_PDCM         (1u << 15)
#define F1_ECX_TSC_DEADLINE (1u << 24)
#define F1_ECX_HYPERVISOR   (1u << 31)
#define F1_EDX_HT           (1u << 28)
#define F7_ECX_LA57         (1u << 16)
#define F7_EDX_ARCH_LBR     (1u << 19)
#define FX1_ECX_CMP_LEGACY  (1u << 1)
#define FX1_ECX_SVM         (1u << 2)
#define FX1_ECX_PERFCTR     (1u << 23)

#define SIGNATURE_KVM_EBX 0x4b4d564bu /* "KVMKVMKVM\0\0\0" */
#define SIGNATURE_KVM_ECX 0x564b4d56u
#define SIGNATURE_KVM_EDX 0x0000004du

static struct cpuid_entry *find(struct cpuid *c, uint32_t function, uint32_t index)
{
	for (uint32_t i = 0; i < c->nr; i++)
		if (c->entries[i].function == function && c->entries[i].index == index)
			return &c->entries[i];
	return NULL;
}

const struct cpuid_entry *cpuid_find(const struct cpuid *c, uint32_t function, uint32_t index)
{
	for (uint32_t i = 0; i < c->nr; i++)
		if (c->entries[i].function == function && c->entries[i].index == index)
			return &c->entries[i];
	return NULL;
}

static struct cpuid_entry *find_or_add(struct cpuid *c, uint32_t function, uint32_t index,
				       uint32_t flags)
{
	struct cpuid_entry *en = find(c, function, index);

	if (en || c->nr == CPUID_MAX_ENTRIES)
		return en;
	en = &c->entries[c->nr++];
	*en = (struct cpuid_entry){.function = function, .index = index, .flags = flags};
	return en;
}

void cpuid_remove(struct cpuid *c, uint32_t function)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < c->nr; i++)
		if (c->entries[i].function != function)
			c->entries[kept++] = c->entries[i];
	c->nr = kept;
}

/* Bits needed to number @n things. */
static uint32_t id_bits(uint32_t n)
{
	return n < 2 ? 0 : 32 - (uint32_t)__builtin_clz(n - 1);
}

/* Leaves that describe a package of nr_cpus cores with one thread each. */
static void set_topology_leaf(struct cpuid *c, uint32_t function, uint32_t nr_cpus)
{
	const uint32_t level_smt = 1;
	const uint32_t level_core = 2;
	struct cpuid_entry *en;

	cpuid_remove(c, function);
	en = find_or_add(c, function, 0, KVM_CPUID_FLAG_SIGNIFCANT_INDEX);
	if (en) {
		en->eax = 0;
		en->ebx = 1;
		en->ecx = level_smt << 8;
	}
	en = find_or_add(c, function, 1, KVM_CPUID_FLAG_SIGNIFCANT_INDEX);
	if (en) {
		en->eax = id_bits(nr_cpus);
		en->ebx = nr_cpus;
		en->ecx = 1 | level_core << 8;
	}
	en = find_or_add(c, function, 2, KVM_CPUID_FLAG_SIGNIFCANT_INDEX);
	if (en)
		en->ecx = 2;
}

/* Leaf 4: caches up to level 2 belong to one core, larger ones to the package. */
static void set_cache_sharing(struct cpuid *c, uint32_t nr_cpus)
{
	uint32_t ids = 1u << id_bits(nr_cpus);

	for (uint32_t i = 0; i < c->nr; i++) {
		struct cpuid_entry *en = &c->entries[i];
		uint32_t level = en->eax >> 5 & 7;

		if (en->function != LEAF_CACHE || (en->eax & 0x1f) == 0)
			continue;
		en->eax &= 0x3fff;
		en->eax |= (ids - 1) << 26;
		if (level > 2)
			en->eax |= (ids - 1) << 14;
	}
}

static void set_topology(struct cpuid *c, uint32_t nr_cpus)
{
	struct cpuid_entry *en = find(c, LEAF_FEATURES, 0);

	if (en) {
		en->ebx = (en->ebx & 0xff00ffff) | (1u << id_bits(nr_cpus)) << 16;
		en->edx = nr_cpus > 1 ? en->edx | F1_EDX_HT : en->edx & ~F1_EDX_HT;
	}
	set_cache_sharing(c, nr_cpus);
	if (find(c, LEAF_TOPOLOGY, 0))
		set_topology_leaf(c, LEAF_TOPOLOGY, nr_cpus);
	if (find(c, LEAF_TOPOLOGY_V2, 0))
		set_topology_leaf(c, LEAF_TOPOLOGY_V2, nr_cpus);
	en = find(c, LEAF_EXT_SIZES, 0);
	if (en && en->ecx) /* AMD: number of cores - 1, and the width of their ids */
		en->ecx = id_bits(nr_cpus) << 12 | (nr_cpus - 1);
	en = find(c, LEAF_EXT_FEATURES, 0);
	if (en && (nr_cpus == 1 || !cpuid_find(c, LEAF_AMD_TOPOLOGY, 0)))
		en->ecx &= ~FX1_ECX_CMP_LEGACY;
	en = find(c, LEAF_AMD_TOPOLOGY, 0);
	if (en)
		en->ebx = en->ecx = 0; /* core 0, one thread a core, node 0 of one */
	cpuid_set_apic_id(c, 0);
}

void cpuid_set_apic_id(struct cpuid *c, uint32_t id)
{
	for (uint32_t i = 0; i < c->nr; i++) {
		struct cpuid_entry *en = &c->entries[i];

		switch (en->function) {
		case LEAF_FEATURES:
			en->ebx = (en->ebx & 0x00ffffff) | id << 24;
			break;
		case LEAF_TOPOLOGY:
		case LEAF_TOPOLOGY_V2:
			en->edx = id;
			break;
		case LEAF_AMD_TOPOLOGY:
			en->eax = id;
			en->ebx = (en->ebx & 0xffffff00) | (id & 0xff);
			break;
		default:
			break;
		}
	}
}

/* Guests that were not asked to be hypervisors are none: their state is smaller. */
static void mask_nesting(struct cpuid *c)
{
	struct cpuid_entry *en = find(c, LEAF_FEATURES, 0);

	if (en)
		en->ecx &= ~F1_ECX_VMX;
	en = find(c, LEAF_EXT_FEATURES, 0);
	if (en)
		en->ecx &= ~FX1_ECX_SVM;
	cpuid_remove(c, LEAF_SVM);
}

static void mask(struct cpuid *c)
{
	struct cpuid_entry *en = find(c, LEAF_FEATURES, 0);

	if (en) /* performance counters and debug store are of one host */
		en->ecx &= ~(F1_ECX_PDCM | F1_ECX_DTES64);
	en = find(c, LEAF_EXTENDED, 0);
	if (en) {
		/* Some KVMs offer LA57 and then refuse it in CR4; guests gain nothing from it
		 * below 64 TiB. */
		en->ecx &= ~F7_ECX_LA57;
		en->edx &= ~F7_EDX_ARCH_LBR;
	}
	en = find(c, LEAF_EXT_FEATURES, 0);
	if (en)
		en->ecx &= ~FX1_ECX_PERFCTR;
	/* What a performance counter counted on one host means nothing on the next. */
	en = find(c, LEAF_PMU, 0);
	if (en)
		en->eax = en->ebx = en->ecx = en->edx = 0;
	cpuid_remove(c, LEAF_AMD_MEMCRYPT);
	cpuid_remove(c, LEAF_AMD_PERFMON);
}

static void set_hypervisor(struct cpuid *c, int kvm_fd, uint32_t tsc_khz)
{
	struct cpuid_entry *en = find(c, LEAF_FEATURES, 0);

	if (en) {
		en->ecx |= F1_ECX_HYPERVISOR;
		/* Emulated by the in-kernel LAPIC; told by this capability, not always by CPUID
		 * (KVM API document, 4.46). */
		if (kvm_check(kvm_fd, KVM_CAP_TSC_DEADLINE_TIMER))
			en->ecx |= F1_ECX_TSC_DEADLINE;
	}
	en = find_or_add(c, LEAF_KVM_BASE, 0, 0);
	if (en) {
		en->eax = LEAF_KVM_TIMING;
		en->ebx = SIGNATURE_KVM_EBX;
		en->ecx = SIGNATURE_KVM_ECX;
		en->edx = SIGNATURE_KVM_EDX;
	}
	/* TSC and APIC bus frequency, kHz: spares guests a calibration. A destination keeps the
	 * TSC frequency or refuses, so the promise holds. */
	en = find_or_add(c, LEAF_KVM_TIMING, 0, 0);
	if (en) {
		en->eax = tsc_khz;
		en->ebx = 1000000;
	}
}

int cpuid_build(int kvm_fd, uint32_t nr_cpus, uint32_t tsc_khz, bool nested, struct cpuid *out,
		struct err *e)
{
	struct kvm_cpuid2 *sup;
	int ret = kvm_supported_cpuid(kvm_fd, &sup, e);

	if (ret < 0)
		return ret;
	out->nr = sup->nent < CPUID_MAX_ENTRIES ? sup->nent : CPUID_MAX_ENTRIES;
	for (uint32_t i = 0; i < out->nr; i++) {
		const struct kvm_cpuid_entry2 *s = &sup->entries[i];

		out->entries[i] = (struct cpuid_entry){s->function, s->index, s->flags, s->eax,
						       s->ebx,      s->ecx,   s->edx};
	}
	free(sup);
	mask(out);
	if (!nested)
		mask_nesting(out);
	set_hypervisor(out, kvm_fd, tsc_khz);
	set_topology(out, nr_cpus);
	return 0;
}

int cpuid_apply(int vcpu_fd, const struct cpuid *c, struct err *e)
{
	struct {
		struct kvm_cpuid2 head;
		struct kvm_cpuid_entry2 entries[CPUID_MAX_ENTRIES];
	} k = {.head.nent = c->nr};

	for (uint32_t i = 0; i < c->nr; i++) {
		const struct cpuid_entry *en = &c->entries[i];

		k.entries[i] = (struct kvm_cpuid_entry2){.function = en->function,
							 .index = en->index,
							 .flags = en->flags,
							 .eax = en->eax,
							 .ebx = en->ebx,
							 .ecx = en->ecx,
							 .edx = en->edx};
	}
	if (ioctl(vcpu_fd, KVM_SET_CPUID2, &k) < 0)
		return err_sys(e, "KVM_SET_CPUID2 of %u entries", c->nr);
	return 0;
}

static uint32_t reg_of(const struct cpuid_entry *en, enum cpuid_reg reg)
{
	if (!en)
		return 0;
	switch (reg) {
	case CPUID_EAX:
		return en->eax;
	case CPUID_EBX:
		return en->ebx;
	case CPUID_ECX:
		return en->ecx;
	case CPUID_EDX:
		return en->edx;
	}
	return 0;
}

uint32_t cpuid_register(const struct cpuid *c, const struct cpuid_feature_word *w)
{
	return reg_of(cpuid_find(c, w->function, w->index), w->reg);
}

void cpuid_mask(struct cpuid *c, const struct cpuid_feature_word *w, uint32_t keep)
{
	struct cpuid_entry *en = find(c, w->function, w->index);

	if (!en)
		return;
	switch (w->reg) {
	case CPUID_EAX:
		en->eax &= keep;
		return;
	case CPUID_EBX:
		en->ebx &= keep;
		return;
	case CPUID_ECX:
		en->ecx &= keep;
		return;
	case CPUID_EDX:
		en->edx &= keep;
		return;
	}
}

void cpuid_list_missing(const struct cpuid_feature_word *w, uint32_t missing, char *list,
			size_t cap)
{
	static const char *const regs[] = {"eax", "ebx", "ecx", "edx"};

	for (; missing; missing &= missing - 1) {
		int bit = __builtin_ctz(missing);
		size_t used = strlen(list);

		if (w->names[bit])
			snprintf(list + used, cap - used, "%s%s", used ? ", " : "", w->names[bit]);
		else
			snprintf(list + used, cap - used, "%sCPUID 0x%x.%u %s bit %d",
				 used ? ", " : "", w->function, w->index, regs[w->reg], bit);
	}
}

static int check_features(const struct cpuid *wanted, const struct cpuid *host, struct err *e)
{
	char list[ERR_MSG_BYTES / 2] = "";
	const struct cpuid_feature_word *w;

	for (uint32_t i = 0; (w = cpuid_feature_word(i)) != NULL; i++) {
		uint32_t missing = cpuid_register(wanted, w) & ~cpuid_register(host, w);

		cpuid_list_missing(w, missing & ~w->ignored, list, sizeof(list));
	}
	if (list[0])
		return err_set(e, ERR_UNSUPPORTED, ENOTSUP,
			       "this host's KVM lacks CPU features the guest was started with: %s; "
			       "start the guest with a --cpu model that both hosts have",
			       list);
	return 0;
}

static int check_vendor(const struct cpuid *wanted, const struct cpuid *host, struct err *e)
{
	const struct cpuid_entry *w = cpuid_find(wanted, 0, 0);
	const struct cpuid_entry *h = cpuid_find(host, 0, 0);
	char name[2][13] = {"", ""};
	const struct cpuid_entry *both[2] = {w, h};

	if (!w || !h)
		return err_set(e, ERR_STREAM, EBADMSG, "CPUID without leaf 0");
	if (w->ebx == h->ebx && w->ecx == h->ecx && w->edx == h->edx)
		return 0;
	for (int i = 0; i < 2; i++) {
		memcpy(name[i], &both[i]->ebx, 4);
		memcpy(name[i] + 4, &both[i]->edx, 4);
		memcpy(name[i] + 8, &both[i]->ecx, 4);
		for (char *p = name[i]; *p; p++)
			if (*p < ' ' || *p > '~')
				*p = '?';
	}
	return err_set(e, ERR_UNSUPPORTED, ENOTSUP,
		       "the guest was started on a %s CPU and this host has a %s one", name[0],
		       name[1]);
}

int cpuid_check(const struct cpuid *wanted, const struct cpuid *host, struct err *e)
{
	uint32_t want_bits = reg_of(cpuid_find(wanted, LEAF_EXT_SIZES, 0), CPUID_EAX) & 0xff;
	uint32_t host_bits = reg_of(cpuid_find(host, LEAF_EXT_SIZES, 0), CPUID_EAX) & 0xff;
	int ret = check_vendor(wanted, host, e);

	if (ret < 0)
		return ret;
	if (want_bits > host_bits)
		return err_set(e, ERR_UNSUPPORTED, ENOTSUP,
			       "the guest was promised %u physical address bits and this host has "
			       "%u",
			       want_bits, host_bits);
	return check_features(wanted, host, e);
}

void cpuid_to_words(const struct cpuid *c, uint32_t *words)
{
	for (uint32_t i = 0; i < c->nr; i++)
		memcpy(words + (size_t)i * CPUID_ENTRY_WORDS, &c->entries[i],
		       sizeof(c->entries[i]));
}

int cpuid_from_words(const uint32_t *words, size_t nr_words, struct cpuid *out, struct err *e)
{
	_Static_assert(sizeof(struct cpuid_entry) == CPUID_ENTRY_WORDS * sizeof(uint32_t),
		       "an entry is its words");

	if (nr_words == 0 || nr_words % CPUID_ENTRY_WORDS ||
	    nr_words / CPUID_ENTRY_WORDS > CPUID_MAX_ENTRIES)
		return err_set(e, ERR_STREAM, EBADMSG, "CPUID of %zu words", nr_words);
	out->nr = (uint32_t)(nr_words / CPUID_ENTRY_WORDS);
	memcpy(out->entries, words, nr_words * sizeof(*words));
	return 0;
}
