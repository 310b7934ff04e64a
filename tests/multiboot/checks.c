#include "tests/multiboot/checks.h"

#include "tests/multiboot/machine.h"
#include "tests/multiboot/smm.h"

#define VECTOR       0x77
#define OTHER_VECTOR 0x66

#define TEST_ECHO  0xe0
#define TEST_FLUSH 0xe4
#define TEST_LINES 0x2000

#define MSR_APICBASE    0x1b
#define APICBASE_X2APIC (1u << 10)
#define APICBASE_ENABLE (1u << 11)
#define CPUID_1_X2APIC  (1u << 21)
#define X2APIC_MSR(reg) (0x800 + (reg) / 16)

#define ICR_ALL_BUT_ME (3u << 18)
#define ICR_ASSERT     (1u << 14)
#define ICR_INIT       (5u << 8)
#define ICR_STARTUP    (6u << 8)

#define REDIRECTION_LEVEL  (1u << 15)
#define REDIRECTION_MASKED (1u << 16)

extern char ap_start[], ap_end[];
volatile uint32_t nr_aps;

/* --- what the loader says --- */

static bool memory_size(const struct boot_info *info)
{
	uint64_t upper = (uint64_t)info->mem_upper_kib << 10;

	return info->flags & 1 && upper > 0 &&
	       upper + (1 << 20) >= fw_cfg(FW_CFG_RAM_SIZE, 8) - (1 << 20) &&
	       upper + (1 << 20) <= fw_cfg(FW_CFG_RAM_SIZE, 8);
}

/* RAM from 1 MiB on is one of the ranges, as long as mem_upper says. */
static bool memory_map(const struct boot_info *info)
{
	uint32_t at = info->mmap_addr, end = at + info->mmap_bytes;

	while (info->flags & 1 << 6 && at < end) {
		const uint32_t *entry = (const uint32_t *)(uintptr_t)at;

		if (entry[1] == 0x100000 && entry[5] == 1 && entry[3] >> 10 == info->mem_upper_kib)
			return true;
		at += entry[0] + 4;
	}
	return false;
}

/* The whole machine has one module at most, and its first word is known. */
static bool module(const struct boot_info *info)
{
	const struct boot_module *m = (const struct boot_module *)(uintptr_t)info->mods_addr;

	if (!(info->flags & 1 << 3) || info->mods_count == 0)
		return true;
	return info->mods_count == 1 && m->end - m->start >= 8 &&
	       equal((const char *)(uintptr_t)m->start, "NR_CPUS=", 8);
}

static bool fw_cfg_items(const struct boot_info *info)
{
	(void)info;
	return fw_cfg(FW_CFG_SIGNATURE, 4) == 0x554d4551 && fw_cfg(FW_CFG_NR_CPUS, 2) >= 1 &&
	       fw_cfg(FW_CFG_RAM_SIZE, 8) >= 16 << 20;
}

/* --- the test device --- */

static bool echo_port(const struct boot_info *info)
{
	(void)info;
	outl(TEST_ECHO, 0x12345678);
	outb(TEST_ECHO + 1, 0xab);
	return inl(TEST_ECHO) == 0x1234ab78 && inw(TEST_ECHO + 2) == 0x1234;
}

static bool flush_port(const struct boot_info *info)
{
	static volatile uint32_t page[2048];
	volatile uint32_t *word = (volatile uint32_t *)((uintptr_t)&page[1023] & ~4095ul);

	(void)info;
	for (uint32_t i = 0; i < 100; i++) {
		*word = i;
		outl(TEST_FLUSH, (uint32_t)(uintptr_t)word);
		if (*word != i)
			return false;
	}
	return true;
}

static bool test_memory(const struct boot_info *info)
{
	(void)info;
	mmio_write(TEST_MEMORY, 0x11223344);
	mmio_write(TEST_MEMORY + 0xfffc, 0x55667788);
	return mmio_read(TEST_MEMORY) == 0x11223344 &&
	       mmio_read(TEST_MEMORY + 0xfffc) == 0x55667788;
}

/* --- interrupt controllers --- */

static bool pic_masks(const struct boot_info *info)
{
	(void)info;
	outb(0x21, 0xff);
	outb(0xa1, 0xff);
	return inb(0x21) == 0xff && inb(0xa1) == 0xff;
}

static uint32_t ioapic_read(uint32_t reg)
{
	mmio_write(IOAPIC, reg);
	return mmio_read(IOAPIC + 0x10);
}

static void ioapic_route(uint32_t pin, uint32_t low)
{
	mmio_write(IOAPIC, 0x11 + 2 * pin);
	mmio_write(IOAPIC + 0x10, mmio_read(LAPIC + LAPIC_ID) & 0xff000000);
	mmio_write(IOAPIC, 0x10 + 2 * pin);
	mmio_write(IOAPIC + 0x10, low);
}

static void lapic_enable(void)
{
	mmio_write(LAPIC + LAPIC_SPURIOUS, 0x1ff);
}

static void toggle(uint32_t line)
{
	outb((uint16_t)(TEST_LINES + line), 1);
	outb((uint16_t)(TEST_LINES + line), 0);
}

static bool edge_line(const struct boot_info *info)
{
	bool ok;

	(void)info;
	lapic_enable();
	interrupts_forget();
	ioapic_route(14, VECTOR);
	ioapic_route(15, OTHER_VECTOR);
	toggle(14);
	toggle(15);
	ok = interrupts_arrive(VECTOR, 1) && interrupts_taken(OTHER_VECTOR) == 1;
	ioapic_route(14, REDIRECTION_MASKED);
	ioapic_route(15, REDIRECTION_MASKED);
	return ok;
}

