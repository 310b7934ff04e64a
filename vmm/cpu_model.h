/*
 * CPU models: what `--cpu` says, and the CPUID a guest gets for it.
 *
 * A guest that is to move between different hosts is started with the features that all of them
 * have: a baseline (the x86-64 psABI's levels v1 to v4, or a processor's name), and features more
 * or less. The feature bits are the model's; everything else (vendor, family, caches, topology) is
 * the first host's and stays so. Without a model, or with "host", a guest gets all this host's KVM
 * has. For tests of guests and of KVM two things more can be said: another vendor (cpuid_check()
 * compares it with the host's, so that guest stays where it is), and fewer physical address bits.
 * Plain functions; any thread.
 */
#pragma once

#include "vmm/cpuid.h"

/* Is @spec a model? "host" or NAME, then [,+FEATURE|,-FEATURE|,vendor=NAME|,phys-bits=N]...;
 * ERR_USAGE names what is unknown and what is known. */
int cpu_model_check(const char *spec, struct err *e);

/* What a guest of model @spec (NULL: host) sees on a host that offers @host (a cpuid_build()).
 * ERR_UNSUPPORTED names every feature of the model that the host lacks. @out may be @host. */
int cpu_model_apply(const char *spec, const struct cpuid *host, struct cpuid *out, struct err *e);

/* The names, oldest first; NULL past the last. */
const char *cpu_model_name(uint32_t i);
