#include "tests/multiboot/machine.h"

#define SERIAL          0x3f8
#define SERIAL_LSR      (SERIAL + 5)
#define SERIAL_LSR_THRE 0x20
#define FW_CFG_PORT     0x510
#define CMOS_PORT       0x70

void serial_init(void)
{
	outb(SERIAL + 3, 0x80);
	outb(SERIAL + 0, 1); /* 115200 */
	outb(SERIAL + 1, 0);
	outb(SERIAL + 3, 0x03);
	outb(SERIAL + 1, 0);
	outb(SERIAL + 2, 0);
	outb(SERIAL + 4, 0x03);
}

static void put(char c)
{
	while (!(inb(SERIAL_LSR) & SERIAL_LSR_THRE))
		;
	outb(SERIAL, (uint8_t)c);
}

void print(const char *text)
{
	while (*text)
		put(*text++);
}

bool equal(const char *a, const char *b, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (a[i] != b[i])
			return false;
	return true;
}

uint64_t fw_cfg(uint16_t key, uint32_t bytes)
{
	uint64_t value = 0;

	outw(FW_CFG_PORT, key);
	for (uint32_t i = 0; i < bytes; i++)
		value |= (uint64_t)inb(FW_CFG_PORT + 1) << 8 * i;
	return value;
}

uint8_t cmos(uint8_t reg)
{
	outb(CMOS_PORT, reg);
	return inb(CMOS_PORT + 1);
}

void set_cmos(uint8_t reg, uint8_t value)
{
	outb(CMOS_PORT, reg);
	outb(CMOS_PORT + 1, value);
}

/* ACPI 6.4, 5.2.5.1: on a 16-byte boundary of the BIOS area. */
static const char *find_rsdp(void)
{
	for (uintptr_t at = 0xe0000; at < 0x100000; at += 16)
		if (equal((const char *)at, "RSD PTR ", 8))
			return (const char *)at;
	return NULL;
}

static uint32_t word_at(const char *p)
{
	uint32_t value;

	__builtin_memcpy(&value, p, sizeof(value));
	return value;
}

static const char *find_fadt(void)
{
	const char *rsdp = find_rsdp(), *rsdt;

	if (!rsdp)
		return NULL;
	rsdt = (const char *)(uintptr_t)word_at(rsdp + 16);
	for (uint32_t i = 36; i < word_at(rsdt + 4); i += 4) {
		const char *table = (const char *)(uintptr_t)word_at(rsdt + i);

		if (equal(table, "FACP", 4))
			return table;
	}
	return NULL;
}

uint32_t acpi_pm_timer_port(void)
{
	const char *fadt = find_fadt();

	return fadt ? word_at(fadt + 76) : 0;
}

struct acpi_sleep acpi_find_sleep(void)
{
	const char *fadt = find_fadt();

	return (struct acpi_sleep){
		.waking_vector = (uint32_t *)(uintptr_t)(word_at(fadt + 36) + 12),
		.event_port = (uint16_t)word_at(fadt + 56),
		.control_port = (uint16_t)word_at(fadt + 64),
	};
}

/* The timer has 24 bits at least. */
void pm_timer_wait(uint32_t ticks)
{
	uint16_t port = (uint16_t)acpi_pm_timer_port();
	uint32_t start = inl(port);

	while (((inl(port) - start) & 0xffffff) < ticks)
		__asm__ volatile("pause");
}
