/* An SMI handler, to be copied: real mode, but data segments reach all of 4 GiB. RSM brings all
 * registers back. */
#include "tests/multiboot/smm_work.h"

	.globl smm_handler, smm_handler_end
	.text
	.code16
smm_handler:
	mov $SMM_HANDLER_GPA, %edi
	mov $SMM_NR_PAGES, %ecx
1:	incl (%edi)
	add $4096, %edi
	dec %ecx
	jnz 1b
	rsm
smm_handler_end:
