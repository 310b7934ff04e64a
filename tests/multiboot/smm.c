#include "tests/multiboot/smm.h"

#include "tests/multiboot/machine.h"
#include "tests/multiboot/smm_work.h"

#define HANDLER 0xa8000u /* of CPU 0: vmm/smm.h */

#define ICR_SELF     (1u << 18)
#define ICR_SMI      (2u << 8)
#define MSR_SMICOUNT 0x34

extern const char smm_handler[], smm_handler_end[];

static void send_smi(void)
{
	mmio_write(LAPIC + LAPIC_ICR_LOW, ICR_SELF | ICR_SMI);
}

bool smi_comes_back(const struct boot_info *info)
{
	uint64_t before = rdmsr(MSR_SMICOUNT);

	(void)info;
	mmio_write(LAPIC + LAPIC_SPURIOUS, 0x1ff);
	send_smi();
	for (int i = 0; rdmsr(MSR_SMICOUNT) == before && i < 500; i++)
		pm_timer_wait(3580);
	return rdmsr(MSR_SMICOUNT) == before + 1;
}

static volatile uint32_t *word(uint32_t base, uint32_t page)
{
	return (volatile uint32_t *)(uintptr_t)(base + page * 4096);
}

void smm_work(void)
{
	volatile struct smm_work *work = (volatile struct smm_work *)(uintptr_t)SMM_WORK_GPA;
	volatile char *to = (volatile char *)(uintptr_t)HANDLER;

	for (const char *from = smm_handler; from < smm_handler_end; from++)
		*to++ = *from;
	mmio_write(LAPIC + LAPIC_SPURIOUS, 0x1ff);
	for (uint32_t i = 0; i < SMM_NR_PAGES; i++)
		*word(SMM_HANDLER_GPA, i) = 0; /* this may be a second boot */
	work->magic = SMM_WORK_MAGIC;
	for (uint32_t n = 1;; n++) {
		send_smi();
		while (*word(SMM_HANDLER_GPA, 0) != n)
			__asm__ volatile("pause");
		for (uint32_t i = 0; i < SMM_NR_PAGES; i++) {
			work->nr_errors += *word(SMM_HANDLER_GPA, i) != n;
			*word(SMM_NORMAL_GPA, i) = n;
		}
		work->nr_smis = n;
	}
}
