/*
 * What the image does when told "smm", and where (16 MiB of memory, one CPU): for as long as it
 * runs, sends itself an SMI, whose handler writes to each page of one range and takes about half of
 * the time; then sees that all of that is there and writes to each page of the other range. For
 * tests/integration/test_smm.c. Also for assembly.
 */
#pragma once

#define SMM_WORK_GPA   0x700000
#define SMM_WORK_MAGIC 0x534d4d21

#define SMM_HANDLER_GPA 0x800000 /* pages that only the handler writes: their first words */
#define SMM_NORMAL_GPA  0xa00000 /* pages that only the rest writes */
#define SMM_NR_PAGES    256

#ifndef __ASSEMBLER__
#include <stdint.h>

struct smm_work {
	uint32_t magic; /* last, when all else is set up */
	uint32_t nr_smis;
	uint32_t nr_errors; /* words of the handler's pages that were not what it wrote */
};
#endif
