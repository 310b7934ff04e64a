/*
 * Runs the checks that the command line names, or all of them, and ends the machine as
 * kvm-unit-tests do: with the number of failures through debug-exit, else through the power-off
 * port. Words with a meaning of their own: "exit=N" ends with N; "shutdown" leaves debug-exit out;
 * "reset" resets the machine by port 0xcf9 once, and counts in CMOS that it came back; "sleep"
 * sleeps (S3) until the clock's alarm and ends with 3; "smm" does what smm_work.h says, for ever.
 */
#include "tests/multiboot/checks.h"
#include "tests/multiboot/machine.h"
#include "tests/multiboot/smm.h"

#define DEBUG_EXIT      0xf4
#define SHUTDOWN        0x8900
#define RESET_PORT      0xcf9
#define CMOS_RESETS     0x52
#define CMOS_RESET_MARK 0xa5
#define WAKING_VECTOR   0x1000

extern char wake_start[], wake_end[];

static size_t length(const char *text)
{
	size_t n = 0;

	while (text[n])
		n++;
	return n;
}

static size_t word_length(const char *text)
{
	size_t n = 0;

	while (text[n] && text[n] != ' ')
		n++;
	return n;
}

/* The value after "NAME=" or NULL; for a bare word what follows it. */
static const char *find_word(const char *line, const char *name)
{
	size_t n = length(name);

	while (*line) {
		size_t bytes = word_length(line);

		if (bytes >= n && equal(line, name, n) && (bytes == n || line[n - 1] == '='))
			return line + n;
		line += bytes;
		line += *line == ' ';
	}
	return NULL;
}

/* The first word is the program's name. */
static const char *arguments(const struct boot_info *info)
{
	const char *line = (const char *)(uintptr_t)info->cmdline;

	line += word_length(line);
	return line + (*line == ' ');
}

static bool run(const struct check *c, const struct boot_info *info)
{
	bool ok = c->passes(info);

	print(ok ? "ok " : "FAIL ");
	print(c->name);
	print("\n");
	return ok;
}

static uint32_t run_wanted(const struct boot_info *info, const char *line)
{
	uint32_t nr_failed = 0, nr_run = 0;

	for (uint32_t i = 0; i < nr_checks; i++) {
		if (!find_word(line, checks[i].name))
			continue;
		nr_failed += !run(&checks[i], info);
		nr_run++;
	}
	for (uint32_t i = 0; nr_run == 0 && i < nr_checks; i++)
		nr_failed += !run(&checks[i], info);
	return nr_failed;
}

static void reset_once(void)
{
	if (cmos(CMOS_RESETS) == CMOS_RESET_MARK) {
		set_cmos(CMOS_RESETS, 0);
		print("ok reset\n");
		return;
	}
	set_cmos(CMOS_RESETS, CMOS_RESET_MARK);
	outb(RESET_PORT, 2);
	outb(RESET_PORT, 6);
	for (;;)
		__asm__ volatile("hlt");
}

static void copy(uint32_t to, const char *from, const char *end)
{
	while (from < end)
		*(volatile char *)(uintptr_t)to++ = *from++;
}

/* Alarm every second, RTC_EN in PM1, SLP_TYP 1 and SLP_EN. */
static void sleep(void)
{
	struct acpi_sleep a = acpi_find_sleep();

	copy(WAKING_VECTOR, wake_start, wake_end);
	*a.waking_vector = WAKING_VECTOR;
	for (uint8_t alarm = 1; alarm <= 5; alarm += 2)
		set_cmos(alarm, 0xc0);
	cmos(0x0c);
	set_cmos(0x0b, cmos(0x0b) | 0x20);
	outw(a.event_port + 2, 0x0400);
	outw(a.control_port, 0x2400);
	pm_timer_wait(2 * 3579545);
	print("FAIL sleep\n");
}

static void end(const char *line, uint32_t code)
{
	static const char word[] = "Shutdown";

	if (!find_word(line, "shutdown"))
		outl(DEBUG_EXIT, code);
	for (size_t i = 0; i < sizeof(word) - 1; i++)
		outb(SHUTDOWN, (uint8_t)word[i]);
}

void main(uint32_t magic, const struct boot_info *info);
void main(uint32_t magic, const struct boot_info *info)
{
	const char *line = arguments(info), *code = find_word(line, "exit=");

	serial_init();
	interrupts_init();
	if (magic != BOOT_MAGIC) {
		print("FAIL multiboot magic\n");
		end(line, 99);
	}
	if (find_word(line, "smm"))
		smm_work();
	if (find_word(line, "reset"))
		reset_once();
	if (find_word(line, "sleep")) {
		sleep();
		end(line, 99);
	}
	if (code || find_word(line, "shutdown"))
		end(line, code ? (uint32_t)(*code - '0') : 0);
	end(line, run_wanted(info, line));
}
