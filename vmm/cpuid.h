/*
 * What CPU the guest sees: KVM's supported CPUID, minus what cannot migrate, plus topology.
 *
 * A machine has one CPUID for its life, on every host it visits: the first host makes it, the
 * others set exactly the same or refuse, naming each feature their KVM lacks. Plain data.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vmm/base/err.h"

struct kvm_cpuid2;

#define CPUID_MAX_ENTRIES 256
/* An entry on the wire: function, index, flags, eax, ebx, ecx, edx. */
#define CPUID_ENTRY_WORDS 7

struct cpuid_entry {
	uint32_t function;
	uint32_t index;
	uint32_t flags; /* KVM_CPUID_FLAG_* */
	uint32_t eax, ebx, ecx, edx;
};

struct cpuid {
	uint32_t nr;
	struct cpuid_entry entries[CPUID_MAX_ENTRIES];
};

enum cpuid_reg {
	CPUID_EAX,
	CPUID_EBX,
	CPUID_ECX,
	CPUID_EDX
};

/* What this host can give a guest of @nr_cpus, as vCPU 0 sees it. @tsc_khz is told the guest;
 * @nested: VMX or SVM too, if the host has it. */
int cpuid_build(int kvm_fd, uint32_t nr_cpus, uint32_t tsc_khz, bool nested, struct cpuid *out,
		struct err *e);

/* Turn vCPU 0's view @c into vCPU @id's: APIC ids only. */
void cpuid_set_apic_id(struct cpuid *c, uint32_t id);

/* KVM_SET_CPUID2; on the vCPU's thread. */
int cpuid_apply(int vcpu_fd, const struct cpuid *c, struct err *e);

/* May a guest that was told @wanted run where KVM offers @host (a cpuid_build())? ERR_UNSUPPORTED
 * names every missing feature. */
int cpuid_check(const struct cpuid *wanted, const struct cpuid *host, struct err *e);

/* To and from the wire. The words come from outside: ERR_STREAM unless well formed. */
void cpuid_to_words(const struct cpuid *c, uint32_t *words); /* c->nr * CPUID_ENTRY_WORDS */
int cpuid_from_words(const uint32_t *words, size_t nr_words, struct cpuid *out, struct err *e);

const struct cpuid_entry *cpuid_find(const struct cpuid *c, uint32_t function, uint32_t index);

/* Every entry of @function. */
void cpuid_remove(struct cpuid *c, uint32_t function);

/* The registers that hold one feature a bit, and what their bits are called: cpuid_names.c. */
struct cpuid_feature_word {
	uint32_t function;
	uint32_t index;
	enum cpuid_reg reg;
	uint32_t ignored;         /* bits that say nothing about what a host can do */
	const char *const *names; /* 32, NULL where nobody gave one */
};

/* NULL past the last. */
const struct cpuid_feature_word *cpuid_feature_word(uint32_t i);

/* The register in @c (0: no such leaf), and the same with only the bits of @keep left in it. */
uint32_t cpuid_register(const struct cpuid *c, const struct cpuid_feature_word *w);
void cpuid_mask(struct cpuid *c, const struct cpuid_feature_word *w, uint32_t keep);

/* Append the name of each bit in @missing to @list; what does not fit is cut off. */
void cpuid_list_missing(const struct cpuid_feature_word *w, uint32_t missing, char *list,
			size_t cap);
