/* The frequency of the time-stamp counter. */
#ifndef GODWIT_EXPERIMENTS_GUEST_WORKLOAD_TSC_H
#define GODWIT_EXPERIMENTS_GUEST_WORKLOAD_TSC_H

#include <stdint.h>

#include "vmm/guest_report.h"

/* TSC frequency in kHz and where it is from; 0 when nothing tells. May take 20 ms, longer
 * on a host that stands still meanwhile. */
uint64_t tsc_find_khz(enum guest_tsc_source *source);

#endif