/* A line that stays high interrupts again after every end of interrupt. */
static bool level_line(const struct boot_info *info)
{
	bool ok;

	(void)info;
	lapic_enable();
	interrupts_forget();
	ioapic_route(14, VECTOR | REDIRECTION_LEVEL);
	outb(TEST_LINES + 14, 1);
	__asm__ volatile("sti");
	for (int i = 0; interrupts_taken(VECTOR) < 3 && i < 500; i++)
		pm_timer_wait(3580);
	__asm__ volatile("cli");
	ok = interrupts_taken(VECTOR) >= 3;
	outb(TEST_LINES + 14, 0);
	ioapic_route(14, REDIRECTION_MASKED);
	return ok;
}

static bool ioapic_registers(const struct boot_info *info)
{
	(void)info;
	return (ioapic_read(1) >> 16 & 0xff) == 23;
}

static bool lapic_disable_and_enable(const struct boot_info *info)
{
	uint64_t base = rdmsr(MSR_APICBASE);
	bool off, on;

	(void)info;
	wrmsr(MSR_APICBASE, base & ~(uint64_t)(APICBASE_ENABLE | APICBASE_X2APIC));
	off = !(rdmsr(MSR_APICBASE) & APICBASE_ENABLE) && mmio_read(LAPIC + LAPIC_VERSION) == ~0u;
	wrmsr(MSR_APICBASE, base | APICBASE_ENABLE);
	on = (mmio_read(LAPIC + LAPIC_VERSION) & 0xff) >= 0x10;
	return off && on && edge_line(info);
}

/* Back to xAPIC only through "disabled": Intel SDM volume 3, 11.12.5. */
static bool x2apic(const struct boot_info *info)
{
	uint64_t base = rdmsr(MSR_APICBASE);
	uint32_t id = mmio_read(LAPIC + LAPIC_ID) >> 24;
	bool ok;

	(void)info;
	if (!(cpuid_ecx(1) & CPUID_1_X2APIC))
		return true;
	wrmsr(MSR_APICBASE, base | APICBASE_X2APIC);
	ok = rdmsr(X2APIC_MSR(LAPIC_ID)) == id;
	wrmsr(MSR_APICBASE, base & ~(uint64_t)(APICBASE_ENABLE | APICBASE_X2APIC));
	wrmsr(MSR_APICBASE, base);
	return ok && mmio_read(LAPIC + LAPIC_ID) >> 24 == id;
}

/* Where kvm-unit-tests put it: the start-up vector is 0. */
static bool all_cpus_start(const struct boot_info *info)
{
	uint32_t wanted = (uint32_t)fw_cfg(FW_CFG_NR_CPUS, 2) - 1;
	volatile char *to = (volatile char *)(uintptr_t)0;

	(void)info;
	__asm__ volatile("" : "+r"(to)); /* the compiler must not know that it is NULL */
	for (long i = 0; i < ap_end - ap_start; i++)
		to[i] = ap_start[i];
	lapic_enable();
	mmio_write(LAPIC + LAPIC_ICR_LOW, ICR_ALL_BUT_ME | ICR_ASSERT | ICR_INIT);
	pm_timer_wait(35800);
	mmio_write(LAPIC + LAPIC_ICR_LOW, ICR_ALL_BUT_ME | ICR_ASSERT | ICR_STARTUP);
	for (int i = 0; nr_aps < wanted && i < 500; i++)
		pm_timer_wait(3580);
	return nr_aps == wanted;
}

/* --- the rest of the board --- */

static bool pm_timer(const struct boot_info *info)
{
	(void)info;
	if (!acpi_pm_timer_port())
		return false;
	pm_timer_wait(3580);
	return true;
}

static bool cmos_clock(const struct boot_info *info)
{
	(void)info;
	set_cmos(0x51, 0x5a);
	return (cmos(0x0d) & 0x80) && cmos(8) >= 1 && cmos(8) <= 0x12 && cmos(0x51) == 0x5a;
}

static bool keyboard_controller(const struct boot_info *info)
{
	(void)info;
	return inb(0x64) != 0xff && (inb(0x92) & 2);
}

static bool hpet_counter(const struct boot_info *info)
{
	uint32_t start, running, stopped;

	(void)info;
	mmio_write(HPET + 0x10, 1);
	start = mmio_read(HPET + 0xf0);
	pm_timer_wait(3580); /* 1 ms: 100,000 ticks of 10 ns */
	running = mmio_read(HPET + 0xf0) - start;
	mmio_write(HPET + 0x10, 0);
	stopped = mmio_read(HPET + 0xf0);
	pm_timer_wait(358);
	return mmio_read(HPET + 4) == 10000000 && running >= 99000 &&
	       mmio_read(HPET + 0xf0) == stopped;
}

/* For an image that goes back to real mode. */
static bool real_mode_vectors(const struct boot_info *info)
{
	(void)info;
	return first_idt.base == 0 && first_idt.limit >= 256 * 4 - 1;
}

const struct check checks[] = {
	{"memory-size", memory_size},
	{"memory-map", memory_map},
	{"module", module},
	{"fw-cfg", fw_cfg_items},
	{"echo-port", echo_port},
	{"flush-port", flush_port},
	{"test-memory", test_memory},
	{"pic-masks", pic_masks},
	{"pm-timer", pm_timer},
	{"ioapic", ioapic_registers},
	{"edge-line", edge_line},
	{"level-line", level_line},
	{"lapic-disable-enable", lapic_disable_and_enable},
	{"x2apic", x2apic},
	{"all-cpus-start", all_cpus_start},
	{"cmos", cmos_clock},
	{"keyboard-controller", keyboard_controller},
	{"real-mode-vectors", real_mode_vectors},
	{"smi", smi_comes_back},
	{"hpet", hpet_counter},
};
const uint32_t nr_checks = sizeof(checks) / sizeof(checks[0]);
